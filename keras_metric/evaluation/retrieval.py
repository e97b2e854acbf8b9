"""Retrieval metrics: does a query find items of its own class first?"""

import numpy as np

from keras_metric._checks import check_choice, check_count
from keras_metric.evaluation._distances import METRICS
from keras_metric.evaluation._inputs import as_codes, as_embeddings, as_labels
from keras_metric.evaluation._ranks import Ranking


def retrieval_metrics(
    embeddings,
    labels,
    gallery_embeddings=None,
    gallery_labels=None,
    k=(1, 2, 4, 8),
    metric="euclidean",
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
    | `r_precision` | number of ranks <= R, divided by R |
    | `map` | mean over i of i / rank_i: average precision over the full ranking |
    | `map_at_r` | the same sum over ranks <= R only, still divided by R |
    | `mrr` | 1 / rank_1 |

    `recall_at_k` is metric learning's: any hit among k, not the share of relevant items found.
    Queries with R = 0 cannot be answered: they are left out of the averages and counted as
    `excluded_queries`. `num_queries` is the number averaged over; if it is 0 the averages are
    NaN.

    The result is exact: distances count as float64 would give them, rounded to float32. Two
    that are equal then are a tie, and the item with the smaller index comes first, so that
    an encoder that maps everything to one point scores as chance does. Memory beside the input
    is one sorted copy, one in float32, and blocks of some 100 MB; never items x items.

    Args:
        embeddings: Array `(items, dim)`, finite. One row for each query.
        labels: Array `(items,)` or `(items, 1)`: integers of any width, strings, anything that
            can be compared.
        gallery_embeddings: Array `(gallery, dim)`, or None for leave-one-out.
        gallery_labels: Array `(gallery,)`, of the same kind as `labels`.
        k: Integer or integers of at least 1: the cut-offs of recall and precision. May be
            larger than the gallery. The default is that of the literature.
        metric: One of `"cosine"`, `"dot"`, `"euclidean"`, `"pearson"`, `"snr"` (with the query
            as anchor), `"squared_euclidean"`; the first and the third rank alike when the
            embeddings have length 1, as an encoder's do.

    Returns:
        Dict of floats, as in the table, with one `recall_at_k` and one `precision_at_k` for
        each `k`, and the two counts.

    Raises:
        ValueError: NaN or infinity in the embeddings, shapes that do not fit each other,
            labels of two kinds, or only one half of a gallery.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import retrieval_metrics
        >>> points = np.array([[0.0], [1.0], [2.0], [3.5]])
        >>> result = retrieval_metrics(points, ["a", "a", "b", "b"], k=(1, 2))
        >>> result["recall_at_1"], result["recall_at_2"], result["mrr"]
        (0.75, 1.0, 0.875)

    Reference:
        Musgrave, Belongie, Lim (2020), A Metric Learning Reality Check (R-precision, MAP@R),
        https://arxiv.org/abs/2003.08505; Jegou, Douze, Schmid (2011), Product Quantization for
        Nearest Neighbor Search (recall@k).
    """
    cuts = [k] if np.ndim(k) == 0 else list(k)
    for cut in cuts:
        check_count("k", cut)
    check_choice("metric", metric, METRICS)
    if (gallery_embeddings is None) != (gallery_labels is None):
        missing = "gallery_embeddings" if gallery_embeddings is None else "gallery_labels"
        raise ValueError(
            "A gallery has both embeddings and labels. "
            f"Received: {missing}=None. Leave both out for leave-one-out."
        )
    embeddings = as_embeddings("embeddings", embeddings)
    labels = as_labels("labels", labels, len(embeddings))
    if gallery_embeddings is None:
        ranking = Ranking(embeddings, as_codes(labels)[0], None, None, metric)
        return _averages(ranking, len(embeddings), cuts)
    gallery = as_embeddings("gallery_embeddings", gallery_embeddings)
    if gallery.shape[1] != embeddings.shape[1]:
        raise ValueError(
            "Queries and gallery must have the same width. Received: "
            f"embeddings.shape={embeddings.shape}, gallery_embeddings.shape={gallery.shape}"
        )
    codes = as_codes(labels, as_labels("gallery_labels", gallery_labels, len(gallery)))
    return _averages(Ranking(embeddings, codes[0], gallery, codes[1], metric), len(labels), cuts)


def _averages(ranking, num_items, cuts):
    names = [f"{name}_at_{cut}" for name in ("recall", "precision") for cut in cuts]
    names += ["r_precision", "map", "map_at_r", "mrr"]
    sums, num_queries = np.zeros(len(names)), 0
    for ranks, relevant in ranking:
        among_r = ranks <= relevant[:, None]
        # An absent item has an infinite rank and adds nothing here.
        precisions = np.arange(1, ranks.shape[1] + 1) / ranks
        rows = [np.any(ranks <= cut, axis=1) for cut in cuts]
        rows += [np.sum(ranks <= cut, axis=1) / cut for cut in cuts]
        rows += [
            among_r.sum(axis=1) / relevant,
            precisions.sum(axis=1) / relevant,
            np.where(among_r, precisions, 0.0).sum(axis=1) / relevant,
            1.0 / ranks[:, 0],
        ]
        sums += [row.sum() for row in rows]
        num_queries += len(relevant)
    averages = sums / num_queries if num_queries else np.full(len(names), np.nan)
    result = dict(zip(names, averages.tolist(), strict=True))
    return {
        **result,
        "num_queries": float(num_queries),
        "excluded_queries": float(num_items - num_queries),
    }
