"""Pairs drawn from labelled items, and their distances."""

import numpy as np
from keras import ops

from keras_metric import distances

_VALUES = 2**22  # numbers gathered at a time, for each side of the pairs


def draw(sizes, count, same, rng):
    """Return `(2, count)` places of pairs among items that are sorted by class.

    Evenly over the pairs of one class, with `same`, or over those of two. `sizes` are the classes'.
    """
    start, total = np.cumsum(sizes) - sizes, sizes.sum()
    partners = sizes - 1 if same else total - sizes
    weights = sizes * partners
    drawn = rng.choice(len(sizes), count, p=weights / weights.sum())
    first, other = rng.integers(sizes[drawn]), rng.integers(partners[drawn])
    if same:  # any of the class but the first
        return np.stack([start[drawn] + first, start[drawn] + other + (other >= first)])
    # any item before the class or after it
    return np.stack([start[drawn] + first, other + (other >= start[drawn]) * sizes[drawn]])


def measure(embeddings, pairs, metric):
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
