"""Distances of labelled items, pair by pair: the input of verification."""

import numpy as np

from keras_metric import distances
from keras_metric._validation import check_choice, check_count
from keras_metric.evaluation import pair_samples
from keras_metric.evaluation._inputs import as_codes, as_embeddings, as_labels
from keras_metric.evaluation._progress import check_progress, watched


def pair_distances(
    embeddings, labels, max_pairs=1_000_000, metric="euclidean", seed=0, progress=None
):
    """Measure pairs of one class and pairs of two, for `verification_metrics`.

    Reach for it where a data set has labels and no list of pairs. If there are more than
    `max_pairs` unordered pairs, up to half of them are drawn among those of one class and the rest
    among those of two, evenly and with replacement: rates of errors are then estimates, of as many
    pairs as `num_pairs` says, and accuracy is that of a balanced list.

    If the pairs are many for the number of items, as all pairs are, distances of float32 embeddings
    come from matrix products, which is much faster. They have the accuracy of float32, also between
    near copies. Float64 embeddings, and the metric "manhattan", are measured pair by pair.

    Args:
        embeddings: Array `(items, dim)`, finite.
        labels: Array `(items,)`, of any kind.
        max_pairs: Integer of at least 2.
        metric: A metric of `keras_metric.distances`.
        seed: Integer for the draw.
        progress: Bar on the standard error: None (default) on a terminal after two seconds, True
            always, False never.

    Returns:
        `(scores, same)`: float64 distances and booleans, both `(pairs,)`.

    Raises:
        ValueError: NaN or infinity, shapes that do not fit, or no two items of one class, or no
            two classes.

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
    sizes = np.bincount(codes)
    num_same = int((sizes * (sizes - 1)).sum()) // 2
    num_different = len(codes) * (len(codes) - 1) // 2 - num_same
    if not (num_same and num_different):
        raise ValueError(
            "Pairs need two items of one class and two classes. Received: "
            f"`labels` of {len(codes)} items in {len(sizes)} classes."
        )
    if num_same + num_different <= max_pairs:
        first, second = np.triu_indices(len(codes), 1)
    else:
        rng = np.random.default_rng(seed)
        wanted = min(num_same, max_pairs // 2)
        parts = [
            pair_samples.draw(sizes, wanted, True, rng),
            pair_samples.draw(sizes, max_pairs - wanted, False, rng),
        ]
        first, second = np.argsort(codes, kind="stable")[np.concatenate(parts, axis=1)]
    scores = pair_samples.measure(
        *(embeddings, (first, second), metric),
        watch=lambda parts, total: watched(parts, total, "pairs", progress),
    )
    return scores.astype("float64"), codes[first] == codes[second]
