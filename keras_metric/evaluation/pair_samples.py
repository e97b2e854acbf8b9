"""Pairs sampled from labelled items, and the distances of pairs."""

import numpy as np
from keras import ops

from keras_metric import distances
from keras_metric._block_loops import row_blocks, with_progress
from keras_metric.neighbors import METRICS_WITH_UNITS, ExactDistances

_GATHERED = 2**22  # numbers gathered at a time, for each side of the pairs
_TILE_ROWS = 256  # multiplied with all items at a time
# A product of all items with all takes as long as this many times fewer pairs one by one.
_ITEM_PAIRS_PER_PAIR = 16


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


def measure(embeddings, pairs, metric, progress=False):
    """Return the distances of `pairs`, row numbers `(first, second)`.

    If the pairs are many for the number of items, as all pairs are, the distances of float32
    embeddings are picked from those of all items. Other pairs are measured one by one.
    """
    first, second = pairs
    few_items = len(embeddings) ** 2 <= _ITEM_PAIRS_PER_PAIR * len(first)
    if few_items and metric in METRICS_WITH_UNITS and embeddings.dtype == np.float32:
        measured = ExactDistances(embeddings, embeddings, metric)
        blocks = row_blocks(0, len(embeddings), _TILE_ROWS)
        table = np.empty((len(embeddings), len(embeddings)), "float32")
        for rows in with_progress(blocks, len(blocks), "pairs", progress):
            table[rows] = measured.block(rows, slice(None))
        return measured.in_units(table[first, second]).astype("float32")
    blocks = row_blocks(0, len(first), _GATHERED // embeddings.shape[1])
    parts = [np.zeros(0, "float32")]
    for block in with_progress(blocks, len(blocks), "pairs", progress):
        part = distances.elementwise(embeddings[first[block]], embeddings[second[block]], metric)
        parts.append(ops.convert_to_numpy(part))
    return np.concatenate(parts)
