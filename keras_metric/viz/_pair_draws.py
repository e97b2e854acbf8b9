"""All pairs of one class and of two, or a draw of them."""

import numpy as np

from keras_metric.evaluation import pair_samples


def draw_pairs(labels, most, seed):
    """Return `(first, second)` row numbers of pairs of one class, and those of pairs of two.

    All pairs of a kind, or `most` drawn evenly with `seed`.
    """
    codes = np.unique(labels, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    if len(sizes) < 2 or sizes.max() < 2:
        raise ValueError(
            "Distances need two items of one class and two classes. Received: "
            f"`labels` of {len(codes)} items in {len(sizes)} classes."
        )
    rng = np.random.default_rng(seed)
    return [[order[rows] for rows in _pairs(sizes, same, most, rng)] for same in (True, False)]


def _pairs(sizes, same, most, rng):
    """Return two index arrays into the items sorted by class: all pairs of a kind, or a draw."""
    start = np.cumsum(sizes) - sizes
    num_items = sizes.sum()
    partners = sizes - 1 if same else num_items - sizes
    total = int((sizes * partners).sum()) // 2
    if total <= most:
        if not same:
            # The items of each class with those of all classes after it.
            pairs = [
                np.indices((size, num_items - first - size)).reshape(2, -1)
                + [[first], [first + size]]
                for first, size in zip(start, sizes)
            ]
        else:
            pairs = [
                first + np.stack(np.triu_indices(size, 1)) for first, size in zip(start, sizes)
            ]
        return np.concatenate(pairs, axis=1)
    return pair_samples.draw(sizes, most, same, rng)
