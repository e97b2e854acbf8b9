"""Distances of pairs of labelled items, the input of `verification_metrics`."""

import numpy as np

from keras_metric import distances
from keras_metric._block_loops import check_progress
from keras_metric._validation import check_choice, check_count
from keras_metric.evaluation import pair_samples
from keras_metric.evaluation._input_checks import as_codes, as_embeddings, as_labels


def pair_distances(
    embeddings, labels, max_pairs=1_000_000, metric="euclidean", seed=0, progress=None
):
    """Compute the distances of pairs of one class and of two, for `verification_metrics`.

    Use it for a data set that has labels but no list of pairs. If there are more than `max_pairs`
    unordered pairs, up to half of `max_pairs` are sampled from the pairs of one class and the rest
    from the pairs of two, uniformly and with replacement. Error rates are then estimates, and the
    accuracy is that of a balanced list.

    If the pairs are many for the number of items, as all pairs are, distances of float32 embeddings
    come from matrix products, which is much faster. They have the accuracy of float32, also between
    near copies. Float64 embeddings, "manhattan" and "snr" are measured pair by pair.

    Args:
        embeddings: Array `(items, dim)`, finite.
        labels: Array `(items,)`, of any kind.
        max_pairs: Integer of at least 2.
        metric: A metric of `keras_metric.distances`.
        seed: Integer that seeds the sampling.
        progress: Bar: True always, False never, None (default) on terminals after two seconds.

    Returns:
        `(scores, same)`: float64 distances and booleans, both `(pairs,)`.

    Raises:
        ValueError: NaN or infinity, mismatched shapes, no two items of one class, or no two
            classes.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import pair_distances, verification_metrics
        >>> scores, same = pair_distances(np.array([[0.0], [1.0], [5.0]]), ["a", "a", "b"])
        >>> scores.tolist(), same.tolist()
        ([1.0, 5.0, 4.0], [True, False, False])
        >>> verification_metrics(scores, same)["auc"]
        1.0
    """
    check_count("max_pairs", max_pairs, at_least=2)
    check_choice("metric", metric, distances.METRICS)
    check_count("seed", seed, at_least=0)
    check_progress(progress)
    embeddings = as_embeddings("embeddings", embeddings)
    codes = as_codes(as_labels("labels", labels, len(embeddings)))[0]
    order, sizes = pair_samples.sorted_by_class(codes)
    if len(codes) * (len(codes) - 1) // 2 <= max_pairs:
        first, second = np.triu_indices(len(codes), 1)
    else:
        rng = np.random.default_rng(seed)
        num_same = min(pair_samples.num_pairs(sizes, True), max_pairs // 2)
        kinds = (num_same, True), (max_pairs - num_same, False)
        parts = [pair_samples.sample_pairs(sizes, *kind, rng) for kind in kinds]
        first, second = order[np.concatenate(parts, axis=1)]
    scores = pair_samples.measure(embeddings, (first, second), metric, progress)
    return scores.astype("float64"), codes[first] == codes[second]
