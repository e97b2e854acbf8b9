"""Pairs sampled from labelled items, and the distances of pairs."""

import numpy as np
from keras import ops

from keras_metric import distances
from keras_metric.neighbors import unit_rows

_GATHERED = 2**22  # numbers gathered at a time, for each side of the pairs
_TILE_ROWS = 256  # multiplied with each other at a time
# A product of all items with all takes as long as this many times fewer pairs one by one.
_ITEM_PAIRS_PER_PAIR = 16
_SQUARED = ("euclidean", "squared_euclidean")
# A squared difference below this fraction of the squares has lost float32 digits in the product.
_CANCELLED = 2.0**-22


def sample_pairs(sizes, count, same, rng):
    """Return `(2, count)` positions of pairs among items that are sorted by class.

    Uniform over the pairs of one class (with `same`) or of two, with replacement. `sizes` are the
    numbers of items of the classes.
    """
    start, total = np.cumsum(sizes) - sizes, sizes.sum()
    choices = sizes - 1 if same else total - sizes
    weights = sizes * choices
    chosen = rng.choice(len(sizes), count, p=weights / weights.sum())
    first, other = rng.integers(sizes[chosen]), rng.integers(choices[chosen])
    if same:  # any item of the class but the first
        return np.stack([start[chosen] + first, start[chosen] + other + (other >= first)])
    # any item before the class or after it
    return np.stack([start[chosen] + first, other + (other >= start[chosen]) * sizes[chosen]])


def sorted_by_class(codes):
    """Return the order of the items by class, and the sizes of the classes, or raise."""
    sizes = np.bincount(codes)
    if len(sizes) < 2 or sizes.max() < 2:
        raise ValueError(
            "Distances need two items of one class and two classes. Received: "
            f"`labels` of {len(codes)} items in {len(sizes)} classes."
        )
    return np.argsort(codes, kind="stable"), sizes


def num_pairs(sizes, same):
    """Return the number of unordered pairs of one class, or of two."""
    return int((sizes * (sizes - 1 if same else sizes.sum() - sizes)).sum()) // 2


def pairs_of_kinds(labels, most, seed):
    """Return `(first, second)` row numbers of pairs of one class, and those of pairs of two.

    All pairs of a kind, or `most` sampled uniformly with `seed`.
    """
    order, sizes = sorted_by_class(np.unique(labels, return_inverse=True)[1])
    rng = np.random.default_rng(seed)
    return [order[_all_or_sampled(sizes, same, most, rng)] for same in (True, False)]


def _all_or_sampled(sizes, same, most, rng):
    """Return `(2, pairs)` positions in the items sorted by class."""
    if num_pairs(sizes, same) > most:
        return sample_pairs(sizes, most, same, rng)
    start, num_items = np.cumsum(sizes) - sizes, sizes.sum()
    if same:
        pairs = [first + np.stack(np.triu_indices(size, 1)) for first, size in zip(start, sizes)]
    else:
        # The items of each class with those of all classes after it.
        pairs = [
            np.indices((size, num_items - first - size)).reshape(2, -1) + [[first], [first + size]]
            for first, size in zip(start, sizes)
        ]
    return np.concatenate(pairs, axis=1)


def measure(embeddings, pairs, metric, with_progress=None, gathered=_GATHERED):
    """Return the distances of `pairs`, row numbers `(first, second)`.

    If the pairs are many for the number of items, as all pairs are, float32 embeddings are
    multiplied with each other in float64, a tile at a time; the result has the accuracy of float32.
    Other pairs are measured one by one, `gathered` numbers of each side at a time.
    `with_progress(parts, total)` wraps the loop, for a progress bar.
    """
    with_progress = with_progress or (lambda parts, total: parts)
    few_items = len(embeddings) ** 2 <= _ITEM_PAIRS_PER_PAIR * len(pairs[0])
    if few_items and metric != "manhattan" and _is_safe(embeddings):
        return _from_products(embeddings, pairs, metric, with_progress)
    return _one_by_one(embeddings, pairs, metric, with_progress, gathered)


def _one_by_one(embeddings, pairs, metric, with_progress, gathered=_GATHERED):
    block = max(1, gathered // embeddings.shape[1])
    starts = range(0, len(pairs[0]), block)
    parts = [
        ops.convert_to_numpy(
            distances.elementwise(
                *(embeddings[rows[start : start + block]] for rows in pairs), metric=metric
            )
        )
        for start in with_progress(starts, len(starts))
    ]
    return np.concatenate(parts) if parts else np.zeros(0, "float32")


def _is_safe(embeddings):
    """Return whether float64 products keep float32 accuracy; `distances` scales huge vectors."""
    return embeddings.dtype == np.float32 and np.abs(embeddings).max(initial=0) < 1e12


def _from_products(embeddings, pairs, metric, with_progress):
    first, second = pairs
    size = len(embeddings)
    products = np.empty((size, size))
    mean = np.mean(embeddings, axis=0, dtype="float64") if metric in _SQUARED else 0.0
    tiles = [(i, j) for i in range(0, size, _TILE_ROWS) for j in range(i, size, _TILE_ROWS)]
    for i, j in with_progress(tiles, len(tiles)):
        a = _prepared(embeddings[i : i + _TILE_ROWS], mean, metric)
        b = a if i == j else _prepared(embeddings[j : j + _TILE_ROWS], mean, metric)
        tile = a @ b.T
        products[i : i + _TILE_ROWS, j : j + _TILE_ROWS] = tile
        products[j : j + _TILE_ROWS, i : i + _TILE_ROWS] = tile.T
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
    # The difference of large numbers has few digits for near copies.
    near = first[close], second[close]
    found[close] = _one_by_one(embeddings, near, metric, lambda parts, total: parts)
    return found


def _prepared(rows, mean, metric):
    """Return rows in float64 whose products give the distances of `metric`."""
    rows = rows - np.float64(mean)
    if metric in ("pearson", "snr"):
        rows -= rows.mean(axis=1, keepdims=True)
    return unit_rows(rows) if metric in ("cosine", "pearson") else rows
