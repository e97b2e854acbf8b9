"""Ranks by counting: how many items come before each relevant one, from one float32 product.

An item that the product cannot place for certain is measured again in float64, so the counts
are exact.
"""

import collections
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from keras_metric.evaluation._distances import order_keys
from keras_metric.evaluation._progress import watched

# A tile, one product: 8 MB of float32. NumPy compares rows of more than 4,096 numbers three times
# faster than shorter ones, which it copies first; 8,160 is 32 * 255, see `_tally`.
_ROWS, _COLUMNS = 256, 8160
_STRIP = 64  # rows of a tile that stay in the cache while they are compared again and again
_MOST_DOUBTS = 1 / 32  # of a tile; beyond it, measuring the whole tile in float64 is cheaper
_FEW = 1 / 16  # of a tile; so few survivors are cheaper as a list
NOWHERE = np.iinfo("int64").max


class Counter:
    """Counts for the positives of the first rows of a sorted table.

    The positives of a query are kept farthest first: an item that is not before the farthest is
    before none of them, so that after one look at a tile few items are left in most cases.

    Args:
        geometry: A `Geometry`.
        index: `(items,)` place of each column in the caller's order; it breaks ties.
        ranges: `(queries, 2)` first and last column of each query's own class.
        columns: `(queries, most)` the columns of the positives.
        real: `(queries, most)` which of these there are.
        first: Count for no more than so many of a query's positives, its nearest.
    """

    def __init__(self, geometry, index, ranges, columns, real, first):
        self.geometry, self.index, self.ranges = geometry, index, ranges
        there = real.sum(axis=1)
        self.per_query = np.minimum(there, first)
        query, slot = np.nonzero(real)
        distances = np.zeros(real.shape)
        distances[query, slot] = geometry.paired(query, columns[query, slot])
        keys = np.where(real, order_keys(distances, index[columns]), -1 - NOWHERE)
        order = np.argsort(keys, axis=1)[:, ::-1]
        if first < order.shape[1]:
            # The places of a row that holds fewer than `first` stay as they are: of no item.
            skipped = np.maximum(there - first, 0)[:, None]
            order = np.take_along_axis(order, skipped + np.arange(first), axis=1)
        self.keys = np.take_along_axis(keys, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        close = geometry.threshold(distances)
        close[self.keys == -1 - NOWHERE] = np.inf
        slack = geometry.slack[: len(real), None]
        # One row for each place, since a comparison takes the thresholds of one place.
        self.surely = np.ascontiguousarray((close + slack).T, "float32")
        self.perhaps = np.ascontiguousarray((close - slack).T, "float32")
        self.before = np.zeros(order.shape, "int64")
        self.lock = threading.Lock()

    def ranks(self, progress=None):
        """Return the ranks `(queries, most)` of the positives, from 1 up, farthest first."""
        queries, items = len(self.keys), len(self.index)
        tiles = [
            (slice(top, min(top + _ROWS, queries)), slice(left, min(left + _COLUMNS, items)))
            for top in range(0, queries, _ROWS)
            # Leave-one-out measures a pair once and counts it for both of its ends.
            for left in range(top if self.geometry.same else 0, items, _COLUMNS)
        ]
        for _ in watched(in_threads(self._visit, tiles), len(tiles), "ranks", progress):
            pass
        return self.per_query[:, None] - np.arange(self.keys.shape[1]) + self.before

    def _visit(self, tile):
        rows, columns = tile
        close = self.geometry.closeness(rows, columns)
        self._hide(close, rows, columns, -np.inf)
        self._count(close, rows, columns, 0)
        others = slice(max(columns.start, rows.stop), min(columns.stop, len(self.keys)))
        if self.geometry.same and others.start < others.stop:
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
        """Add what a tile says of `queries`, which lie along `axis`, and `items`."""
        most = self.per_query[queries].max()
        before = np.zeros((queries.stop - queries.start, most), "int64")
        doubts, left = [], _MOST_DOUBTS * close.size
        # As wide as a tile, so that rows are whole words; what lies beyond `close` stays False.
        flags = np.zeros((2, _STRIP, _COLUMNS), bool)
        for top in range(0, len(close), _STRIP):
            strip = close[top : top + _STRIP]
            lines = slice(top, top + len(strip))
            mine = lines if axis == 0 else slice(None)
            bounds = (bound[:, queries][:most, mine] for bound in (self.surely, self.perhaps))
            for place, slot in _look(strip, *bounds, axis, before[mine], flags[:, : len(strip)]):
                place[0] += top
                doubts.append((place[axis], place[1 - axis], np.full(len(place[0]), slot)))
                left -= len(place[0])
            if left < 0:
                before = self._measure_tile(queries, items, most)
                doubts = []
                break
        if doubts:
            query, item, slot = np.concatenate(doubts, axis=1)
            keys = self._measure_pairs(query + queries.start, item + items.start)
            ahead = keys < self.keys[query + queries.start, slot]
            np.add.at(before, (query[ahead], slot[ahead]), 1)
        with self.lock:
            self.before[queries, :most] += before

    def _measure_pairs(self, query, item):
        # Positives of one query lie close together and doubt the same items.
        pairs, where = np.unique(query * len(self.index) + item, return_inverse=True)
        query, item = np.divmod(pairs, len(self.index))
        return order_keys(self.geometry.paired(query, item), self.index[item])[where]

    def _measure_tile(self, queries, items, most):
        keys = order_keys(self.geometry.block(queries, items), self.index[items])
        self._hide(keys, queries, items, NOWHERE)
        wanted = self.keys[queries, :most]
        return np.stack([(keys < wanted[:, slot, None]).sum(axis=1) for slot in range(most)], 1)


def _look(close, surely, perhaps, axis, before, flags):
    """Add to `before` `(queries, slots)` what is sure; yield what is in doubt, with its slot.

    `surely` and `perhaps` are `(slots, queries)`, farthest positives first.
    """
    sure, maybe = flags
    inside = slice(0, close.shape[1])
    few = values = None
    for slot in range(before.shape[1]):
        if few is not None:
            # Nothing that fails here is before a nearer positive.
            may = np.flatnonzero(values >= perhaps[slot][few[axis]])
            few, values = [few[0][may], few[1][may]], values[may]
        else:
            bounds = surely[slot], perhaps[slot]
            if axis == 0:
                bounds = bounds[0][:, None], bounds[1][:, None]
            np.greater_equal(close, bounds[1], out=maybe[:, inside])
            if np.count_nonzero(maybe) < _FEW * close.size:
                few = np.divmod(np.flatnonzero(maybe), _COLUMNS)
                values = close[few]
        if few is not None:
            ahead = values > surely[slot][few[axis]]
            before[:, slot] += np.bincount(few[axis][ahead], minlength=len(before))
            near = np.flatnonzero(~ahead)
            place = [few[0][near], few[1][near]]
        else:
            np.greater(close, bounds[0], out=sure[:, inside])
            before[:, slot] += _tally(sure, 1 - axis)[: len(before)]
            place = _differences(sure, maybe)
        if len(place[0]):
            yield place, slot


class _BlasLimit:
    """Context in which BLAS uses one thread, in the whole process.

    Evaluations in several threads overlap. The last one to end lifts the limit: each restoring what
    it found would leave the process with the limit of another one.
    """

    def __init__(self):
        self.lock, self.inside, self.limit = threading.Lock(), 0, None

    def __enter__(self):
        with self.lock:
            if not self.inside:
                self.limit = threadpool_limits(1, "blas")
            self.inside += 1

    def __exit__(self, *error):
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.limit.restore_original_limits()


_ONE_BLAS_THREAD = _BlasLimit()


def in_threads(function, parts):
    """Yield `function(part)` for all parts, in order, one thread a core.

    A matrix product uses all cores by itself, but what comes after it does not; and products
    that do, inside threads, spend a third of the time waiting for each other.
    """
    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, _ONE_BLAS_THREAD:
        waiting = collections.deque()
        for part in parts:
            waiting.append(pool.submit(function, part))
            # What is finished and not yet taken needs memory as well.
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _tally(flags, axis):
    """Sum booleans along `axis`, ten times faster than `flags.sum`.

    Eight neighbours are added in one 64-bit word, a byte each; 255 such words cannot overflow.
    """
    if axis == 1:
        words = flags.view("uint64").reshape(len(flags), -1, 255).sum(axis=2)
        return words.view("uint8").sum(axis=1, dtype="int64")
    return flags.view("uint8").sum(axis=0, dtype="uint8")


def _differences(first, second):
    """Return the rows and columns where two tiles of booleans differ, eight at a time."""
    words = np.flatnonzero(first.view("uint64") != second.view("uint64"))
    flat = (8 * words[:, None] + np.arange(8)).ravel()
    flat = flat[first.reshape(-1)[flat] != second.reshape(-1)[flat]]
    return list(np.divmod(flat, _COLUMNS))
