"""The ranks of the relevant items of every query, exactly and in bounded memory.

Two methods give the same ranks. If a query has few relevant items, or few ranks are requested, a
rank is the number of items that are closer, which `RankCounter` counts without a sort. If there are
many, the distances of the query are computed in float64 and sorted.
"""

import numpy as np

from keras_metric._block_loops import in_threads, row_blocks, with_progress
from keras_metric.evaluation._rank_counts import RankCounter, RankLimits
from keras_metric.neighbors import HEADROOM, LAST_KEY, ExactDistances, exponent_of, order_keys

_EXCLUDED = LAST_KEY - 1  # even, and behind all others: the key of an item that is not ranked


class Ranking:
    """Iterates over `(queries, ranks, relevant)` of blocks of queries that have a relevant item.

    `queries` are row numbers of the embeddings, in any order. `ranks` is `(queries, most)`, from 1,
    nearest first, infinite beyond `relevant` `(queries,)`, the number of relevant items. With
    `first`, the number of ranks that are needed, columns beyond that many may be missing.

    `queries` and `gallery` are tuples `(embeddings, codes, groups)`: class and group numbers from 0
    that are common to both, groups may be None. Items of a query's class and group are excluded.
    `gallery` may be None: each query against all other queries. With the metric "precomputed" the
    embeddings of the queries are their distances `(queries, items)`, those of the gallery None.
    """

    def __init__(self, queries, gallery, metric, progress=None, first=None, limits=None):
        self.leave_one_out = gallery is None
        self.progress, self.limits = progress, limits or RankLimits()
        self.first = LAST_KEY if first is None else first
        embeddings, codes, groups = queries
        gallery, gallery_codes, gallery_groups = gallery or queries
        sizes = np.bincount(gallery_codes, minlength=codes.max(initial=0) + 1)
        others = sizes - self.leave_one_out
        # Sort items by class, so that a query's positives are one range of columns, and classes
        # with few positives first, so that the queries of a tile have similar numbers of them.
        order = np.argsort(np.where(others > 0, others, LAST_KEY), kind="stable")
        class_rank = np.empty(len(sizes), "int64")
        class_rank[order] = np.arange(len(sizes))
        self.index = np.argsort(class_rank[gallery_codes], kind="stable")
        rows = self.index if self.leave_one_out else np.argsort(class_rank[codes], kind="stable")
        self.rows = rows = rows[others[codes[rows]] > 0]
        self.candidates = others[codes[rows]]  # relevant, unless their group excludes them
        self.relevant, self.groups = self.candidates, None
        if groups is not None:
            self.groups, self.column_groups = groups[rows], gallery_groups[self.index]
            width = 1 + max(groups.max(initial=0), gallery_groups.max(initial=0))
            own = codes[rows] * width + self.groups
            kinds, counts = np.unique(gallery_codes * width + gallery_groups, return_counts=True)
            found = np.minimum(np.searchsorted(kinds, own), len(kinds) - 1)
            hidden = np.where(kinds[found] == own, counts[found], 0)
            self.relevant = sizes[codes[rows]] - hidden
        columns, own = class_rank[gallery_codes[self.index]], class_rank[codes[rows]]
        ends = [np.searchsorted(columns, own, side) for side in ("left", "right")]
        self.ranges = np.stack(ends, axis=1)
        # Counts need the vectors; the distances of a matrix are sorted.
        self.most_counted, self.width = self.limits.most_counted, embeddings.shape[1]
        if metric == "precomputed":
            self.most_counted = 0
            self.distances = _GivenDistances(embeddings, rows, self.index)
            return
        gallery = gallery[self.index]
        queries = gallery if self.leave_one_out else embeddings[rows]
        self.distances = ExactDistances(queries, gallery, metric)

    def __iter__(self):
        for rows, ranks in self._ranks():
            relevant = self.relevant[rows]
            answered = relevant > 0
            if answered.any():
                most = relevant.max()
                yield self.rows[rows][answered], ranks[answered, :most], relevant[answered]

    def _ranks(self):
        """Yield slices of the queries and their ranks, nearest first."""
        total = len(self.candidates)
        few = int(np.searchsorted(self.candidates, self.most_counted, side="right"))
        # The first ranks are those of the nearest positives, which are found inside their class.
        counted = total if self.first <= self.most_counted else few
        if counted:
            rows = slice(0, counted)
            columns, real = self._positives(slice(0, few))
            if counted > few:
                parts = (columns, real), self._nearest_positives(slice(few, counted))
                most = max(columns.shape[1] for columns, _ in parts)
                columns, real = (
                    np.concatenate([np.pad(p, ((0, 0), (0, most - p.shape[1]))) for p in kind])
                    for kind in zip(*parts, strict=True)
                )
            counter = RankCounter(
                *(self.distances, self.index, self.ranges[rows], columns, real),
                *(self.first, self.limits),
            )
            ranks = counter.ranks(self.progress)
            exists = np.arange(ranks.shape[1]) < self.relevant[rows, None]
            yield rows, np.sort(np.where(exists, ranks, np.inf), axis=1)
        if counted == total:
            return
        if self.most_counted:
            self.distances.keep_float64()
        size = self.limits.sorted_numbers // max(len(self.index), self.width)
        blocks = row_blocks(counted, total, size)
        sorted_blocks = in_threads(lambda rows: (rows, self._sorted(rows)), blocks)
        yield from with_progress(sorted_blocks, len(blocks), "ranks", self.progress)

    def _positives(self, rows):
        """Return columns of the rows' own classes, and which of them are relevant."""
        ranges = self.ranges[rows]
        sizes = np.diff(ranges)
        slot = np.arange(sizes.max(initial=0))
        columns = np.minimum(ranges[:, :1] + slot, ranges[:, 1:] - 1)
        real = slot < sizes
        if self.groups is not None:
            # This excludes the query itself too: it is of its own group.
            real &= self.column_groups[columns] != self.groups[rows, None]
        elif self.leave_one_out:
            real &= columns != np.arange(rows.start, rows.stop)[:, None]
        return columns, real

    def _nearest_positives(self, rows):
        """Return the same as `_positives`, of the `first` nearest only."""
        self.distances.keep_float64()
        tops = rows.start + np.flatnonzero(np.diff(self.ranges[rows, 0], prepend=-1))
        blocks = []
        for top, end in zip(tops, [*tops[1:], rows.stop], strict=True):
            size = self.limits.sorted_numbers // int(np.diff(self.ranges[top])[0])
            blocks += row_blocks(top, end, size)
        columns, real = zip(*in_threads(self._nearest_of_class, blocks), strict=True)
        return np.concatenate(columns), np.concatenate(real)

    def _nearest_of_class(self, rows):
        """Return the same for rows of one class."""
        start, stop = self.ranges[rows.start]
        columns = slice(start, stop)
        keys = order_keys(self.distances.block(rows, columns), self.index[columns])
        self._exclude(keys, rows, start)
        # The class of these rows has more than `first` items.
        nearest = np.argpartition(keys, self.first - 1, axis=1)[:, : self.first]
        return start + nearest, np.take_along_axis(keys, nearest, axis=1) != _EXCLUDED

    def _exclude(self, keys, rows, left):
        """Overwrite the keys of items that are not ranked; `left` is the number of column 0."""
        if self.groups is not None:
            for row, number in zip(keys, range(rows.start, rows.stop), strict=True):
                first, last = self.ranges[number]
                same = self.column_groups[first:last] == self.groups[number]
                row[first - left : last - left][same] = _EXCLUDED
        elif self.leave_one_out:
            keys[np.arange(len(keys)), np.arange(rows.start, rows.stop) - left] = _EXCLUDED

    def _sorted(self, rows):
        keys = order_keys(self.distances.block(rows, slice(None)), self.index)
        # Keys are even: an odd key marks a relevant item, also after the sort.
        for row, (first, last) in zip(keys, self.ranges[rows], strict=True):
            row[first:last] |= 1
        self._exclude(keys, rows, 0)
        keys.sort(axis=1)
        return _ranks_of_odd(keys, self.relevant[rows])


class _GivenDistances:
    """The blocks of a matrix whose `rows` and `columns` are in the order of a `Ranking`."""

    def __init__(self, matrix, rows, columns):
        self.matrix, self.rows, self.columns = matrix, rows, columns
        # float64 holds distances beyond float32; a power of two changes no order and no tie.
        self.exponent = HEADROOM - exponent_of(matrix) if matrix.dtype == "float64" else 0

    def block(self, rows, columns):
        part = self.matrix[np.ix_(self.rows[rows], self.columns[columns])]
        return np.ldexp(part, self.exponent)


def _ranks_of_odd(keys, relevant):
    """Return the ranks of the odd keys of each row, infinite beyond `relevant` `(rows,)`."""
    ranks = np.full((len(keys), max(1, relevant.max())), np.inf)
    found = np.flatnonzero((keys & 1).astype(bool))
    ranks[np.arange(ranks.shape[1]) < relevant[:, None]] = found % keys.shape[1] + 1.0
    return ranks
