"""retrieval_metrics beside a slow loop, published cases and pytorch-metric-learning."""

import keras
import numpy as np
import pytest

from keras_metric.evaluation import _counting, _ranks, retrieval_metrics

CUTS = (1, 2, 5, 40)


def distances_from(query, items, metric):
    """Float64 distances of one query; what rounding leaves of a zero is zero."""
    if metric in ("pearson", "snr"):
        query, items = query - query.mean(), items - items.mean(axis=1, keepdims=True)
    if metric == "dot":
        return -items @ query
    if metric in ("cosine", "pearson"):
        size, sizes = np.linalg.norm(query), np.linalg.norm(items, axis=1)
        if size < 1e-12:
            return np.ones(len(items))
        items = items / np.where(sizes < 1e-12, 1, sizes)[:, None]
        squares = np.square(items - query / size).sum(axis=1) / 2
        distances = np.where(sizes < 1e-12, 1, squares)
    else:
        distances = np.square(items - query).sum(axis=1)
    return np.where(distances < 1e-28, 0, distances)


def by_hand(x, y, gallery=None, gallery_y=None, cuts=CUTS, metric="euclidean"):
    """The definitions, query by query."""
    alone = gallery is None
    items = np.asarray(x if alone else gallery, "float64")
    item_labels = np.asarray(y if alone else gallery_y)
    rows = []
    for i, query in enumerate(np.asarray(x, "float64")):
        distances = distances_from(query, items, metric).astype("float32")
        order = np.argsort(distances, kind="stable")
        if alone:
            order = order[order != i]
        hits = item_labels[order] == y[i]
        if not hits.any():
            continue
        relevant = hits.sum()
        row = {f"recall_at_{cut}": hits[:cut].any() for cut in cuts}
        row |= {f"precision_at_{cut}": hits[:cut].sum() / cut for cut in cuts}
        row["r_precision"] = hits[:relevant].mean()
        precisions = [hits[: rank + 1].mean() for rank in np.flatnonzero(hits)]
        row["map"] = np.mean(precisions)
        within = [p for p, rank in zip(precisions, np.flatnonzero(hits)) if rank < relevant]
        row["map_at_r"] = sum(within) / relevant
        row["mrr"] = 1 / (1 + np.argmax(hits))
        rows.append(row)
    result = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return result | {"num_queries": len(rows), "excluded_queries": len(x) - len(rows)}


def unequal_labels(rng, size):
    """A few large classes, many small ones, some singletons."""
    return rng.zipf(1.5, size) % 60


DATA = {
    "random": lambda rng, n: rng.standard_normal((n, 9)),
    "copies": lambda rng, n: rng.standard_normal((n, 7)).astype("float32")[
        rng.integers(0, n // 3, n)
    ],
    "grid": lambda rng, n: rng.integers(-1, 2, (n, 4)).astype("float64"),
    "one point": lambda rng, n: np.full((n, 5), 0.1, "float32"),
    "far from zero": lambda rng, n: 1e4 + rng.standard_normal((n, 6)),
    "an outlier": lambda rng, n: np.vstack(
        [rng.standard_normal((n - 1, 3)), np.full((1, 3), 1e12)]
    ),
    "bytes": lambda rng, n: rng.integers(0, 256, (n, 12)).astype("uint8"),
}


@pytest.fixture(params=["count", "count all", "sort all", "list", "measure tiles"])
def way(request, monkeypatch):
    """Each way to the ranks, whatever the data would choose."""
    if request.param == "count all":
        monkeypatch.setattr(_ranks, "MOST_COUNTED", 10**6)
        monkeypatch.setattr(_counting, "_FEW", -1)
    if request.param == "sort all":
        monkeypatch.setattr(_ranks, "MOST_COUNTED", 0)
        monkeypatch.setattr(_ranks, "_MOST_SORTED", 500)
    if request.param == "list":
        monkeypatch.setattr(_counting, "_FEW", 2)
        monkeypatch.setattr(_counting, "_MOST_DOUBTS", 100)
    if request.param == "measure tiles":
        monkeypatch.setattr(_counting, "_MOST_DOUBTS", -1)


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.usefixtures("way")
def test_every_way_equals_the_definitions(kind, rng):
    x, y = DATA[kind](rng, 160), unequal_labels(rng, 160)
    assert retrieval_metrics(x, y, k=CUTS) == pytest.approx(by_hand(x, y), abs=1e-12)
    parts = x[:70], y[:70], x[60:], y[60:]
    assert retrieval_metrics(*parts, k=CUTS) == pytest.approx(by_hand(*parts), abs=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "dot", "pearson", "snr", "squared_euclidean"])
@pytest.mark.parametrize("kind", ["random", "copies", "grid"])
def test_metrics(metric, kind, rng):
    x, y = DATA[kind](rng, 150), unequal_labels(rng, 150)
    wanted = by_hand(x, y, metric=metric)
    assert retrieval_metrics(x, y, k=CUTS, metric=metric) == pytest.approx(wanted, abs=1e-12)


def test_several_tiles(rng, monkeypatch):
    """Products, mirrors and buffers that end inside a tile; more rows than one tile has."""
    x, y = rng.standard_normal((1300, 4)).astype("float32"), rng.integers(0, 300, 1300)
    y[:40] = 1000
    wanted = by_hand(x, y)
    assert retrieval_metrics(x, y, k=CUTS) == pytest.approx(wanted, abs=1e-12)
    monkeypatch.setattr(_counting, "_COLUMNS", 2040)
    monkeypatch.setattr(_counting, "_ROWS", 100)
    assert retrieval_metrics(x, y, k=CUTS) == pytest.approx(wanted, abs=1e-12)


def test_nearly_equal_distances_are_told_apart():
    """Two items 1e-6 apart in distance: a float32 product cannot order them, float64 can."""
    x = np.array([[0.0, 0.0], [1.0, 0.0], [1.000001, 0.0], [50.0, 0.0]])
    for labels, recall in (([0, 0, 1, 2], 1.0), ([0, 1, 0, 2], 0.0)):
        result = retrieval_metrics(x[:1], labels[:1], x[1:], labels[1:], k=1)
        assert result["recall_at_1"] == recall


def test_self_is_removed_by_index_and_not_by_column():
    """Case 17 of the reference: every copy of a query has another label."""
    result = retrieval_metrics(np.array([[10.0], [10], [20], [20]]), [1, 0, 1, 0], k=1)
    assert result["precision_at_1"] == 0.0
    assert result["num_queries"] == 4


def test_thousands_of_copies_of_one_point(rng):
    """Case 17 as well: two classes, no order but the index, so about one half."""
    result = retrieval_metrics(np.ones((4_000, 2), "float32"), rng.integers(0, 2, 4_000), k=1)
    assert result["precision_at_1"] == pytest.approx(0.5, abs=0.03)


# Case 16: labels of the five nearest of six queries, and how many items of each label there are.
QUERIES = [1, 1, 2, 3, 4, 0]
NEAREST = [[0, 1, 1, 2, 2], [1, 0, 1, 1, 3], [4, 4, 4, 4, 2], [3, 1, 3, 1, 3], [0, 0, 4, 2, 2]]
NEAREST.append([1, 2, 3, 4, 5])
COUNTS = {0: 2, 1: 3, 2: 5, 3: 4, 4: 5}
CASE_16 = {
    "r_precision": [2 / 3, 2 / 3, 1 / 5, 2 / 4, 1 / 5, 0],
    "map_at_r": [(1 / 2 + 2 / 3) / 3, (1 + 2 / 3) / 3, 1 / 25, (1 + 2 / 3) / 4, 1 / 15, 0],
    "mrr": [1 / 2, 1, 1 / 5, 1, 1 / 3, None],
    "precision_at_1": [0, 1, 0, 1, 0, 0],
}


@pytest.mark.parametrize("query", range(6))
def test_case_16(query):
    """The five nearest at distances 1 to 5, the rest of the class far beyond a crowd."""
    label, nearest = QUERIES[query], NEAREST[query]
    missing = COUNTS[label] - nearest.count(label)
    labels = [*nearest, *[9] * 1000, *[label] * missing]
    places = np.arange(1.0, 1.0 + len(labels))[:, None]
    result = retrieval_metrics([[0.0]], [label], places, labels, k=1)
    for key, wanted in CASE_16.items():
        if wanted[query] is not None:
            assert result[key] == pytest.approx(wanted[query]), key


@pytest.mark.parametrize("with_gallery", [False, True])
def test_agrees_with_pytorch_metric_learning(with_gallery, rng):
    module = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    torch = pytest.importorskip("torch")
    x, y = rng.standard_normal((300, 16)).astype("float32"), unequal_labels(rng, 300)
    x += 0.7 * rng.standard_normal((60, 16)).astype("float32")[y]
    x[40:60] = x[:20]
    cut = 100 if with_gallery else 0
    parts = (x[:cut], y[:cut], x[cut:], y[cut:]) if with_gallery else (x, y)
    theirs = module.AccuracyCalculator(
        exclude=("NMI", "AMI"), device=torch.device("cpu")
    ).get_accuracy(*(torch.as_tensor(part) for part in parts))
    ours = retrieval_metrics(*parts, k=1)
    names = {
        "precision_at_1": "precision_at_1",
        "r_precision": "r_precision",
        "map": "mean_average_precision",
        "map_at_r": "mean_average_precision_at_r",
        "mrr": "mean_reciprocal_rank",
    }
    for mine, other in names.items():
        assert ours[mine] == pytest.approx(theirs[other], abs=2e-6), mine


class TestLabels:
    def test_large_ids_stay_apart(self):
        """In float32 the two are one."""
        labels = np.array([16777216, 16777217, 16777216, 16777217])
        x = np.array([[0.0], [0.1], [5.0], [5.1]])
        assert retrieval_metrics(x, labels, k=1)["recall_at_1"] == 0.0
        assert retrieval_metrics(x, labels + 2**60, k=1)["recall_at_1"] == 0.0

    @pytest.mark.parametrize("convert", [str, float, bool, np.uint8, lambda v: (v,)])
    def test_every_kind_counts_alike(self, convert, rng):
        x, y = rng.standard_normal((30, 3)), rng.integers(0, 2, 30)
        labels = np.array([convert(value) for value in y])
        assert retrieval_metrics(x, labels) == retrieval_metrics(x, y)

    def test_unsigned_beside_signed(self):
        big = 2**60
        result = retrieval_metrics(
            [[0.0]], np.array([big], "uint64"), [[0.1], [1.0]], np.array([big + 1, big]), k=1
        )
        assert result["recall_at_1"] == 0.0
        assert result["mrr"] == 0.5

    def test_queries_that_cannot_be_answered_are_counted(self):
        result = retrieval_metrics([[0.0], [1.0], [2.0]], ["a", "a", "b"], k=1)
        assert (result["num_queries"], result["excluded_queries"]) == (2.0, 1.0)
        result = retrieval_metrics([[0.0]], ["c"], [[0.0], [1.0]], ["a", "b"], k=3)
        assert (result["num_queries"], result["excluded_queries"]) == (0.0, 1.0)
        assert np.isnan(result["recall_at_3"])


class TestInputs:
    @pytest.mark.touches_keras
    def test_tensors_lists_and_half_precision(self, rng):
        x, y = rng.integers(-8, 9, (40, 5)).astype("float32"), rng.integers(0, 5, 40)
        wanted = retrieval_metrics(x, y)
        assert retrieval_metrics(keras.ops.convert_to_tensor(x), keras.ops.array(y)) == wanted
        assert retrieval_metrics(x.tolist(), y.tolist()) == wanted
        assert retrieval_metrics(x.astype("float16"), y[:, None]) == wanted
        assert retrieval_metrics(keras.ops.cast(x, "bfloat16"), y) == wanted

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_scale_does_not_count(self, scale, rng):
        x, y = rng.standard_normal((60, 5)), rng.integers(0, 9, 60)
        assert retrieval_metrics((scale * x).astype("float32"), y) == retrieval_metrics(x, y)

    def test_the_result_is_a_flat_dict_of_floats(self, rng):
        result = retrieval_metrics(rng.standard_normal((9, 2)), np.arange(9) % 3, k=3)
        assert all(type(value) is float for value in result.values())
        assert list(result) == [
            *("recall_at_3", "precision_at_3", "r_precision", "map", "map_at_r", "mrr"),
            *("num_queries", "excluded_queries"),
        ]

    def test_inputs_are_left_alone(self, rng):
        x, y = rng.standard_normal((50, 3)), rng.integers(0, 5, 50)
        before = x.copy(), y.copy()
        retrieval_metrics(x, y, metric="pearson")
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(y, before[1])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(embeddings=[[np.nan], [0.0]], labels=[0, 0]), "row 0"),
            (dict(embeddings=[[0.0], [np.inf]], labels=[0, 0]), "row 1"),
            (dict(embeddings=[0.0, 1.0], labels=[0, 0]), "reshape"),
            (dict(embeddings=[["a"], ["b"]], labels=[0, 0]), "must be numbers"),
            (dict(embeddings=[[0.0], [1.0]], labels=[0]), "one label for each"),
            (dict(embeddings=[[0.0], [1.0]], labels=np.eye(2)), "argmax"),
            (dict(embeddings=[[0.0], [1.0]], labels=[0.0, np.nan]), "NaN"),
            (dict(embeddings=[[0.0]], labels=[0], gallery_labels=[0]), "gallery_embeddings=None"),
            (dict(embeddings=[[0.0]], labels=[0], gallery_embeddings=[[0.0]]), "gallery_labels="),
            (
                dict(
                    embeddings=[[0.0]], labels=[0], gallery_embeddings=[[0.0]], gallery_labels=["a"]
                ),
                "one kind",
            ),
            (
                dict(
                    embeddings=[[0.0]],
                    labels=[0],
                    gallery_embeddings=[[0.0, 1]],
                    gallery_labels=[0],
                ),
                "same width",
            ),
            (dict(embeddings=[[0.0]], labels=[0], k=0), "at least 1"),
            (dict(embeddings=[[0.0]], labels=[0], metric="l2"), "one of"),
        ],
    )
    def test_errors_name_the_way_out(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            retrieval_metrics(**arguments)
