"""Ranks by counting: how many items are closer than each relevant one, from one float32 product.

Items whose order the product cannot decide are compared again in float64, so counts are exact.
"""

import threading
from typing import NamedTuple

import numpy as np

from keras_metric._block_loops import in_threads, with_progress
from keras_metric.neighbors import LAST_KEY, order_keys

_TILE_ROWS = 256
_STRIP_ROWS = 64  # of a tile; they stay in the cache while they are compared repeatedly
_NO_KEY = -1 - LAST_KEY


class RankLimits(NamedTuple):
    """Limits between the methods that compute ranks; the ranks do not depend on them.

    `most_counted`: ranks of a query; for more of them a sort is faster than counts.
    `sorted_numbers`: distances in a block that is sorted, 8 MB in float64.
    `tile_columns`: of one product, a multiple of 2,040 (see `_sum_flags`): 8 MB of float32. NumPy
        compares rows of more than 4,096 numbers three times faster than shorter ones.
    `most_listed`: fraction of a tile; fewer candidates are processed as a list.
    `most_undecided`: fraction of a tile; for more pairs a float64 product of the tile is faster.
    """

    most_counted: int = 32
    sorted_numbers: int = 1 << 20
    tile_columns: int = 8160
    most_listed: float = 1 / 16
    most_undecided: float = 1 / 32


class RankCounter:
    """Ranks of the positives of the first rows of a table that is sorted by class.

    The positives of a query are kept farthest first: an item that is not closer than the farthest
    is not closer than any other, so few items of a tile remain after the first comparison.

    `index` `(items,)` is the position of each column in the caller's order, which breaks ties.
    `ranges` `(queries, 2)` is the first and the last column of each query's own class, `columns`
    `(queries, most)` those of its positives where `real`; the nearest `first` of these are ranked.
    """

    def __init__(self, distances, index, ranges, columns, real, first, limits):
        self.distances, self.index, self.ranges = distances, index, ranges
        self.limits = limits
        num_real = real.sum(axis=1)
        self.per_query = np.minimum(num_real, first)
        query, slot = np.nonzero(real)
        measured = np.zeros(real.shape)
        measured[query, slot] = distances.paired(query, columns[query, slot])
        keys = np.where(real, order_keys(measured, index[columns]), _NO_KEY)
        order = np.argsort(keys, axis=1)[:, ::-1]
        if first < order.shape[1]:
            # Rows with fewer than `first` positives keep slots without an item.
            skipped = np.maximum(num_real - first, 0)[:, None]
            order = np.take_along_axis(order, skipped + np.arange(first), axis=1)
        self.keys = np.take_along_axis(keys, order, axis=1)
        close = distances.threshold(np.take_along_axis(measured, order, axis=1))
        close[self.keys == _NO_KEY] = np.inf
        error = distances.max_error[: len(real), None]
        # One row for each slot, since a comparison uses the thresholds of one slot.
        self.surely = np.ascontiguousarray((close + error).T, "float32")
        self.perhaps = np.ascontiguousarray((close - error).T, "float32")
        self.before = np.zeros(order.shape, "int64")
        self.lock = threading.Lock()

    def ranks(self, progress=None):
        """Return the ranks `(queries, most)` of the positives, from 1, farthest first."""
        queries, items = len(self.keys), len(self.index)
        step = self.limits.tile_columns
        tiles = [
            (slice(top, min(top + _TILE_ROWS, queries)), slice(left, min(left + step, items)))
            for top in range(0, queries, _TILE_ROWS)
            # Leave-one-out computes each pair once and counts it for both items.
            for left in range(top if self.distances.same else 0, items, step)
        ]
        for _ in with_progress(in_threads(self._visit, tiles), len(tiles), "ranks", progress):
            pass
        return self.per_query[:, None] - np.arange(self.keys.shape[1]) + self.before

    def _visit(self, tile):
        rows, columns = tile
        close = self.distances.closeness(rows, columns)
        self._hide(close, rows, columns, -np.inf)
        self._count(close, rows, columns, 0)
        others = slice(max(columns.start, rows.stop), min(columns.stop, len(self.keys)))
        if self.distances.same and others.start < others.stop:
            part = slice(others.start - columns.start, others.stop - columns.start)
            self._count(close[:, part], others, rows, 1)

    def _hide(self, tile, rows, columns, value):
        """Overwrite the items of each query's own class: only the others are counted."""
        ranges = self.ranges[rows]
        starts = np.flatnonzero(np.diff(ranges[:, 0], prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(tile)], strict=True):
            first, last = np.maximum(ranges[start] - columns.start, 0)
            tile[start:stop, first:last] = value

    def _count(self, close, queries, items, axis):
        """Add the counts of a tile: `queries` lie along `axis`, `items` along the other axis."""
        most = self.per_query[queries].max()
        before = np.zeros((queries.stop - queries.start, most), "int64")
        undecided, remaining = [], self.limits.most_undecided * close.size
        # As wide as a full tile, so that rows are whole words; columns beyond `close` stay False.
        flags = np.zeros((2, _STRIP_ROWS, self.limits.tile_columns), bool)
        for top in range(0, len(close), _STRIP_ROWS):
            strip = close[top : top + _STRIP_ROWS]
            lines = slice(top, top + len(strip))
            own = lines if axis == 0 else slice(None)
            bounds = (bound[:, queries][:most, own] for bound in (self.surely, self.perhaps))
            compared = _compare(
                strip, *bounds, axis, before[own], flags[:, : len(strip)], self.limits.most_listed
            )
            for pair, slot in compared:
                pair[0] += top
                undecided.append((pair[axis], pair[1 - axis], np.full(len(pair[0]), slot)))
                remaining -= len(pair[0])
            if remaining < 0:
                before = self._count_in_float64(queries, items, most)
                undecided = []
                break
        if undecided:
            query, item, slot = np.concatenate(undecided, axis=1)
            keys = self._pair_keys(query + queries.start, item + items.start)
            closer = keys < self.keys[query + queries.start, slot]
            np.add.at(before, (query[closer], slot[closer]), 1)
        with self.lock:
            self.before[queries, :most] += before

    def _pair_keys(self, query, item):
        # The positives of a query are close together: several of them need the same pairs.
        pairs, position = np.unique(query * len(self.index) + item, return_inverse=True)
        query, item = np.divmod(pairs, len(self.index))
        return order_keys(self.distances.paired(query, item), self.index[item])[position]

    def _count_in_float64(self, queries, items, most):
        keys = order_keys(self.distances.block(queries, items), self.index[items])
        self._hide(keys, queries, items, LAST_KEY)
        own = self.keys[queries, :most]
        return np.stack([(keys < own[:, slot, None]).sum(axis=1) for slot in range(most)], 1)


def _compare(close, surely, perhaps, axis, before, flags, most_listed):
    """Add certain counts to `before` `(queries, slots)`; yield undecided pairs with their slot.

    `surely` and `perhaps` are `(slots, queries)`, farthest positives first.
    """
    sure, maybe = flags
    inside = slice(0, close.shape[1])
    listed = values = None
    for slot in range(before.shape[1]):
        if listed is not None:
            # An item that fails here is not closer than a nearer positive either.
            kept = np.flatnonzero(values >= perhaps[slot][listed[axis]])
            listed, values = [listed[0][kept], listed[1][kept]], values[kept]
        else:
            bounds = surely[slot], perhaps[slot]
            if axis == 0:
                bounds = bounds[0][:, None], bounds[1][:, None]
            np.greater_equal(close, bounds[1], out=maybe[:, inside])
            if np.count_nonzero(maybe) < most_listed * close.size:
                listed = np.divmod(np.flatnonzero(maybe), maybe.shape[1])
                values = close[listed]
        if listed is not None:
            closer = values > surely[slot][listed[axis]]
            before[:, slot] += np.bincount(listed[axis][closer], minlength=len(before))
            near = np.flatnonzero(~closer)
            pair = [listed[0][near], listed[1][near]]
        else:
            np.greater(close, bounds[0], out=sure[:, inside])
            before[:, slot] += _sum_flags(sure, 1 - axis)[: len(before)]
            pair = list(np.divmod(np.flatnonzero(sure != maybe), maybe.shape[1]))
        if len(pair[0]):
            yield pair, slot


def _sum_flags(flags, axis):
    """Sum booleans along `axis`, ten times faster than `flags.sum`.

    Eight neighbours are added in one 64-bit word, a byte each; 255 such words cannot overflow.
    """
    if axis == 1:
        words = flags.view("uint64").reshape(len(flags), -1, 255).sum(axis=2)
        return words.view("uint8").sum(axis=1, dtype="int64")
    return flags.view("uint8").sum(axis=0, dtype="uint8")
