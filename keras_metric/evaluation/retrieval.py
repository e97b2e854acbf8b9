"""Retrieval metrics: does a query find items of its own class first?"""

import numpy as np

from keras_metric._validation import check_choice, check_count, check_flag, check_number
from keras_metric.evaluation._bootstrap import intervals
from keras_metric.evaluation._distances import METRICS
from keras_metric.evaluation._inputs import as_codes, as_cuts, as_embeddings, as_gallery, as_labels
from keras_metric.evaluation._precomputed import PrecomputedRanking
from keras_metric.evaluation._ranks import Ranking

_AT_CUTS = ("recall", "precision", "ndcg", "cmc")
_MEASURES = (*_AT_CUTS, "r_precision", "map", "map_at_r", "mrr")
# Those that look at the rank of the nearest relevant item alone, and at ranks up to k.
_OF_FIRST = {"cmc", "mrr", "recall"}
_OF_CUT = {"ndcg", "precision"}


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
    """Measure how well nearest neighbours share a query's label.

    The numbers by which metric learning is compared. Without a gallery every item is a query
    against all other items (leave-one-out; an item is told from itself by its index, so copies
    of it count as items). With a gallery, queries are ranked against it alone.

    Of one query let R be the number of relevant items (same label, not itself) and `rank_1 <
    ... < rank_R` their ranks among all items, from 1. Averages over the queries of:

    | key | of one query |
    |---|---|
    | `recall_at_k` | 1 if rank_1 <= k, else 0 |
    | `precision_at_k` | number of ranks <= k, divided by k |
    | `ndcg_at_k` | sum over ranks <= k of 1 / log2(1 + rank), divided by what it could be |
    | `cmc_at_k` | as `recall_at_k`, by the name it has in re-identification |
    | `r_precision` | number of ranks <= R, divided by R |
    | `map` | mean over i of i / rank_i: average precision over the full ranking |
    | `map_at_r` | the same sum over ranks <= R only, still divided by R |
    | `mrr` | 1 / rank_1 |

    `recall_at_k` is metric learning's: any hit among k, not the share of relevant items found.
    What NDCG could be is the sum over i = 1 .. min(R, k) of 1 / log2(1 + i).
    Queries with R = 0 cannot be answered: they are left out of the averages and counted as
    `excluded_queries`. `num_queries` is the number averaged over; if it is 0 the averages are
    NaN.

    The result is exact: distances count as float64 would give them, rounded to float32. Two
    that are equal then are a tie, and the item with the smaller index comes first, so that
    an encoder that maps everything to one point scores as chance does. Memory beside the input
    is a sorted and a float32 copy of what is given, of the gallery a float64 copy too where classes
    are large (more than some 30 items), and blocks of some 100 MB; never items x items.

    Conventions elsewhere: pytorch-metric-learning gives `precision_at_1`, `r_precision`, `map`
    (with `k=None`), `map_at_r` and `mrr` alike, and its `avg_of_avgs` is `average="class"`.
    open-metric-learning's `map` at k = the gallery's size is `map`; its `precision` divides by
    min(k, R). scikit-learn's `average_precision_score` and `ndcg_score` of one query agree where
    there are no ties. The area that Market-1501's first code took for average precision, by
    trapezoids, is another number; today's re-identification libraries use `map`.

    Args:
        embeddings: Array `(items, dim)`, finite. One row for each query.
        labels: Array `(items,)` or `(items, 1)`: integers of any width, floats that are whole
            numbers below 2**24, strings, anything else that can be compared.
        gallery_embeddings: Array `(gallery, dim)`, or None for leave-one-out.
        gallery_labels: Array `(gallery,)`, of the same kind as `labels`.
        k: Integer or integers of at least 1: the cut-offs of recall, precision, NDCG and CMC. May
            be larger than the gallery. The default is that of the literature.
        metric: One of `"cosine"`, `"dot"`, `"euclidean"`, `"pearson"`, `"snr"` (with the query
            as anchor), `"squared_euclidean"`; the first and the third rank alike when the
            embeddings have length 1, as an encoder's do. `"precomputed"`: `embeddings` are
            distances `(queries, gallery)`, with `gallery_labels` alone, or `(items, items)`.
        measures: None (default) for all of the table, or names among `"recall"`, `"precision"`,
            `"ndcg"`, `"cmc"`, `"r_precision"`, `"map"`, `"map_at_r"` and `"mrr"`. Recall, CMC and
            MRR need no rank but that of the nearest relevant item: for classes of hundreds of items
            they come several times faster without the others.
        groups: Array `(items,)` of the camera or the sequence of each query, of any kind, or None.
            An item with the query's label and its group is passed over as if it were not there:
            the next picture of the same film is no achievement. Items of other labels count
            whatever their group.
        gallery_groups: Array `(gallery,)` of the same kind as `groups`.
        average: `"query"` (default) weighs all queries alike; `"class"` is the mean over classes
            of the means of their queries, so that large classes count no more than small ones.
        per_class: True adds the averages of each class, as `"label/recall_at_1"` and so on.
        confidence: None, or a share between 0 and 1 such as 0.95: adds `recall_at_1_low` and
            `recall_at_1_high` and so on, the percentile bootstrap interval over 1,000 resamples
            of the queries (of the classes with `average="class"`). The gallery is held.
        seed: Integer for the resamples.
        progress: Bar on the standard error: None (default) on a terminal after two seconds, True
            always, False never.

    Returns:
        Dict of floats, as in the table, with one of the first four for each `k`, and the two
        counts.

    Raises:
        ValueError: NaN or infinity in the embeddings, shapes that do not fit each other,
            labels of two kinds, only one half of a gallery, or measures that there are not.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import retrieval_metrics
        >>> points = np.array([[0.0], [1.0], [2.0], [3.5]])
        >>> result = retrieval_metrics(points, ["a", "a", "b", "b"], k=(1, 2))
        >>> result["recall_at_1"], result["recall_at_2"], result["mrr"]
        (0.75, 1.0, 0.875)

        The third point finds the second first. Were the two of one camera, a pair would be lost:

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
            f"`k` must hold a cut-off, as {list(measures)} have no value without. Received: k={k!r}"
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
    codes = _codes(labels, None if gallery is None else gallery[1])
    group_codes = _group_codes(groups, gallery_groups, len(embeddings), gallery)
    if metric == "precomputed":
        ranking = PrecomputedRanking(embeddings, *codes, *group_codes, progress)
    else:
        items = None if gallery is None else gallery[0]
        first = _ranks_needed(measures, cuts)
        ranking = Ranking(
            embeddings, codes[0], items, codes[1], metric, *group_codes, progress, first
        )
    names, values, queries = _values(ranking, measures, cuts)
    classes, of_class = np.unique(codes[0][queries], return_inverse=True)
    sums = [np.bincount(of_class, column, len(classes)) for column in values.T]
    class_means = np.stack(sums, axis=1) / np.bincount(of_class)[:, None]
    units = class_means if average == "class" else values
    means = units.mean(axis=0) if len(units) else np.full(len(names), np.nan)
    result = dict(zip(names, means.tolist(), strict=True))
    if confidence is not None:
        result |= intervals(dict(zip(names, units.T, strict=True)), confidence, seed)
    result["num_queries"] = float(len(queries))
    result["excluded_queries"] = float(len(labels) - len(queries))
    if per_class:
        first = np.unique(codes[0], return_index=True)
        label_of = dict(zip(first[0].tolist(), map(str, labels[first[1]]), strict=True))
        for code, row in zip(classes.tolist(), class_means.tolist(), strict=True):
            result |= {f"{label_of[code]}/{name}": v for name, v in zip(names, row, strict=True)}
    return result


def _precomputed_gallery(distances, gallery_embeddings, gallery_labels):
    """Return `(None, labels)`, or None for leave-one-out."""
    if gallery_embeddings is not None:
        raise ValueError(
            '`metric="precomputed"` takes distances (queries, gallery) as `embeddings`, and labels '
            "alone of the gallery. Received: gallery_embeddings."
        )
    if gallery_labels is not None:
        return None, as_labels("gallery_labels", gallery_labels, distances.shape[1])
    if distances.shape[0] != distances.shape[1]:
        raise ValueError(
            "Distances of queries among themselves must be square. Received: "
            f"embeddings.shape={distances.shape}. Pass gallery_labels with a gallery."
        )
    return None


def _codes(labels, gallery_labels):
    if gallery_labels is None:
        return as_codes(labels)[0], None
    return as_codes(labels, gallery_labels)


def _group_codes(groups, gallery_groups, num_items, gallery):
    """Return the group numbers of queries and gallery, both None without groups."""
    if gallery is None and gallery_groups is not None:
        raise ValueError(
            "`gallery_groups` needs a gallery. Received: gallery_embeddings=None. Leave-one-out "
            "takes `groups` alone."
        )
    if gallery is not None and (groups is None) != (gallery_groups is None):
        missing = "groups" if groups is None else "gallery_groups"
        raise ValueError(
            "With a gallery both sides have groups, or neither. "
            f"Received: {missing}=None. Pass both, or leave both out."
        )
    if groups is None:
        return None, None
    groups = as_labels("groups", groups, num_items, as_ids=False)
    if gallery is None:
        return as_codes(groups)[0], None
    others = as_labels("gallery_groups", gallery_groups, len(gallery[1]), as_ids=False)
    return as_codes(groups, others)


def _as_measures(measures):
    """Return the names asked for, in the order of the table."""
    if measures is None:
        return _MEASURES
    names = [measures] if isinstance(measures, str) else measures
    known = isinstance(names, (list, tuple, set)) and all(name in _MEASURES for name in names)
    if not known or not names:
        raise ValueError(
            f"`measures` must be None or some of {list(_MEASURES)}, without cut-offs, which are `k`"
            f". Received: measures={measures!r}"
        )
    return tuple(name for name in _MEASURES if name in names)


def _ranks_needed(measures, cuts):
    """Return how many of the ranks of a query `measures` look at, or None for all."""
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
    """Return the values `(queries,)` of a measure: one for each cut-off, or one."""
    if name in ("cmc", "recall"):
        return [ranks[:, 0] <= cut for cut in cuts]
    if name == "mrr":
        return [1.0 / ranks[:, 0]]
    # Ranks ascend and differ: of the first k items at most the first k relevant ones are.
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
    # An absent item has an infinite rank and adds nothing here.
    precisions = np.arange(1, ranks.shape[1] + 1) / ranks
    if name == "map_at_r":
        precisions[~among_r] = 0.0
    return [precisions.sum(axis=1) / relevant]
