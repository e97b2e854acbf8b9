"""Few-shot accuracy: classification of items by a few examples of each class."""

import numpy as np

from keras_metric._validation import check_choice, check_count
from keras_metric.evaluation._input_checks import as_codes, as_embeddings, as_labels
from keras_metric.neighbors import exponent_of, unit_rows


def few_shot_accuracy(
    embeddings, labels, ways=5, shots=1, episodes=600, queries=15, metric="euclidean", seed=0
):
    """Classify queries among `ways` random classes with `shots` labelled examples each.

    The protocol of Omniglot and mini-ImageNet, without training on the examples. Each episode
    samples `ways` classes, and `shots` examples and `queries` other items of each. Two rules
    classify a query:

    | key | |
    |---|---|
    | `nearest_neighbor_accuracy` | the class of the nearest example |
    | `class_mean_accuracy` | the class whose examples' mean is nearest (prototypical) |
    | `nearest_neighbor_interval`, `class_mean_interval` | half the 95 % interval of each mean |
    | `num_classes` | classes with enough items to be sampled |

    Means and intervals are over episodes; an interval is 1.96 standard deviations / sqrt(episodes).

    With one shot the two rules are equal. The accuracy at random is 1 / ways, also for an encoder
    that maps everything to one point.

    Other conventions: papers report mean and interval over 600 episodes of 15 queries a class,
    which are the defaults, or over 10,000 episodes. Snell et al. use squared Euclidean distance,
    which selects the same class; SimpleShot subtracts the training mean and scales to length 1.

    Args:
        embeddings: Array `(items, dim)`, finite.
        labels: Array `(items,)`, of any kind. Classes with fewer than `shots + queries` items are
            never sampled.
        ways: Integer of at least 2: classes in an episode. Papers use 5 and 20.
        shots: Integer of at least 1: examples of each.
        episodes: Integer of at least 2.
        queries: Integer of at least 1: items of each class to classify.
        metric: `"euclidean"` (default) or `"cosine"`.
        seed: Integer that seeds the sampling.

    Returns:
        Dict of floats, as in the table.

    Raises:
        ValueError: NaN or infinity, mismatched shapes, or fewer than `ways` classes that are
            large enough.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import few_shot_accuracy
        >>> labels = np.repeat(np.arange(8), 20)
        >>> points = labels[:, None] + np.random.default_rng(0).normal(0, 0.3, size=(160, 1))
        >>> result = few_shot_accuracy(points, labels, ways=5, shots=5, episodes=100)
        >>> round(result["class_mean_accuracy"], 2), round(result["class_mean_interval"], 2)
        (0.95, 0.01)

    Reference:
        Vinyals et al. (2016), Matching Networks; Snell, Swersky, Zemel (2017), Prototypical
        Networks, https://arxiv.org/abs/1703.05175; Lake, Salakhutdinov, Tenenbaum (2015),
        Human-level Concept Learning.
    """
    check_count("ways", ways, at_least=2)
    check_count("shots", shots)
    check_count("episodes", episodes, at_least=2)
    check_count("queries", queries)
    check_count("seed", seed, at_least=0)
    check_choice("metric", metric, ("cosine", "euclidean"))
    embeddings = as_embeddings("embeddings", embeddings).astype("float64")
    codes = as_codes(as_labels("labels", labels, len(embeddings)))[0]
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    size = shots + queries
    members = [rows for rows in members if len(rows) >= size]
    if len(members) < ways:
        raise ValueError(
            f"An episode needs {ways} classes of at least shots + queries = {size} items. "
            f"Received: `labels` with {len(members)} such classes. Use fewer ways or queries."
        )
    if metric == "euclidean":
        # Scale and shift keep the order of distances; squares stay finite and keep their digits.
        embeddings = np.ldexp(embeddings, -exponent_of(embeddings))
        embeddings -= np.median(embeddings, axis=0)
    else:
        embeddings = unit_rows(embeddings)
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(ways), queries)
    hits = np.empty((episodes, 2))
    for row in hits:
        chosen = rng.choice(len(members), ways, replace=False)
        rows = np.stack([rng.choice(members[c], size, replace=False) for c in chosen])
        examples, tested = np.split(embeddings[rows], [shots], axis=1)
        tested = tested.reshape(ways * queries, -1)
        means = examples.mean(axis=1)
        if metric == "cosine":
            means = unit_rows(means)
        # Of equal distances the first is selected; the order of the classes is random.
        examples = examples.reshape(ways * shots, -1)
        nearest = _distances(tested, examples, metric).argmin(axis=1) // shots
        of_means = _distances(tested, means, metric).argmin(axis=1)
        row[:] = np.mean(nearest == truth), np.mean(of_means == truth)
    mean = hits.mean(axis=0)
    interval = 1.96 * hits.std(axis=0, ddof=1) / np.sqrt(episodes)
    return {
        "nearest_neighbor_accuracy": float(mean[0]),
        "nearest_neighbor_interval": float(interval[0]),
        "class_mean_accuracy": float(mean[1]),
        "class_mean_interval": float(interval[1]),
        "num_classes": float(len(members)),
    }


def _distances(a, b, metric):
    """Return two times the cosine distances, or squared ones, up to a constant for each row."""
    # The product gives an example of zeros the cosine 0 to all; differences would not.
    return (np.square(b).sum(axis=1) if metric == "euclidean" else 0.0) - 2.0 * (a @ b.T)
