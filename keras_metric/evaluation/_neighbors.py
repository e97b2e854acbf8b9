"""The nearest items of every query, exactly, in blocks."""

import numpy as np

from keras_metric.evaluation._counting import NOWHERE, in_threads
from keras_metric.evaluation._distances import order_keys
from keras_metric.evaluation._progress import watched

_MOST = 1 << 20  # numbers in a block


def key_blocks(geometry, what, progress=None):
    """Yield `(rows, keys)` with the `order_keys` `(rows, items)` of a block of queries to all."""
    items = len(geometry.gallery)
    index = np.arange(items)
    geometry.keep_exact()
    # A block is as wide as its distances, or as the queries themselves.
    step = max(1, _MOST // max(items, geometry.raw_gallery.shape[1]))
    queries = len(geometry.queries)
    blocks = [slice(start, min(start + step, queries)) for start in range(0, queries, step)]

    def keys(rows):
        return rows, order_keys(geometry.block(rows, slice(None)), index)

    yield from watched(in_threads(keys, blocks), len(blocks), what, progress)


def nearest_keys(keys, rows, k, without_self):
    """Return the `k` smallest of each row of `keys`, in order; `rows` are the queries' numbers."""
    if without_self:
        keys[np.arange(len(keys)), np.arange(rows.start, rows.stop)] = NOWHERE
    if k < keys.shape[1]:
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    return np.sort(keys, axis=1)
