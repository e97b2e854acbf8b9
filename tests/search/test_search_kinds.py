"""The approximate kinds compared with exact distances in NumPy."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_metric.search import Index
from keras_metric.search.stores.approximate_search import SETTINGS, read_structure

DIM = 16
SMALL = {
    "short": {"dims": 6},
    "hnsw": {"M": 12},
    "ivf": {"nlist": 20, "nprobe": 5},
    "pq": {"m": 4, "nbits": 6},
    "ivf-pq": {"nlist": 10, "nprobe": 4, "m": 8, "nbits": 5},
}


def new_index(kind, train_at, metric="euclidean", **settings):
    settings = {**SMALL[kind], "train_at": train_at, **settings}
    index = Index(DIM, metric, kind=kind, settings=settings)
    # With the default, 10,000, the tests would need many more items.
    index._store.exact_up_to = 30
    return index


def clustered(rng, count):
    """Points around 60 centers, with smaller values in the last dimensions."""
    centers = np.random.default_rng(1).normal(size=(60, DIM))
    x = centers[rng.integers(60, size=count)] + 0.3 * rng.normal(size=(count, DIM))
    return (x * np.linspace(2, 0.2, DIM)).astype("float32")


def exact(x, query, metric="euclidean"):
    if metric == "dot":
        return -(x @ query)
    if metric == "cosine":
        return 1 - x @ query / np.linalg.norm(x, axis=1) / np.linalg.norm(query)
    return np.linalg.norm(x - query, axis=1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("kind", SMALL)
def test_distances_filters_and_recall(rng, kind, metric):
    """Exact distances, k matches, filters without exception, and most of the true neighbours."""
    x, queries = clustered(rng, 1500), clustered(rng, 50)
    index = new_index(kind, 500, metric)
    parts = rng.integers(3, size=len(x))
    for start, end in ((0, 300), (300, 900), (900, 1500)):
        attributes = [{"part": int(part)} for part in parts[start:end]]
        index.add(x[start:end], parts[start:end] % 2, range(start, end), attributes)
        assert index._store.approximate.ready is (end > 300)
    removed = rng.permutation(1500)[:400].tolist()
    index.remove(removed)
    changed = [row for row in range(1500) if row not in set(removed)][:50]
    x[changed] = clustered(rng, 50)
    index.replace(x[changed], [0] * 50, changed, [{"part": int(parts[row])} for row in changed])
    present = np.ones(1500, bool)
    present[removed] = False
    if kind in ("short", "pq"):
        # These kinds read every item: no query needs the exact search, no candidate is a removed
        # item, and replaced items are found at their new vectors.
        index._store._nearest = None
        assert (index._store.approximate.nearest_rows(queries, 10, None) >= 0).all()
        if metric != "dot":
            found = index.search(x[changed], 1, {"part": [0, 1, 2]})
            hits = sum(match[0].id == row for match, row in zip(found, changed))
            assert hits >= 45, f"{hits} of 50 replaced items"
    for where in (None, {"part": 1}, {"part": [0, 2]}):
        fits = present & (True if where is None else np.isin(parts, where["part"]))
        hits = 0
        for query, matches in zip(queries, index.search(queries, 10, where)):
            assert len(matches) == len({match.id for match in matches}) == 10
            distances = exact(x.astype("float64"), query.astype("float64"), metric)
            for match in matches:
                assert fits[match.id]
                assert match.distance == pytest.approx(distances[match.id], rel=1e-4, abs=1e-5)
            assert [m.distance for m in matches] == sorted(m.distance for m in matches)
            nearest = np.flatnonzero(fits)[np.argsort(distances[fits])[:10]]
            hits += len({match.id for match in matches} & set(nearest.tolist()))
        assert hits > 0.8 * 500, f"{hits} of 500 true neighbours"
    index._store.__dict__.pop("_nearest", None)
    assert [len(matches) for matches in index.search(queries[:2], k=5000)] == [1100, 1100]


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize(("train_at", "rows"), [(10_000, range(1000)), (500, range(100, 126))])
def test_few_items_are_searched_exactly(rng, kind, train_at, rows):
    """The search is exact below `train_at` items, and where a filter leaves few of them."""
    x, queries = clustered(rng, 1000), clustered(rng, 20)
    index = new_index(kind, train_at)
    index.add(x, [0] * 1000, attributes=[{"n": n} for n in range(1000)])
    assert index._store.approximate.ready is (train_at == 500)
    where = {"n": (100, 125)} if len(rows) < 1000 else None
    for query, matches in zip(queries, index.search(queries, 5, where)):
        expected = rows[0] + np.argsort(exact(x[rows], query))[:5]
        assert [m.id for m in matches] == expected.tolist()


@pytest.mark.parametrize("kind", ["hnsw", "ivf-pq"])
def test_structures_after_additions_and_removals(rng, kind):
    index = new_index(kind, 300)
    x = clustered(rng, 3000)
    index.add(x[:400], [0] * 400)
    structure = index._store.approximate
    assert structure.trained_on == 400
    index.add(x[400:], [0] * 2600)
    # A graph grows; centroids are trained again when there are four times as many items.
    assert structure.trained_on == (400 if kind == "hnsw" else 3000)
    index.remove(range(1400))
    assert structure.removed == 1400
    index.remove(range(1400, 2000))
    assert (structure.removed, structure.trained_on, len(structure.row_of_slot)) == (0, 1000, 1000)
    assert {m.id for m in index.search(x[:5], 900)[0]} <= set(range(2000, 3000))
    index.remove(range(2000, 2800))
    assert not structure.ready
    assert len(index.search(x[:1], 900)[0]) == 200


def test_a_structure_with_other_centroids_is_built_again(rng):
    """FAISS accepts centroids of another width, and then reads wrong lists or wrong memory."""
    import faiss

    vectors = rng.normal(size=(120, 8)).astype("float32")
    index = Index(8, kind="ivf", settings={"train_at": 50, "nlist": 6})
    index.add(vectors, np.arange(120))
    search = index._store.approximate
    names, arrays = search.to_arrays()
    for width, number, metric in ((2, 6, 1), (8, 6, 0), (8, 5, 1)):
        structure = faiss.deserialize_index(arrays["coarse-structure"])
        centroids = faiss.IndexFlat(width, metric)
        centroids.add(rng.normal(size=(number, width)).astype("float32"))
        structure.quantizer, structure.own_fields = centroids, False
        structure.metric_type = metric
        forged = {**arrays, "coarse-structure": faiss.serialize_index(structure)}
        search.from_arrays(names, forged, vectors)
        found = faiss.downcast_index(search.structure.quantizer)
        assert (found.d, found.ntotal) == (8, 6) and search.structure.metric_type == 1


def test_a_structure_that_cannot_be_allocated_is_not_read(monkeypatch):
    import faiss

    def allocate(data):
        raise MemoryError

    monkeypatch.setattr(faiss, "deserialize_index", allocate)
    assert read_structure(np.zeros(8, "uint8")) is None


def test_every_kind_is_tested():
    assert {*SMALL, "flat"} == set(SETTINGS)


def test_more_settings_more_neighbours(rng):
    """Each setting that trades time for recall does so."""
    x, queries = clustered(rng, 2000), clustered(rng, 60)
    best = [set(np.argsort(exact(x, query))[:10].tolist()) for query in queries]

    def hits(kind, **settings):
        index = new_index(kind, 100, **settings)
        index.add(x, [0] * len(x))
        found = index.search(queries, 10)
        return sum(len({m.id for m in line} & ids) for line, ids in zip(found, best))

    assert hits("short", dims=1) < hits("short", dims=8)
    assert hits("short", dims=1, rerank=1) < hits("short", dims=1, rerank=30)
    assert hits("ivf", nlist=50, nprobe=1) < hits("ivf", nlist=50, nprobe=40)
    assert hits("pq", nbits=4, rerank=1) < hits("pq", nbits=6, rerank=1)
    assert hits("pq", m=1, rerank=1) < hits("pq", m=8, rerank=1)
    assert hits("hnsw", M=2, ef_construction=2, ef_search=1, rerank=1) < hits("hnsw", M=16)


@pytest.mark.usefixtures("frequent_switches")
def test_concurrent_first_requests_for_centroids(rng):
    """With frequent thread switches each thread gets the same result, and no item counts twice."""
    vectors, labels = rng.normal(size=(20_000, DIM)), np.arange(20_000) % 50
    for _ in range(3):
        index = Index(DIM, "euclidean")
        index.add(vectors, labels=labels)

        def identify(number, index=index):
            return index.identify(vectors[:1], rule="centroid", threshold=float("inf"))[0]

        with ThreadPoolExecutor(4) as pool:
            found = set(pool.map(identify, range(8)))
        assert len(found) == 1
        assert index._store.sums._counts.sum() == 20_000
