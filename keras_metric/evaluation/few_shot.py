"""Few-shot accuracy: how well do a few examples of a new class name the others?"""

import numpy as np

from keras_metric._validation import check_choice, check_count
from keras_metric.evaluation._distances import exponent_of, unit_rows
from keras_metric.evaluation._inputs import as_codes, as_embeddings, as_labels


def few_shot_accuracy(
    embeddings, labels, ways=5, shots=1, episodes=600, queries=15, metric="euclidean", seed=0
):
    """Name queries among `ways` random classes of which `shots` examples each are known.

    The protocol of Omniglot and mini-ImageNet, without training on the examples. In each episode
    `ways` classes are drawn, `shots` examples and `queries` other items of each. Two rules name a
    query:

    | key | |
    |---|---|
    | `nearest_neighbor_accuracy` | the class of the nearest example |
    | `class_mean_accuracy` | the class whose examples' mean is nearest (prototypical) |
    | `nearest_neighbor_interval`, `class_mean_interval` | half the 95 % interval of each mean |
    | `num_classes` | classes with enough items to be drawn |

    Means are over episodes, and so is the interval: 1.96 standard deviations / sqrt(episodes).

    With one shot the two rules are one. Chance is 1 / ways, which an encoder that maps everything
    to one point gets.

    Conventions elsewhere: papers give mean and interval over 600 episodes of 15 queries a class,
    the defaults (others 10,000 episodes). Snell et al. measure squared Euclidean distance, which
    names the same class; SimpleShot takes off the training mean and scales to length 1 first.

    Args:
        embeddings: Array `(items, dim)`, finite.
        labels: Array `(items,)`, of any kind. Classes with fewer than `shots + queries` items are
            never drawn.
        ways: Integer of at least 2: classes in an episode. The default is the literature's.
        shots: Integer of at least 1: examples of each.
        episodes: Integer of at least 2.
        queries: Integer of at least 1: items of each class to be named.
        metric: `"euclidean"` (default) or `"cosine"`.
        seed: Integer for the draws.

    Returns:
        Dict of floats, as in the table.

    Raises:
        ValueError: NaN or infinity, shapes that do not fit, fewer than `ways` classes that are
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
    members = [rows for rows in members if len(rows) >= shots + queries]
    if len(members) < ways:
        raise ValueError(
            f"An episode needs {ways} classes of at least shots + queries = {shots + queries} "
            f"items. Received: `labels` with {len(members)} such classes. Ask for fewer "
            "ways or queries."
        )
    far = _squares
    if metric == "euclidean":
        # Scale and shift keep the order of distances. Squares stay finite and keep their digits.
        embeddings = np.ldexp(embeddings, -exponent_of(embeddings))
        embeddings -= np.median(embeddings, axis=0)
    else:
        # By the product: an example of zeros is at a right angle to all, and not next to them.
        embeddings, far = unit_rows(embeddings), _opposite
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(ways), queries)
    hits = np.empty((episodes, 2))
    for row in hits:
        drawn = rng.choice(len(members), ways, replace=False)
        rows = np.stack([rng.choice(members[c], shots + queries, replace=False) for c in drawn])
        examples, asked = np.split(embeddings[rows], [shots], axis=1)
        asked = asked.reshape(ways * queries, -1)
        means = examples.mean(axis=1)
        if metric == "cosine":
            means = unit_rows(means)
        # The first of equal distances wins, and the order of the classes is random.
        nearest = far(asked, examples.reshape(ways * shots, -1)).argmin(axis=1) // shots
        row[:] = np.mean(nearest == truth), np.mean(far(asked, means).argmin(axis=1) == truth)
    mean = hits.mean(axis=0)
    interval = 1.96 * hits.std(axis=0, ddof=1) / np.sqrt(episodes)
    return {
        "nearest_neighbor_accuracy": float(mean[0]),
        "nearest_neighbor_interval": float(interval[0]),
        "class_mean_accuracy": float(mean[1]),
        "class_mean_interval": float(interval[1]),
        "num_classes": float(len(members)),
    }


def _squares(a, b):
    """Squared distances up to a constant of each row of `a`."""
    return np.square(b).sum(axis=1) - 2.0 * (a @ b.T)


def _opposite(a, b):
    """Cosine distances less 1, of rows of length 1 or 0."""
    return -(a @ b.T)
