"""Pairs drawn from labelled items, and their distances."""

import numpy as np
from keras import ops

from keras_metric import distances

_VALUES = 2**22  # numbers gathered at a time, for each side of the pairs
_TILE = 256  # rows multiplied with each other at a time
# A product of all items with all takes as long as this many times fewer pairs one by one.
_MOST_FOR_A_PAIR = 16
_SQUARED = ("euclidean", "squared_euclidean")
# Below this part of the squares, a squared difference from products has not all digits of float32.
_CANCELLED = 2.0**-22


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


def measure(embeddings, pairs, metric, watch=None):
    """Return the distances of `pairs`, row numbers `(first, second)`.

    Where the pairs are many for the items, as all pairs are, float32 embeddings are multiplied with
    each other in float64, a tile at a time; the result has the accuracy of float32. Else each pair
    is measured in turn. `watch(parts, total)` wraps the loop, for a progress bar.
    """
    watch = watch or (lambda parts, total: parts)
    few_items = len(embeddings) ** 2 <= _MOST_FOR_A_PAIR * len(pairs[0])
    if few_items and metric != "manhattan" and _is_safe(embeddings):
        return _from_products(embeddings, pairs, metric, watch)
    return _one_by_one(embeddings, pairs, metric, watch)


def _one_by_one(embeddings, pairs, metric, watch=lambda parts, total: parts):
    block = max(1, _VALUES // embeddings.shape[1])
    starts = range(0, len(pairs[0]), block)
    parts = [
        ops.convert_to_numpy(
            distances.elementwise(
                *(embeddings[rows[start : start + block]] for rows in pairs), metric=metric
            )
        )
        for start in watch(starts, len(starts))
    ]
    return np.concatenate(parts) if parts else np.zeros(0, "float32")


def _is_safe(embeddings):
    """Whether products keep what float32 needs; `distances` scales huge vectors down."""
    return embeddings.dtype == np.float32 and np.abs(embeddings).max(initial=0) < 1e12


def _from_products(embeddings, pairs, metric, watch):
    first, second = pairs
    size = len(embeddings)
    products = np.empty((size, size))
    middle = np.mean(embeddings, axis=0, dtype="float64") if metric in _SQUARED else 0.0
    tiles = [(i, j) for i in range(0, size, _TILE) for j in range(i, size, _TILE)]
    for i, j in watch(tiles, len(tiles)):
        a = _rows(embeddings[i : i + _TILE], middle, metric)
        b = a if i == j else _rows(embeddings[j : j + _TILE], middle, metric)
        tile = a @ b.T
        products[i : i + _TILE, j : j + _TILE] = tile
        products[j : j + _TILE, i : i + _TILE] = tile.T
    squares = np.diagonal(products)
    found = products[first, second]
    if metric == "dot":
        return (-found).astype("float32")
    if metric in ("cosine", "pearson"):
        size, found = 2.0, 1.0 - found
    else:
        size = squares[first] + squares[second]
        found = size - 2.0 * found
    close = np.flatnonzero(found < _CANCELLED * size)
    if metric == "euclidean":
        found = np.sqrt(np.maximum(found, 0.0))
    elif metric == "snr":
        found /= np.maximum(squares[first], 1e-12)
    found = found.astype("float32")
    # Of near copies the difference of large numbers leaves few digits.
    found[close] = _one_by_one(embeddings, (first[close], second[close]), metric)
    return found


def _rows(rows, middle, metric):
    """Rows in float64 whose products are what `metric` needs."""
    rows = rows - np.float64(middle)
    if metric in ("pearson", "snr"):
        rows -= rows.mean(axis=1, keepdims=True)
    if metric in ("cosine", "pearson"):
        sizes = np.abs(rows).max(axis=1, keepdims=True)
        rows /= np.where(sizes > 0, sizes, 1)
        lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
        rows /= np.where(lengths > 0, lengths, 1)
    return rows
