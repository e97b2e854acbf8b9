"""Identification metrics: who of the gallery is this, or nobody?"""

import numpy as np

from keras_metric._validation import check_choice
from keras_metric.evaluation._distances import UNITS, Geometry, key_distances
from keras_metric.evaluation._inputs import (
    as_codes,
    as_cuts,
    as_embeddings,
    as_gallery,
    as_labels,
    as_rates,
)
from keras_metric.evaluation._neighbors import key_blocks
from keras_metric.evaluation.roc import roc_curve


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
    """Measure how well probes are named by a gallery of enrolled identities.

    The numbers of a watch list or a door. An identity is as far from a probe as the nearest of
    its gallery items; identities are ranked by that, so several items of one count once. A probe
    is known if its label is in the gallery, else unknown.

    | key | |
    |---|---|
    | `rank_k` | share of the known probes whose own identity is among the k nearest |
    | `dir_at_far_x` | share of the known whose own identity is nearest, and within a threshold |
    | `threshold_at_far_x` | that threshold |
    | `num_known`, `num_unknown`, `num_identities` | |

    The threshold is the largest nearest distance of any probe within which at most a share x of
    the unknown probes have an identity: false alarms. `dir` is the detection and identification
    rate; 1 - `dir_at_far_x` is the false negative identification rate (FNIR) at a false
    positive one (FPIR) of x. `rank_k` asks of known probes alone (closed set), and equals
    `retrieval_metrics`'s `cmc_at_k` if each identity has one gallery item. Equal distances: the
    item with the smaller index is nearer. Without unknown probes `dir` is NaN, without known ones
    all rates are.

    Conventions elsewhere: NIST's reports and IJB-C's protocol, where the gallery item is a
    template (give one averaged embedding for each identity).

    Args:
        embeddings: Array `(probes, dim)`, finite.
        labels: Array `(probes,)`, of any kind; unknown identities have labels of their own, equal
            or not.
        gallery_embeddings: Array `(items, dim)`.
        gallery_labels: Array `(items,)`, of the same kind as `labels`.
        k: Integer or integers of at least 1.
        far: Number or numbers in 0 to 1: the rates x of false alarms.
        metric: One of `"cosine"`, `"dot"`, `"euclidean"`, `"pearson"`, `"squared_euclidean"`;
            thresholds are in its units.
        progress: Bar on the standard error: None (default) on a terminal after two seconds, True
            always, False never.

    Returns:
        Dict of floats, as in the table.

    Raises:
        ValueError: NaN or infinity, shapes that do not fit, an empty gallery.

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
    check_choice("metric", metric, UNITS)
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
    # The items of an identity side by side, identities numbered as they come.
    identities, number = np.unique(gallery_codes, return_inverse=True)
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(len(identities)))
    own = np.searchsorted(identities, codes)
    own = np.minimum(own, len(identities) - 1)
    known = identities[own] == codes
    geometry = Geometry(embeddings, gallery[0], metric)
    ranks, nearest = np.empty(len(codes)), np.empty(len(codes), "float32")
    for rows, keys in key_blocks(geometry, "identities", progress):
        keys = np.minimum.reduceat(keys[:, order], starts, axis=1)
        mine = keys[np.arange(len(keys)), own[rows], None]
        ranks[rows] = 1 + (keys < mine).sum(axis=1)
        nearest[rows] = key_distances(keys.min(axis=1))
    nearest = geometry.in_units(nearest)
    result = {f"rank_{cut}": _mean(ranks[known] <= cut) for cut in cuts}
    curve = roc_curve(nearest, known)
    for rate in rates:
        threshold = float("nan") if known.all() else float(curve.thresholds[curve.within(rate)])
        found = (ranks == 1) & (nearest <= threshold)
        result[f"dir_at_far_{rate:g}"] = float("nan") if known.all() else _mean(found[known])
        result[f"threshold_at_far_{rate:g}"] = threshold
    result |= {"num_known": float(known.sum()), "num_unknown": float((~known).sum())}
    return {**result, "num_identities": float(len(identities))}


def _mean(hits):
    return float(hits.mean()) if len(hits) else float("nan")
