"""The approximate kinds keep what they promise, beside FAISS's exact answer."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_metric.search import Index
from keras_metric.search.stores import coarse, faiss_store
from keras_metric.search.stores.coarse import SETTINGS

DIM = 16
SETTINGS_HERE = {
    "short": {"dims": 6},
    "hnsw": {"links": 12},
    "ivf": {"lists": 20, "probes": 5},
    "pq": {"codes": 4, "bits": 6},
    "ivf-pq": {"lists": 10, "probes": 4, "codes": 8, "bits": 5},
}


@pytest.fixture(autouse=True)
def _coarse_even_where_few(monkeypatch):
    """Thousands of rows would take minutes: the approximate path begins at once."""
    monkeypatch.setattr(faiss_store, "_FEW", 30)


def clustered(rng, count):
    """Points around 60 centres, as embeddings stand, their last dimensions weaker."""
    centres = np.random.default_rng(1).normal(size=(60, DIM))
    x = centres[rng.integers(60, size=count)] + 0.3 * rng.normal(size=(count, DIM))
    return (x * np.linspace(2, 0.2, DIM)).astype("float32")


def exact(x, query, metric):
    if metric == "dot":
        return -(x @ query)
    if metric == "cosine":
        return 1 - x @ query / np.linalg.norm(x, axis=1) / np.linalg.norm(query)
    return np.linalg.norm(x - query, axis=1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("kind", SETTINGS_HERE)
def test_what_a_kind_promises(rng, kind, metric):
    """Exact distances, k answers, filters without exception, and most of the true neighbours."""
    x, queries = clustered(rng, 1500), clustered(rng, 50)
    index = Index(DIM, metric, kind=kind, settings={**SETTINGS_HERE[kind], "train_at": 500})
    parts = rng.integers(3, size=len(x))
    for start, end in ((0, 300), (300, 900), (900, 1500)):
        rows = range(start, end)
        index.add(
            x[start:end], parts[start:end] % 2, rows, [{"part": int(parts[row])} for row in rows]
        )
        assert index._store.coarse.ready is (end > 300)
    gone = rng.permutation(1500)[:400].tolist()
    index.remove(gone)
    moved = [row for row in range(1500) if row not in set(gone)][:50]
    x[moved] = clustered(rng, 50)
    index.replace(x[moved], [0] * 50, moved, [{"part": int(parts[row])} for row in moved])
    alive = np.ones(1500, bool)
    alive[gone] = False
    if kind in ("short", "pq"):
        # These look at every item, so no query is ever left to the exact search, no candidate is
        # one that was removed, and what was replaced is found where it is now.
        index._store._nearest = None
        assert (index._store.coarse.nearest_rows(queries, 10, None) >= 0).all()
        if metric != "dot":
            there = index.search(x[moved], 1, {"part": [0, 1, 2]})
            hits = sum(match[0].id == row for match, row in zip(there, moved))
            assert hits >= 45, f"{hits} of 50 replaced items"
    for where in (None, {"part": 1}, {"part": [0, 2]}):
        fits = alive & (True if where is None else np.isin(parts, where["part"]))
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
    found = index.search(queries[:2], k=5000)
    assert [len(matches) for matches in found] == [1100, 1100]


@pytest.mark.parametrize("kind", SETTINGS_HERE)
def test_few_items_are_measured_exactly(rng, kind):
    x, queries = clustered(rng, 200), clustered(rng, 20)
    index = Index(DIM, "euclidean", kind=kind, settings=SETTINGS_HERE[kind])
    index.add(x, [0] * 200)
    for query, matches in zip(queries, index.search(queries, 5)):
        assert [m.id for m in matches] == np.argsort(exact(x, query, "euclidean"))[:5].tolist()


@pytest.mark.parametrize("kind", SETTINGS_HERE)
def test_a_narrow_filter_is_searched_exactly(rng, kind):
    x, queries = clustered(rng, 1000), clustered(rng, 20)
    index = Index(DIM, "euclidean", kind=kind, settings={**SETTINGS_HERE[kind], "train_at": 500})
    index.add(x, [0] * 1000, attributes=[{"n": n} for n in range(1000)])
    assert index._store.coarse.ready
    for query, matches in zip(queries, index.search(queries, 5, where={"n": (100, 125)})):
        wanted = 100 + np.argsort(exact(x[100:126], query, "euclidean"))[:5]
        assert [m.id for m in matches] == wanted.tolist()


@pytest.mark.parametrize("kind", ["hnsw", "ivf-pq"])
def test_structures_follow_what_comes_and_goes(rng, kind):
    index = Index(DIM, "euclidean", kind=kind, settings={**SETTINGS_HERE[kind], "train_at": 300})
    x = clustered(rng, 3000)
    index.add(x[:400], [0] * 400)
    coarse = index._store.coarse
    assert coarse.trained_on == 400
    index.add(x[400:], [0] * 2600)
    # A graph grows; centres are learned anew once the data are four times as many.
    assert coarse.trained_on == (400 if kind == "hnsw" else 3000)
    index.remove(range(1400))
    assert coarse.removed == 1400
    index.remove(range(1400, 2000))
    assert (coarse.removed, coarse.trained_on, len(coarse.row_of_slot)) == (0, 1000, 1000)
    assert {m.id for m in index.search(x[:5], 900)[0]} <= set(range(2000, 3000))
    index.remove(range(2000, 2800))
    assert not coarse.ready
    assert len(index.search(x[:1], 900)[0]) == 200


def test_a_structure_of_other_centres_is_built_anew(rng):
    """FAISS takes centres of another width, and then finds the wrong lists, or reads elsewhere."""
    import faiss

    vectors = rng.normal(size=(120, 8)).astype("float32")
    index = Index(8, kind="ivf", settings={"train_at": 50, "lists": 6})
    index.add(vectors, np.arange(120))
    store = index._store.coarse
    names, arrays = store.to_arrays()
    for width, number, metric in ((2, 6, 1), (8, 6, 0), (8, 5, 1)):
        structure = faiss.deserialize_index(arrays["coarse-structure"])
        centres = faiss.IndexFlat(width, metric)
        centres.add(rng.normal(size=(number, width)).astype("float32"))
        structure.quantizer, structure.own_fields = centres, False
        structure.metric_type = metric
        forged = {**arrays, "coarse-structure": faiss.serialize_index(structure)}
        store.from_arrays(names, forged, vectors)
        found = faiss.downcast_index(store.structure.quantizer)
        assert (found.d, found.ntotal) == (8, 6) and store.structure.metric_type == 1


def test_sizes_that_no_memory_has(monkeypatch):
    """FAISS allocates what damaged bytes declare."""
    import faiss

    def allocate(data):
        raise MemoryError

    monkeypatch.setattr(faiss, "deserialize_index", allocate)
    assert coarse._structure_of(np.zeros(8, "uint8")) is None


def test_every_kind_is_tested():
    assert {*SETTINGS_HERE, "flat"} == set(SETTINGS)


def test_more_settings_more_neighbours(rng):
    """Each setting that trades time for neighbours does so."""
    x, queries = clustered(rng, 2000), clustered(rng, 60)
    wanted = [set(np.argsort(exact(x, query, "euclidean"))[:10].tolist()) for query in queries]

    def hits(kind, **settings):
        index = Index(
            DIM, "euclidean", kind=kind,
            settings={**SETTINGS_HERE[kind], "train_at": 100, **settings},
        )  # fmt: skip
        index.add(x, [0] * len(x))
        found = index.search(queries, 10)
        return sum(len({m.id for m in line} & best) for line, best in zip(found, wanted))

    assert hits("short", dims=1) < hits("short", dims=8)
    assert hits("short", dims=1, rerank=1) < hits("short", dims=1, rerank=30)
    assert hits("ivf", lists=50, probes=1) < hits("ivf", lists=50, probes=40)
    assert hits("pq", bits=4, rerank=1) < hits("pq", bits=6, rerank=1)
    assert hits("pq", codes=1, rerank=1) < hits("pq", codes=8, rerank=1)
    assert hits("hnsw", links=2, build_effort=2, search_effort=1, rerank=1) < hits("hnsw", links=16)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ivf", {"lists": 500, "train_at": 400}),
        ("pq", {"train_at": 100}),
        ("ivf", {"lists": 20000}),
    ],
)
def test_more_centres_than_items_to_train_on(kind, settings):
    with pytest.raises(ValueError, match="`train_at` must be at least that"):
        Index(8, kind=kind, settings=settings)


def test_the_first_centroids_are_asked_for_by_many_at_once(rng):
    """Threads that switch all the time: each has the right answer, and nothing counts twice."""
    vectors, labels = rng.normal(size=(20_000, DIM)), np.arange(20_000) % 50
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(3):
            index = Index(DIM, "euclidean")
            index.add(vectors, labels=labels)

            def ask(number, index=index):
                return index.identify(vectors[:1], rule="centroid", threshold=float("inf"))[0]

            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(ask, range(8)))
            assert len({(one.label, one.distance) for one in found}) == 1
            assert index._store.sums._counts.sum() == 20_000
    finally:
        sys.setswitchinterval(interval)
