"""Retrieval metrics: recall@k, precision, NDCG, R-precision, MAP, MRR."""

import numpy as np

from keras_metric._validation import check_choice, check_count, check_flag, check_number
from keras_metric.evaluation._input_checks import (
    as_codes,
    as_cuts,
    as_embeddings,
    as_gallery,
    as_labels,
)
from keras_metric.evaluation._relevant_ranks import Ranking
from keras_metric.neighbors import METRICS

_AT_CUTS = ("recall", "precision", "ndcg", "cmc")
_MEASURES = (*_AT_CUTS, "r_precision", "map", "map_at_r", "mrr")
# Measures of the rank of the nearest relevant item, and of ranks up to k.
_OF_FIRST = {"cmc", "mrr", "recall"}
_OF_CUT = {"ndcg", "precision"}
_RESAMPLES = 1000


def retrieval_metrics(
    embeddings,
    labels,
    gallery_embeddings=None,
    gallery_labels=None,
    k=(1, 2, 4, 8),
    metric="euclidean",
    *,
    measures=None,
    groups=None,
    gallery_groups=None,
    average="query",
    per_class=False,
    confidence=None,
    seed=0,
    progress=None,
):
    """Measure how often the nearest neighbours have the label of the query.

    These are the metrics by which metric learning is compared. Without a gallery every item is a
    query against all other items (leave-one-out; an item is excluded from its own results by its
    index, so copies of it count as items). With a gallery, queries are ranked against the gallery.

    For one query let R be the number of relevant items (same label, not itself) and `rank_1 <
    ... < rank_R` their ranks among all items, from 1. The result has averages over the queries of:

    | key | of one query |
    |---|---|
    | `recall_at_k` | 1 if rank_1 <= k, else 0 |
    | `precision_at_k` | number of ranks <= k, divided by k |
    | `ndcg_at_k` | sum over ranks <= k of 1 / log2(1 + rank), divided by its largest value |
    | `cmc_at_k` | as `recall_at_k`; its name in re-identification |
    | `r_precision` | number of ranks <= R, divided by R |
    | `map` | mean over i of i / rank_i: average precision over the full ranking |
    | `map_at_r` | the same sum over ranks <= R only, still divided by R |
    | `mrr` | 1 / rank_1 |

    `recall_at_k` is that of metric learning: any hit among k, not the fraction of the relevant
    items that is found. The largest NDCG sum is that over i = 1 .. min(R, k) of 1 / log2(1 + i).
    Queries with R = 0 are excluded from the averages and counted as `excluded_queries`.
    `num_queries` is the number of averaged queries; if it is 0 the averages are NaN.

    The result is exact: distances are compared as float64 values rounded to float32. Equal ones
    are a tie, and the item with the smaller index comes first, so that an encoder that maps
    everything to one point scores as a random order does. Besides the input, memory holds a sorted
    and a float32 copy of it, a float64 copy of the gallery if classes are large (more than about 30
    items), and blocks of about 100 MB; never items x items.

    Other conventions: pytorch-metric-learning has the same `precision_at_1`, `r_precision`, `map`
    (with `k=None`), `map_at_r` and `mrr`; its `avg_of_avgs` is `average="class"`.
    open-metric-learning's `map` at k = the gallery's size is `map`; its `precision` divides by
    min(k, R). scikit-learn's `average_precision_score` and `ndcg_score` of one query agree without
    ties. The first code of Market-1501 computed average precision by trapezoids, which is another
    number; present re-identification libraries use `map`.

    Args:
        embeddings: Array `(items, dim)`, finite. One row for each query.
        labels: Array `(items,)` or `(items, 1)`: integers of any width, floats that are whole
            numbers below 2**24, strings, or other comparable values.
        gallery_embeddings: Array `(gallery, dim)`, or None for leave-one-out.
        gallery_labels: Array `(gallery,)`, of the same kind as `labels`.
        k: Integer or integers of at least 1: the cut-offs of recall, precision, NDCG and CMC. May
            be larger than the gallery. The default is common in papers.
        metric: One of `"cosine"`, `"dot"`, `"euclidean"`, `"pearson"`, `"snr"` (with the query
            as anchor), `"squared_euclidean"`; the first and the third give the same ranks if the
            embeddings have length 1, as those of an encoder. `"precomputed"`: `embeddings` are
            distances `(queries, gallery)`, with `gallery_labels` only, or `(items, items)`.
        measures: None (default) for all of the table, or names among `"recall"`, `"precision"`,
            `"ndcg"`, `"cmc"`, `"r_precision"`, `"map"`, `"map_at_r"` and `"mrr"`. Recall, CMC and
            MRR only need the rank of the nearest relevant item: for classes of hundreds of items
            they are several times faster without the others.
        groups: Array `(items,)` of the camera or the sequence of each query, of any kind, or None.
            Items with the label and the group of the query are excluded: the next frame of the same
            video is too easy to find. Items of other labels count in every group.
        gallery_groups: Array `(gallery,)` of the same kind as `groups`.
        average: `"query"` (default) gives all queries the same weight; `"class"` is the mean over
            classes of the means of their queries, so that all classes have the same weight.
        per_class: True adds the averages of each class, as `"label/recall_at_1"` and so on.
        confidence: None, or a number in 0 to 1 such as 0.95: adds `recall_at_1_low` and
            `recall_at_1_high` and so on, the percentile bootstrap interval over 1,000 resamples
            of the queries (of the classes with `average="class"`). The gallery is fixed.
        seed: Integer that seeds the resampling.
        progress: Bar: True always, False never, None (default) on terminals after two seconds.

    Returns:
        Dict of floats, as in the table, with one of the first four for each `k`, and the two
        counts.

    Raises:
        ValueError: NaN or infinity in the embeddings, mismatched shapes, labels of two kinds, a
            gallery without embeddings or without labels, or unknown measures.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import retrieval_metrics
        >>> points = np.array([[0.0], [1.0], [2.0], [3.5]])
        >>> result = retrieval_metrics(points, ["a", "a", "b", "b"], k=(1, 2))
        >>> result["recall_at_1"], result["recall_at_2"], result["mrr"]
        (0.75, 1.0, 0.875)

        Items of the query's label and group are excluded, here the first two of each other:

        >>> result = retrieval_metrics(points, ["a", "a", "b", "b"], k=1, groups=[1, 1, 2, 3])
        >>> result["recall_at_1"], result["num_queries"], result["excluded_queries"]
        (0.5, 2.0, 2.0)

    Reference:
        Musgrave, Belongie, Lim (2020), A Metric Learning Reality Check (R-precision, MAP@R),
        https://arxiv.org/abs/2003.08505; Jegou, Douze, Schmid (2011), Product Quantization for
        Nearest Neighbor Search (recall@k); Jarvelin, Kekalainen (2002), Cumulated Gain-Based
        Evaluation of IR Techniques (NDCG); Zheng et al. (2015), Scalable Person
        Re-identification (CMC and MAP without the query's camera).
    """
    cuts = as_cuts(k)
    check_choice("metric", metric, (*METRICS, "precomputed"))
    measures = _as_measures(measures)
    if not cuts and set(measures) <= set(_AT_CUTS):
        raise ValueError(
            f"`k` must hold a cut-off, since {list(measures)} need one. Received: k={k!r}"
        )
    check_choice("average", average, ("class", "query"))
    check_flag("per_class", per_class)
    if confidence is not None:
        check_number("confidence", confidence, above=0, at_most=1)
    check_count("seed", seed, at_least=0)
    embeddings = as_embeddings("embeddings", embeddings)
    labels = as_labels("labels", labels, len(embeddings))
    if metric == "precomputed":
        gallery = _precomputed_gallery(embeddings, gallery_embeddings, gallery_labels)
    else:
        gallery = as_gallery(gallery_embeddings, gallery_labels, embeddings.shape)
    codes, *gallery_codes = as_codes(labels, *(gallery or ())[1:])
    group_codes, gallery_groups = _group_codes(groups, gallery_groups, len(embeddings), gallery)
    items = None if gallery is None else (gallery[0], *gallery_codes, gallery_groups)
    queries, needed = (embeddings, codes, group_codes), _ranks_needed(measures, cuts)
    ranking = Ranking(queries, items, metric, progress, needed)
    names, values, queries = _values(ranking, measures, cuts)
    classes, of_class = np.unique(codes[queries], return_inverse=True)
    sums = [np.bincount(of_class, column, len(classes)) for column in values.T]
    class_means = np.stack(sums, axis=1) / np.bincount(of_class)[:, None]
    units = class_means if average == "class" else values
    means = units.mean(axis=0) if len(units) else np.full(len(names), np.nan)
    result = dict(zip(names, means.tolist(), strict=True))
    if confidence is not None:
        result |= _bootstrap_intervals(names, units, confidence, seed)
    result["num_queries"] = float(len(queries))
    result["excluded_queries"] = float(len(labels) - len(queries))
    if per_class:
        first = np.unique(codes, return_index=True)
        label_of = dict(zip(first[0].tolist(), map(str, labels[first[1]]), strict=True))
        for code, row in zip(classes.tolist(), class_means.tolist(), strict=True):
            result |= {f"{label_of[code]}/{name}": v for name, v in zip(names, row, strict=True)}
    return result


def _precomputed_gallery(distances, gallery_embeddings, gallery_labels):
    """Return `(None, labels)`, or None for leave-one-out."""
    if gallery_embeddings is not None:
        raise ValueError(
            '`metric="precomputed"` takes distances (queries, gallery) as `embeddings`, and only '
            "the labels of the gallery. Received: gallery_embeddings."
        )
    if gallery_labels is not None:
        return None, as_labels("gallery_labels", gallery_labels, distances.shape[1])
    if distances.shape[0] != distances.shape[1]:
        raise ValueError(
            "Without a gallery, distances must have shape (items, items). Received: "
            f"embeddings.shape={distances.shape}. Pass gallery_labels with a gallery."
        )
    return None


def _group_codes(groups, gallery_groups, num_items, gallery):
    """Return the group numbers of queries and gallery, both None without groups."""
    if gallery is None and gallery_groups is not None:
        raise ValueError(
            "`gallery_groups` needs a gallery. Received: gallery_embeddings=None. Leave-one-out "
            "takes only `groups`."
        )
    if gallery is not None and (groups is None) != (gallery_groups is None):
        missing = "groups" if groups is None else "gallery_groups"
        raise ValueError(
            "With a gallery, `groups` and `gallery_groups` must both be given, or neither. "
            f"Received: {missing}=None. Pass both, or omit both."
        )
    if groups is None:
        return None, None
    groups = as_labels("groups", groups, num_items, as_ids=False)
    if gallery is None:
        return as_codes(groups)[0], None
    others = as_labels("gallery_groups", gallery_groups, len(gallery[1]), as_ids=False)
    return as_codes(groups, others)


def _as_measures(measures):
    """Return the requested names, in the order of the table."""
    if measures is None:
        return _MEASURES
    names = [measures] if isinstance(measures, str) else measures
    valid = isinstance(names, (list, tuple, set)) and all(name in _MEASURES for name in names)
    if not valid or not names:
        raise ValueError(
            f"`measures` must be None or some of {list(_MEASURES)}, without cut-offs; pass those "
            f"as `k`. Received: measures={measures!r}"
        )
    return tuple(name for name in _MEASURES if name in names)


def _ranks_needed(measures, cuts):
    """Return how many ranks of a query `measures` need, or None for all."""
    if not set(measures) <= _OF_FIRST | _OF_CUT:
        return None
    return 1 if set(measures) <= _OF_FIRST else max(cuts, default=1)


def _values(ranking, measures, cuts):
    """Return names, values `(queries, names)`, and the numbers of the queries."""
    names = []
    for name in measures:
        names += [f"{name}_at_{cut}" for cut in cuts] if name in _AT_CUTS else [name]
    values, queries = [np.empty((0, len(names)))], [np.empty(0, "int64")]
    for numbers, ranks, relevant in ranking:
        columns = [column for name in measures for column in _columns(name, cuts, ranks, relevant)]
        values.append(np.stack(columns, axis=1).astype("float64"))
        queries.append(numbers)
    return names, np.concatenate(values), np.concatenate(queries)


def _columns(name, cuts, ranks, relevant):
    """Return the values `(queries,)` of a measure, one array for each cut-off, or one."""
    if name in ("cmc", "recall"):
        return [ranks[:, 0] <= cut for cut in cuts]
    if name == "mrr":
        return [1.0 / ranks[:, 0]]
    # Ranks increase strictly: only the first k relevant items can be among the first k items.
    near = ranks[:, : max(cuts, default=0)]
    if name == "precision":
        return [np.sum(near <= cut, axis=1) / cut for cut in cuts]
    if name == "ndcg":
        gains = 1.0 / np.log2(1.0 + near)
        best = np.cumsum(1.0 / np.log2(2.0 + np.arange(near.shape[1])))
        return [
            np.where(near <= cut, gains, 0.0).sum(axis=1) / best[np.minimum(relevant, cut) - 1]
            for cut in cuts
        ]
    among_r = ranks <= relevant[:, None]
    if name == "r_precision":
        return [among_r.sum(axis=1) / relevant]
    # A missing item has an infinite rank and adds nothing here.
    precisions = np.arange(1, ranks.shape[1] + 1) / ranks
    if name == "map_at_r":
        precisions[~among_r] = 0.0
    return [precisions.sum(axis=1) / relevant]


def _bootstrap_intervals(names, values, confidence, seed):
    """Return `{name_low, name_high}` of the means of `values` `(units, names)`.

    Percentile interval: the units are resampled with replacement, and the (1 - confidence) / 2
    smallest and largest means are cut off.
    """
    if len(values) == 0:
        return {f"{name}_{end}": float("nan") for name in names for end in ("low", "high")}
    rng = np.random.default_rng(seed)
    means = np.empty((_RESAMPLES, len(names)))
    for row in means:
        counts = np.bincount(rng.integers(len(values), size=len(values)), minlength=len(values))
        row[:] = counts @ values / len(values)
    tail = (1.0 - confidence) / 2
    ends = np.quantile(means, (tail, 1.0 - tail), axis=0).T.tolist()
    return {
        f"{name}_{end}": value
        for name, pair in zip(names, ends, strict=True)
        for end, value in zip(("low", "high"), pair, strict=True)
    }
