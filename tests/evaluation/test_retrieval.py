"""retrieval_metrics compared with a slow loop, published cases and other libraries."""

import re
import tracemalloc

import keras
import numpy as np
import pytest
from test_neighbors import DATA, distances_from

from keras_metric.evaluation import retrieval_metrics
from keras_metric.evaluation._rank_counts import RankLimits
from keras_metric.evaluation._relevant_ranks import Ranking

CUTS = (1, 2, 5, 40)


def hits_by_hand(
    x, y, gallery=None, gallery_y=None, metric="euclidean", groups=None, gallery_groups=None
):
    """Yield each query and, for all items in order, whether they are relevant."""
    if gallery is None:
        items, item_labels, item_groups = x, y, groups
    else:
        items, item_labels, item_groups = gallery, gallery_y, gallery_groups
    items, item_labels = np.asarray(items, "float64"), np.asarray(item_labels)
    for i, query in enumerate(np.asarray(x, "float64")):
        distances = distances_from(query, items, metric).astype("float32")
        order = np.argsort(distances, kind="stable")
        if gallery is None:
            order = order[order != i]
        if groups is not None:
            excluded = (item_labels == y[i]) & (np.asarray(item_groups) == groups[i])
            order = order[~excluded[order]]
        hits = item_labels[order] == y[i]
        if hits.any():
            yield i, hits


def by_hand(x, y, *gallery, cuts=CUTS, per_query=False, **settings):
    """The definitions, query by query."""
    rows, queries = [], []
    for i, hits in hits_by_hand(x, y, *gallery, **settings):
        relevant = hits.sum()
        row = {f"recall_at_{cut}": hits[:cut].any() for cut in cuts}
        row |= {f"precision_at_{cut}": hits[:cut].sum() / cut for cut in cuts}
        row |= {f"cmc_at_{cut}": hits[:cut].any() for cut in cuts}
        for cut in cuts:
            gains = [1 / np.log2(rank + 2) for rank in range(len(hits[:cut])) if hits[rank]]
            ideal = [1 / np.log2(rank + 2) for rank in range(min(cut, relevant))]
            row[f"ndcg_at_{cut}"] = sum(gains) / sum(ideal)
        row["r_precision"] = hits[:relevant].mean()
        precisions = [hits[: rank + 1].mean() for rank in np.flatnonzero(hits)]
        row["map"] = np.mean(precisions)
        within = [p for p, rank in zip(precisions, np.flatnonzero(hits)) if rank < relevant]
        row["map_at_r"] = sum(within) / relevant
        row["mrr"] = 1 / (1 + np.argmax(hits))
        rows.append(row)
        queries.append(i)
    if per_query:
        return rows, queries
    result = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return result | {"num_queries": len(rows), "excluded_queries": len(x) - len(rows)}


def unequal_labels(rng, size):
    """A few large classes, many small ones, some singletons."""
    return rng.zipf(1.5, size) % 60


def check_ranks(ranking, expected, first=None):
    """Compare a ranking with `hits_by_hand`."""
    found = {
        int(query): (row[np.isfinite(row)], count)
        for queries, ranks, relevant in ranking
        for query, row, count in zip(queries, ranks, relevant, strict=True)
    }
    expected = {i: 1 + np.flatnonzero(hits) for i, hits in expected}
    assert found.keys() == expected.keys()
    for i, (ranks, relevant) in found.items():
        assert relevant == len(expected[i])
        np.testing.assert_array_equal(ranks[:first], expected[i][:first])


# Each method of the ranks, for any data.
LIMITS = {
    "default": RankLimits(),
    "count all": RankLimits(most_counted=10**6, most_listed=-1),
    "count few": RankLimits(most_counted=3, sorted_numbers=500),
    "sort all": RankLimits(most_counted=0, sorted_numbers=500),
    "list": RankLimits(most_listed=2, most_undecided=100),
    "tiles in float64": RankLimits(most_undecided=-1),
    "several tiles": RankLimits(tile_columns=2040),
}


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("kind", DATA)
def test_every_method_gives_the_ranks(kind, limits, rng):
    """With groups too, some of which leave a query nothing, and some cross classes."""
    x, y, g = DATA[kind](rng, 160), unequal_labels(rng, 160), rng.integers(0, 3, 160)
    limited = {"metric": "euclidean", "limits": LIMITS[limits]}
    for groups in (None, g):
        check_ranks(Ranking((x, y, groups), None, **limited), hits_by_hand(x, y, groups=groups))
        queries, gallery = (
            (x[part], y[part], groups if groups is None else groups[part])
            for part in (slice(70), slice(60, None))
        )
        expected = [*hits_by_hand(*queries[:2], *gallery[:2], "euclidean", queries[2], gallery[2])]
        for first in (None, 1, 3):
            check_ranks(Ranking(queries, gallery, first=first, **limited), expected, first)


METRICS = ["cosine", "dot", "pearson", "snr", "squared_euclidean"]


@pytest.mark.parametrize(
    ("metric", "kind"),
    [("euclidean", kind) for kind in DATA]
    + [(metric, kind) for metric in METRICS for kind in ("random", "copies", "grid")],
)
def test_equals_the_definitions(metric, kind, rng):
    x, y = DATA[kind](rng, 160), unequal_labels(rng, 160)
    for parts in (x, y), (x[:70], y[:70], x[60:], y[60:]):
        ours = retrieval_metrics(*parts, k=CUTS, metric=metric)
        assert ours == pytest.approx(by_hand(*parts, metric=metric), abs=1e-12)


@pytest.mark.parametrize("limits", ["default", "sort all"])
def test_copies_of_another_width(limits, rng):
    """A gallery of float64, queries of the same vectors as float32: all are near copies."""
    gallery = rng.standard_normal((5, 3))[rng.integers(0, 5, 80)]
    queries = gallery[:60].astype("float32"), rng.integers(0, 6, 60)
    gallery = gallery, rng.integers(0, 6, 80)
    ranking = Ranking((*queries, None), (*gallery, None), "euclidean", limits=LIMITS[limits])
    check_ranks(ranking, hits_by_hand(*queries, *gallery))


@pytest.mark.parametrize("size", [1e22, 1e30])
@pytest.mark.parametrize("metric", ["euclidean", "squared_euclidean"])
def test_one_huge_vector_does_not_change_the_others(metric, size, rng):
    """It has a class of its own, so it is not a positive and is the last in every ranking."""
    x, y = rng.standard_normal((60, 5)).astype("float32"), rng.integers(0, 9, 60)
    expected = by_hand(x, y)
    expected["excluded_queries"] += 1
    x, y = np.concatenate([x, np.full((1, 5), size, "float32")]), np.append(y, 99)
    assert retrieval_metrics(x, y, k=CUTS, metric=metric) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("with_groups", [False, True])
@pytest.mark.parametrize("kind", ["random", "one point"])
def test_some_measures_are_those_of_all(kind, with_groups, rng):
    """Classes of 1 to about 60 items, with few or many relevant items, and few or many ranks."""
    x, y = DATA[kind](rng, 160), unequal_labels(rng, 160)
    parts = x[:70], y[:70], x[60:], y[60:]
    for inputs in (x, y), parts:
        groups = {}
        if with_groups:
            groups["groups"] = rng.choice(["left", "right", "back"], len(inputs[0]))
            other = rng.choice(["left", "right", "back"], 100)
            groups["gallery_groups"] = other if inputs is parts else None
        for cuts in (1, 3), (40, 2):
            every = retrieval_metrics(*inputs, k=cuts, **groups)
            assert every == pytest.approx(by_hand(*inputs, cuts=cuts, **groups), abs=1e-12)
            for names in (
                "recall", ["mrr", "cmc", "recall"], ("precision", "ndcg", "mrr"),
                {"map", "precision"}, ["map_at_r", "r_precision"], "ndcg", "map",
            ):  # fmt: skip
                found = retrieval_metrics(*inputs, k=cuts, measures=names, **groups)
                chosen = {names} if isinstance(names, str) else set(names)
                chosen |= {"num_queries", "excluded_queries"}
                keys = [key for key in every if re.sub(r"_at_\d+$", "", key) in chosen]
                assert list(found) == keys
                assert found == pytest.approx({key: every[key] for key in keys}, abs=1e-12)


@pytest.mark.parametrize("measures", [None, ["ndcg", "precision"]])
def test_a_cut_off_far_beyond_the_gallery_takes_no_memory(measures, rng):
    x, y = rng.standard_normal((90, 3)), rng.integers(0, 2, 90)
    expected = retrieval_metrics(x, y, k=89, measures=measures)["ndcg_at_89"]
    tracemalloc.start()
    found = retrieval_metrics(x, y, k=10**8, measures=measures)[f"ndcg_at_{10**8}"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == pytest.approx(expected) and peak < 10**8


def test_a_large_class_behind_a_single_item(rng):
    """The large class has the second of 41 columns and all after it."""
    x, y = rng.standard_normal((53, 3)), np.repeat([0, 1, 0, 1], [1, 40, 2, 10])
    inputs = x[41:], y[41:], x[:41], y[:41]
    found = retrieval_metrics(*inputs, k=3, measures=("recall", "mrr"))
    expected = by_hand(*inputs, cuts=(3,))
    assert found == pytest.approx({key: expected[key] for key in found}, abs=1e-12)
    assert found["num_queries"] == 12


def test_groups_that_leave_nothing_or_everything(rng):
    x, y = rng.standard_normal((40, 3)), rng.integers(0, 4, 40)
    assert retrieval_metrics(x, y, groups=np.arange(40)) == retrieval_metrics(x, y)
    assert retrieval_metrics(x, y, groups=np.zeros(40, int))["num_queries"] == 0


def test_average_over_classes(rng):
    x, y = rng.standard_normal((200, 4)), unequal_labels(rng, 200)
    rows, queries = by_hand(x, y, cuts=(3,), per_query=True)
    by_class = {}
    for row, query in zip(rows, queries):
        by_class.setdefault(y[query], []).append(row)
    means = {
        c: {key: np.mean([row[key] for row in rows]) for key in rows[0]}
        for c, rows in by_class.items()
    }
    ours = retrieval_metrics(x, y, k=3, average="class", per_class=True)
    for key in rows[0]:
        assert ours[key] == pytest.approx(np.mean([mean[key] for mean in means.values()]))
        for c in means:
            assert ours[f"{c}/{key}"] == pytest.approx(means[c][key])
    singletons = set(y.tolist()) - set(means)
    assert singletons and not any(f"{c}/mrr" in ours for c in singletons)


@pytest.mark.parametrize("kind", ["random", "copies", "grid"])
def test_precomputed_distances(kind, rng):
    x, y, g = DATA[kind](rng, 160), unequal_labels(rng, 160), rng.integers(0, 3, 160)
    d = np.stack([distances_from(query, x) for query in x])
    ours = retrieval_metrics(d, y, k=CUTS, groups=g, metric="precomputed")
    assert ours == pytest.approx(by_hand(x, y, groups=g), abs=1e-12)
    ranking = Ranking((d, y, g), None, "precomputed", limits=RankLimits(sorted_numbers=500))
    check_ranks(ranking, hits_by_hand(x, y, groups=g))
    for groups in ({}, dict(groups=g[:70], gallery_groups=g[60:])):
        settings = dict(gallery_labels=y[60:], k=CUTS, metric="precomputed", **groups)
        expected = by_hand(x[:70], y[:70], x[60:], y[60:], **groups)
        ours = retrieval_metrics(d[:70, 60:], y[:70], **settings)
        assert ours == pytest.approx(expected, abs=1e-12)


class TestIntervals:
    def test_interval_of_a_proportion(self, rng):
        """For n independent queries with a fraction p of hits: p +- 1.96 sqrt(p (1 - p) / n)."""
        hit = rng.random(2_000) < 0.3
        labels = np.where(hit, 1, 2)
        settings = dict(k=1, confidence=0.95)
        result = retrieval_metrics(np.zeros((2000, 1)), labels, [[0.0], [1.0]], [1, 2], **settings)
        recall = result["recall_at_1"]
        assert recall == hit.mean()
        half = 1.96 * np.sqrt(recall * (1 - recall) / 2_000)
        assert result["recall_at_1_low"] == pytest.approx(recall - half, abs=0.003)
        assert result["recall_at_1_high"] == pytest.approx(recall + half, abs=0.003)

    def test_classes_are_resampled_with_average_class(self, rng):
        """Two classes, one always found, one never: the mean of two samples is 0, 1/2 or 1."""
        labels = np.array([1] * 500 + [2] * 500)
        settings = dict(k=1, confidence=0.9, average="class")
        result = retrieval_metrics(np.zeros((1000, 1)), labels, [[0.0], [1.0]], [1, 2], **settings)
        ends = result["recall_at_1_low"], result["recall_at_1"], result["recall_at_1_high"]
        assert ends == (0.0, 0.5, 1.0)

    def test_seeds_repeat_intervals(self, rng):
        x, y = rng.standard_normal((60, 3)), rng.integers(0, 5, 60)
        first, again, other = (
            retrieval_metrics(x, y, confidence=0.8, seed=seed) for seed in (1, 1, 2)
        )
        assert first == again != other


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (None, False), (False, False)])
def test_bar_on_request(progress, shown, rng, capsys):
    x, y = rng.standard_normal((600, 3)), rng.integers(0, 2, 600)
    retrieval_metrics(x, y, progress=progress)
    captured = capsys.readouterr()
    assert captured.out == "" and ("ranks" in captured.err) is shown


def test_several_tiles(rng):
    """Products, mirrored counts and buffers that end inside a tile; more rows than in one tile."""
    x, y = rng.standard_normal((2300, 4)).astype("float32"), rng.integers(0, 500, 2300)
    y[:40] = 1000
    assert retrieval_metrics(x, y, k=CUTS) == pytest.approx(by_hand(x, y), abs=1e-12)
    ranking = Ranking((x, y, None), None, "euclidean", limits=LIMITS["several tiles"])
    check_ranks(ranking, hits_by_hand(x, y))


def test_nearly_equal_distances_are_ordered():
    """Two items 1e-6 apart in distance: a float32 product cannot order them, float64 can."""
    x = np.array([[0.0, 0.0], [1.0, 0.0], [1.000001, 0.0], [50.0, 0.0]])
    for labels, recall in (([0, 0, 1, 2], 1.0), ([0, 1, 0, 2], 0.0)):
        result = retrieval_metrics(x[:1], labels[:1], x[1:], labels[1:], k=1)
        assert result["recall_at_1"] == recall


def test_self_is_removed_by_index_not_by_column():
    """Case 17 of the reference: every copy of a query has another label."""
    result = retrieval_metrics(np.array([[10.0], [10], [20], [20]]), [1, 0, 1, 0], k=1)
    assert result["precision_at_1"] == 0.0
    assert result["num_queries"] == 4


def test_thousands_of_copies_of_one_point(rng):
    """Case 17 as well: two classes, ordered by index, so about 0.5."""
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
    "map": [
        *((1 / 2 + 2 / 3) / 3, (1 + 2 / 3 + 3 / 4) / 3, 1 / 25),
        *((1 + 2 / 3 + 3 / 5) / 4, 1 / 15, 0),
    ],
    "mrr": [1 / 2, 1, 1 / 5, 1, 1 / 3, 0],
    "precision_at_1": [0, 1, 0, 1, 0, 0],
}


@pytest.mark.parametrize("average", ["query", "class"])
def test_case_16_as_one_gallery(average):
    """Items that are not among the five have ranks above 100,000, and add almost nothing."""
    labels = np.repeat([*COUNTS, 5], [*COUNTS.values(), 1])
    others = 100_000
    distances = np.full((6, len(labels) + others), 1e6)
    distances[:, len(labels) :] = 1e3
    for query, nearest in enumerate(NEAREST):
        free = list(range(len(labels)))
        for rank, label in enumerate(nearest):
            item = next(i for i in free if labels[i] == label)
            free.remove(item)
            distances[query, item] = rank
    labels = np.append(labels, np.full(others, 9))
    settings = dict(gallery_labels=labels, metric="precomputed", k=1, average=average)
    ours = retrieval_metrics(distances, QUERIES, **settings)
    for key, expected in CASE_16.items():
        if average == "class":
            expected = [expected[5], (expected[0] + expected[1]) / 2, *expected[2:5]]
        assert ours[key] == pytest.approx(np.mean(expected), abs=1e-4), key


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([0, 1, 3], 11 / 12),
        ([0, 3, 4], 21 / 30),
        ([1, 2, 4], 53 / 90),
        ([2, 3, 4], 43 / 90),
        ([0], 1),
        ([3], 1 / 4),
    ],
)
def test_average_precision_of_open_metric_learning(positions, expected):
    """Ranks of the relevant items of a query among five, and its average precision."""
    distances, labels = np.arange(5.0)[None], np.isin(np.arange(5), positions)
    ours = retrieval_metrics(distances, [True], gallery_labels=labels, metric="precomputed")
    assert ours["map"] == pytest.approx(expected)


class TestLabels:
    def test_large_ids_stay_distinct(self):
        """In float32 the two are equal."""
        labels = np.array([16777216, 16777217, 16777216, 16777217])
        x = np.array([[0.0], [0.1], [5.0], [5.1]])
        assert retrieval_metrics(x, labels, k=1)["recall_at_1"] == 0.0
        assert retrieval_metrics(x, labels + 2**60, k=1)["recall_at_1"] == 0.0

    @pytest.mark.parametrize("convert", [str, float, bool, np.uint8, lambda v: (v,)])
    def test_every_kind_gives_the_same_result(self, convert, rng):
        x, y = rng.standard_normal((30, 3)), rng.integers(0, 2, 30)
        labels = np.array([convert(value) for value in y])
        assert retrieval_metrics(x, labels) == retrieval_metrics(x, y)

    def test_unsigned_and_signed_labels(self):
        big = 2**60
        result = retrieval_metrics(
            [[0.0]], np.array([big], "uint64"), [[0.1], [1.0]], np.array([big + 1, big]), k=1
        )
        assert result["recall_at_1"] == 0.0
        assert result["mrr"] == 0.5

    def test_strings_of_a_table_and_of_a_list(self):
        names = np.array(["ann", "bob"], object)
        result = retrieval_metrics([[0.0], [1.0]], names, [[0.1], [0.9]], ["ann", "bob"], k=1)
        assert result["recall_at_1"] == 1.0 and result["num_queries"] == 2

    def test_byte_order_does_not_matter(self):
        x = (1e8 + np.array([0.0, 3.0, 1.0, 4.0]))[:, None]
        for kind in ("<f8", ">f8"):
            assert retrieval_metrics(x.astype(kind), [0, 1, 0, 1], k=1)["recall_at_1"] == 1.0

    def test_no_queries_with_string_labels(self):
        """An empty list becomes an array of floats."""
        settings = dict(gallery_embeddings=[[0.0]], gallery_labels=["ann"], k=1)
        result = retrieval_metrics(np.empty((0, 1)), [], **settings)
        assert (result["num_queries"], result["excluded_queries"]) == (0.0, 0.0)

    def test_dates_are_labels(self):
        days = np.array(["2020-01-01", "2020-01-02"] * 2, "datetime64[ns]")
        result = retrieval_metrics(np.zeros((4, 1)), days, k=1, per_class=True)
        assert "2020-01-02T00:00:00.000000000/recall_at_1" in result

    def test_excluded_queries_are_counted(self):
        result = retrieval_metrics([[0.0], [1.0], [2.0]], ["a", "a", "b"], k=1)
        assert (result["num_queries"], result["excluded_queries"]) == (2.0, 1.0)
        result = retrieval_metrics([[0.0]], ["c"], [[0.0], [1.0]], ["a", "b"], k=3)
        assert (result["num_queries"], result["excluded_queries"]) == (0.0, 1.0)
        assert np.isnan(result["recall_at_3"])


class TestInputs:
    @pytest.mark.touches_keras
    def test_tensors_lists_and_half_precision(self, rng):
        x, y = rng.integers(-8, 9, (40, 5)).astype("float32"), rng.integers(0, 5, 40)
        expected = retrieval_metrics(x, y)
        assert retrieval_metrics(keras.ops.convert_to_tensor(x), keras.ops.array(y)) == expected
        assert retrieval_metrics(x.tolist(), y.tolist()) == expected
        assert retrieval_metrics(x.astype("float16"), y[:, None]) == expected
        assert retrieval_metrics(keras.ops.cast(x, "bfloat16"), y) == expected

    def test_scale_and_row_length_do_not_matter(self, rng):
        x, y = rng.standard_normal((60, 5)), rng.integers(0, 9, 60)
        expected = retrieval_metrics(x, y)
        for scale in (1e-30, 1e30):
            assert retrieval_metrics((scale * x).astype("float32"), y) == expected
        lengths = np.where(rng.random((60, 1)) < 0.5, 2.0**700, 2.0**-700)
        for metric in ("cosine", "pearson"):
            expected = retrieval_metrics(x, y, metric=metric)
            assert retrieval_metrics(lengths * x, y, metric=metric) == expected

    @pytest.mark.parametrize("scale", [1e-310, 1e308])
    @pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean", "pearson", "snr"])
    def test_the_ends_of_float64(self, metric, scale):
        x = scale * np.array([[0.1, 0.2, 0.4], [0.1, 0.2, 0.5], [0.9, -0.1, 0.0], [0.8, -0.2, 0.1]])
        assert retrieval_metrics(x, [0, 0, 1, 1], k=1, metric=metric)["recall_at_1"] == 1.0

    @pytest.mark.parametrize("scale", [1e-200, 1e-50, 1e40, 1e200])
    def test_scale_of_precomputed_distances_does_not_matter(self, scale, rng):
        x, y = rng.standard_normal((40, 3)), rng.integers(0, 9, 40)
        d = np.stack([distances_from(query, x) for query in x])
        settings = dict(k=CUTS, metric="precomputed")
        assert retrieval_metrics(scale * d, y, **settings) == retrieval_metrics(d, y, **settings)

    def test_subclasses_of_arrays(self, rng):
        """A matrix has another product, and a masked array has missing values."""
        x, y = rng.standard_normal((30, 4)), rng.integers(0, 5, 30)
        expected = retrieval_metrics(x, y, metric="pearson")
        with pytest.warns(PendingDeprecationWarning):
            matrix = np.matrix(x)
        assert retrieval_metrics(matrix, y, metric="pearson") == expected
        masked = np.ma.array(x), np.ma.array(y)
        assert retrieval_metrics(*masked, metric="pearson") == expected
        for part, name in zip(masked, ("embeddings", "labels"), strict=True):
            part[3] = np.ma.masked
            with pytest.raises(ValueError, match=f"`{name}` must have no masked entries"):
                retrieval_metrics(**{"embeddings": x, "labels": y, name: part})
            part[3] = 0

    def test_the_result_is_a_flat_dict_of_floats(self, rng):
        result = retrieval_metrics(rng.standard_normal((9, 2)), np.arange(9) % 3, k=3)
        assert all(type(value) is float for value in result.values())
        assert list(result) == [
            *("recall_at_3", "precision_at_3", "ndcg_at_3", "cmc_at_3"),
            *("r_precision", "map", "map_at_r", "mrr"),
            *("num_queries", "excluded_queries"),
        ]

    def test_inputs_are_not_changed(self, rng):
        x, y = rng.standard_normal((50, 3)), rng.integers(0, 5, 50)
        before = x.copy(), y.copy()
        retrieval_metrics(x, y, metric="pearson")
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(y, before[1])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(embeddings=[[np.nan]]), "row 0"),
            (dict(embeddings=[[0.0], [np.inf]], labels=[0, 0]), "row 1"),
            (dict(embeddings=[0.0]), "reshape"),
            (dict(embeddings=[["a"]]), "must be numbers"),
            (dict(embeddings=[[0.0], [1.0]]), "one label for each"),
            (dict(embeddings=[[0.0], [1.0]], labels=np.eye(2)), "argmax"),
            (dict(labels=[np.nan]), "NaN"),
            (dict(labels=np.array([np.nan], object)), "NaN.* row 0"),
            (dict(labels=np.array(["NaT"], "datetime64[D]")), "row 0"),
            (dict(labels=[complex(0, np.nan)]), "NaN.* row 0"),
            (dict(gallery_labels=[0]), "gallery_embeddings=None"),
            (dict(gallery_embeddings=[[0.0]]), "gallery_labels="),
            (dict(gallery_embeddings=[[0.0]], gallery_labels=["a"]), "one kind"),
            (dict(gallery_embeddings=[[0.0, 1]], gallery_labels=[0]), "same width"),
            (dict(k=0), "at least 1"),
            (dict(k=2**63), "at most 9223372036854775807"),
            (dict(k=[], measures=["recall"]), "hold a cut-off"),
            (dict(average="micro"), "one of"),
            (dict(embeddings=[[0.0, 1.0]], metric="precomputed"), "items, items"),
            (dict(gallery_embeddings=[[0.0]], metric="precomputed"), "only the labels of"),
            (dict(confidence=95), "at most 1"),
            (dict(groups=[1, 2]), "one label for each"),
            (dict(gallery_groups=[1]), "needs a gallery"),
            (
                dict(gallery_embeddings=[[0.0]], gallery_labels=[0], groups=[0]),
                "gallery_groups=None",
            ),
            (dict(metric="l2"), "one of"),
            (dict(measures="recal"), "'recal'"),
            (dict(measures=["recall_at_1"]), "without cut-offs"),
            (dict(measures=[["map"]]), "some of"),
            (dict(measures=()), "some of"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            retrieval_metrics(**{"embeddings": [[0.0]], "labels": [0], **arguments})


def test_agrees_with_scikit_learn(rng):
    """NDCG and average precision of one query without ties."""
    from sklearn.metrics import average_precision_score, ndcg_score

    x, y = rng.standard_normal((80, 3)), rng.integers(0, 3, 80)
    query = rng.standard_normal((1, 3))
    closeness, relevant = -np.linalg.norm(x - query, axis=1), y == 1
    ours = retrieval_metrics(query, [1], x, y, k=(1, 7, 200))
    assert ours["map"] == pytest.approx(average_precision_score(relevant, closeness))
    for cut in (1, 7, 200):
        expected = ndcg_score(relevant[None].astype(int), closeness[None], k=cut)
        assert ours[f"ndcg_at_{cut}"] == pytest.approx(expected)
