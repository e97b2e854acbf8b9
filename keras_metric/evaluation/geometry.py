"""Geometry of an embedding space: distances in and between classes, uniformity, hubness."""

import numpy as np

from keras_metric._validation import check_count, check_number
from keras_metric.evaluation._input_checks import as_codes, as_embeddings, as_labels
from keras_metric.evaluation._relevant_ranks import Ranking
from keras_metric.neighbors import (
    ExactDistances,
    key_blocks,
    key_distances,
    key_index,
    remove_self,
    smallest_keys,
)


def geometry_metrics(embeddings, labels, k=10, alpha=2.0, t=2.0, progress=None):
    """Measure how the classes are distributed in the embedding space.

    Use it to explain a recall: by wide classes, by an embedding space of which a part is used, or
    by a few items that are neighbours of most others. With the Euclidean distance d:

    | key | |
    |---|---|
    | `triplet_accuracy` | fraction of all (a, p, n) with p nearer to a than n |
    | `intra_distance` | mean d over pairs of one class |
    | `inter_distance` | mean d over pairs of two classes |
    | `intra_inter_ratio` | the first divided by the second; 0 is perfect, 1 means no separation |
    | `alignment` | mean of d**alpha over pairs of one class |
    | `uniformity` | log of the mean over all pairs of exp(-t d**2); lower is more even |
    | `hubness_at_k` | skewness of how often an item is among the k nearest of others; 0 is even |
    | `antihubs_at_k` | fraction of the items that are not among the k nearest of any other |
    | `num_items` | |

    The mean over triplets gives large classes more weight, as triplet losses do. A tie is decided
    by the items' index, as in `retrieval_metrics`, so that a collapsed encoder has about 0.5.

    Other conventions: `alignment` and `uniformity` are those of Wang and Isola's code. The paper
    defines them for vectors of length 1, where `uniformity` is at least -2 t (-4). Roth et al.
    (2020) use another ratio: the mean over classes of their inner distances, divided by the mean
    distance of class means.

    Args:
        embeddings: Array `(items, dim)`, finite.
        labels: Array `(items,)`, of any kind.
        k: Integer of at least 1: neighbours for hubness; 10 in papers.
        alpha: Number above 0, the exponent; 2 in the paper.
        t: Number above 0, the scale; 2 in the paper.
        progress: Bar: True always, False never, None (default) on terminals after two seconds.

    Returns:
        Dict of floats, as in the table; NaN if there is no pair or no triplet, or if k is not below
        the number of items.

    Raises:
        ValueError: NaN or infinity, or mismatched shapes.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import geometry_metrics
        >>> points = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
        >>> result = geometry_metrics(points, ["a", "a", "b", "b"], k=1)
        >>> result["triplet_accuracy"], round(result["alignment"], 6)
        (0.75, 1.0)

    Reference:
        Wang, Isola (2020), Understanding Contrastive Representation Learning through Alignment
        and Uniformity on the Hypersphere, https://arxiv.org/abs/2005.10242; Radovanovic,
        Nanopoulos, Ivanovic (2010), Hubs in Space.
    """
    check_count("k", k)
    check_number("alpha", alpha, above=0)
    check_number("t", t, above=0)
    embeddings = as_embeddings("embeddings", embeddings)
    codes = as_codes(as_labels("labels", labels, len(embeddings)))[0]
    sums = _sums_over_pairs(embeddings, codes, k, alpha, t, progress)
    intra, inter = sums["intra"] / sums["num_intra"], sums["inter"] / sums["num_inter"]
    occurrences = sums["occurrences"]
    hubs = (_skewness(occurrences), np.mean(occurrences == 0)) if k < len(codes) else (np.nan,) * 2
    result = {
        "triplet_accuracy": _triplet_accuracy(embeddings, codes, progress),
        "intra_distance": intra,
        "inter_distance": inter,
        "intra_inter_ratio": intra / inter if inter > 0 else np.nan,
        "alignment": sums["alignment"] / sums["num_intra"],
        "uniformity": sums["log_potential"] - np.log(len(codes) * (len(codes) - 1) or np.nan),
        f"hubness_at_{k}": hubs[0],
        f"antihubs_at_{k}": hubs[1],
        "num_items": len(codes),
    }
    return {key: float(value) for key, value in result.items()}


def _sums_over_pairs(embeddings, codes, k, alpha, t, progress):
    """Return sums over all ordered pairs, and how often each item is among the k nearest."""
    items = len(codes)
    measured = ExactDistances(embeddings, embeddings, "euclidean")
    sums = dict.fromkeys(("intra", "inter", "alignment"), 0.0)
    sums["log_potential"] = -np.inf
    sums["occurrences"] = np.zeros(items, "int64")
    for rows, keys in key_blocks(measured, "distances", progress) if items > 1 else ():
        distances = measured.in_units(key_distances(keys))
        same = codes[rows, None] == codes
        # The distance of an item to itself is 0 and adds nothing here.
        sums["intra"] += distances[same].sum()
        sums["inter"] += distances.sum() - distances[same].sum()
        with np.errstate(over="ignore"):  # infinite for a large alpha or large vectors
            sums["alignment"] += (distances[same] ** alpha).sum()
        exponents = -t * np.square(distances)
        exponents[np.arange(len(keys)), np.arange(rows.start, rows.stop)] = -np.inf
        # Subtract the largest: otherwise the exponentials of distant items would all be 0.
        largest = exponents.max()
        potential = largest + np.log(np.exp(exponents - largest).sum())
        sums["log_potential"] = np.logaddexp(sums["log_potential"], potential)
        if k < items:
            remove_self(keys, rows)
            found = key_index(smallest_keys(keys, k))
            sums["occurrences"] += np.bincount(found.ravel(), minlength=items)
    sizes = np.bincount(codes)
    num_intra = int((sizes * (sizes - 1)).sum())
    sums["num_intra"] = num_intra or np.nan
    sums["num_inter"] = (items * (items - 1) - num_intra) or np.nan
    return sums


def _triplet_accuracy(embeddings, codes, progress):
    """Return the fraction of triplets in order, from the ranks of the positives."""
    sizes = np.bincount(codes)
    wrong = total = 0
    ranking = Ranking((embeddings, codes, None), None, "euclidean", progress)
    for queries, ranks, relevant in ranking:
        # Of the items before the i-th positive, all but i - 1 positives are negatives.
        before = ranks - np.arange(1, ranks.shape[1] + 1)
        wrong += before[np.isfinite(ranks)].sum()
        total += (relevant * (len(codes) - sizes[codes[queries]])).sum()
    return 1.0 - wrong / total if total else np.nan


def _skewness(counts):
    centred = counts - counts.mean()
    spread = np.sqrt(np.mean(centred**2))
    return np.mean(centred**3) / spread**3 if spread > 0 else 0.0
