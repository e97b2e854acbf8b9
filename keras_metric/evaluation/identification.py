"""Identification metrics: closed-set and open-set search in a gallery of identities."""

import numpy as np

from keras_metric._validation import check_choice
from keras_metric.evaluation._input_checks import (
    as_codes,
    as_cuts,
    as_embeddings,
    as_gallery,
    as_labels,
    as_rates,
)
from keras_metric.evaluation.roc import roc_curve
from keras_metric.neighbors import METRICS_WITH_UNITS, ExactDistances, key_blocks, key_distances


def identification_metrics(
    embeddings,
    labels,
    gallery_embeddings,
    gallery_labels,
    k=(1, 5, 10),
    far=(0.1, 0.01),
    metric="euclidean",
    progress=None,
):
    """Measure how well probes are identified in a gallery of enrolled identities.

    The metrics of a watch list or of access control. The distance of a probe to an identity is
    that to the nearest of its gallery items; identities are ranked by it, so several items of one
    identity count once. A probe is enrolled if its label is in the gallery, else unknown.

    | key | |
    |---|---|
    | `rank_k` | fraction of the enrolled probes whose identity is among the k nearest |
    | `dir_at_far_x` | fraction of them whose identity is nearest, and within a threshold |
    | `threshold_at_far_x` | that threshold |
    | `num_known`, `num_unknown`, `num_identities` | |

    The threshold is the largest nearest distance of a probe at which at most a fraction x of the
    unknown probes is accepted (false accepts). `dir` is the detection and identification rate;
    1 - `dir_at_far_x` is the false negative identification rate (FNIR) at a false positive
    identification rate (FPIR) of x. `rank_k` uses enrolled probes only (closed set) and equals
    `cmc_at_k` of `retrieval_metrics` if each identity has one gallery item. Of equal distances the
    item with the smaller index is nearer. Without unknown probes `dir` is NaN, without enrolled
    ones all rates are.

    Other conventions: NIST's reports and the protocol of IJB-C use one template for each identity;
    pass one averaged embedding for each.

    Args:
        embeddings: Array `(probes, dim)`, finite.
        labels: Array `(probes,)`, of any kind; unknown identities have any labels that are not in
            the gallery.
        gallery_embeddings: Array `(items, dim)`.
        gallery_labels: Array `(items,)`, of the same kind as `labels`.
        k: Integer or integers of at least 1.
        far: Number or numbers in 0 to 1: the false accept rates x.
        metric: One of `"cosine"`, `"dot"`, `"euclidean"`, `"pearson"`, `"squared_euclidean"`;
            thresholds are in its units.
        progress: Bar: True always, False never, None (default) on terminals after two seconds.

    Returns:
        Dict of floats, as in the table.

    Raises:
        ValueError: NaN or infinity, mismatched shapes, or an empty gallery.

    Example:
        >>> from keras_metric.evaluation import identification_metrics
        >>> gallery, names = [[0.0], [1.0], [5.0]], ["ann", "ann", "bob"]
        >>> probes, truth = [[1.2], [3.2], [4.9], [7.0]], ["ann", "ann", "bob", "eve"]
        >>> result = identification_metrics(probes, truth, gallery, names, k=(1, 2), far=0.0)
        >>> round(result["rank_1"], 3), result["rank_2"]
        (0.667, 1.0)
        >>> round(result["dir_at_far_0"], 3), round(result["threshold_at_far_0"], 3)
        (0.667, 1.8)

    Reference:
        Phillips, Grother, Micheals (2011), Evaluation Methods in Face Recognition; Maze et al.
        (2018), IARPA Janus Benchmark C.
    """
    cuts, rates = as_cuts(k), as_rates(far)
    check_choice("metric", metric, METRICS_WITH_UNITS)
    embeddings = as_embeddings("embeddings", embeddings)
    labels = as_labels("labels", labels, len(embeddings))
    gallery = as_gallery(gallery_embeddings, gallery_labels, embeddings.shape)
    if gallery is None or len(gallery[1]) == 0 or len(labels) == 0:
        raise ValueError(
            "Identification needs probes and a gallery. Received: "
            f"embeddings.shape={embeddings.shape}, "
            f"len(gallery_labels)={None if gallery is None else len(gallery[1])}"
        )
    codes, gallery_codes = as_codes(labels, gallery[1])
    # Sort the gallery by identity, so that `reduceat` finds the nearest item of each.
    identities, number = np.unique(gallery_codes, return_inverse=True)
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(len(identities)))
    own = np.minimum(np.searchsorted(identities, codes), len(identities) - 1)
    enrolled = identities[own] == codes
    measured = ExactDistances(embeddings, gallery[0], metric)
    ranks, nearest = np.empty(len(codes)), np.empty(len(codes), "float32")
    for rows, keys in key_blocks(measured, "identities", progress):
        keys = np.minimum.reduceat(keys[:, order], starts, axis=1)
        own_key = keys[np.arange(len(keys)), own[rows], None]
        ranks[rows] = 1 + (keys < own_key).sum(axis=1)
        nearest[rows] = key_distances(keys.min(axis=1))
    nearest = measured.in_units(nearest)
    result = {f"rank_{cut}": _mean(ranks[enrolled] <= cut) for cut in cuts}
    curve = roc_curve(nearest, enrolled)
    for rate in rates:
        threshold = float("nan") if enrolled.all() else float(curve.thresholds[curve.within(rate)])
        found = (ranks == 1) & (nearest <= threshold)
        result[f"dir_at_far_{rate:g}"] = float("nan") if enrolled.all() else _mean(found[enrolled])
        result[f"threshold_at_far_{rate:g}"] = threshold
    result |= {"num_known": float(enrolled.sum()), "num_unknown": float((~enrolled).sum())}
    return {**result, "num_identities": float(len(identities))}


def _mean(hits):
    return float(hits.mean()) if len(hits) else float("nan")
