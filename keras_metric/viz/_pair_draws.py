"""All pairs of one class and of two, or a draw of them, and their distances."""

import numpy as np
from keras import ops

from keras_metric import distances

_VALUES = 2**22  # numbers gathered at a time, for each side of the pairs


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


def measure_pairs(embeddings, pairs, metric):
    """Return the distances of `pairs`, row numbers `(first, second)`, a block at a time."""
    block = max(1, _VALUES // embeddings.shape[1])
    parts = [
        ops.convert_to_numpy(
            distances.elementwise(
                *(embeddings[rows[start : start + block]] for rows in pairs), metric=metric
            )
        )
        for start in range(0, len(pairs[0]), block)
    ]
    return np.concatenate(parts)


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
    weight = sizes * partners
    code = rng.choice(len(sizes), most, p=weight / weight.sum())
    first = rng.integers(sizes[code])
    other = rng.integers(partners[code])
    if same:  # any of the class but the first
        return start[code] + first, start[code] + other + (other >= first)
    return start[code] + first, other + (other >= start[code]) * sizes[code]
