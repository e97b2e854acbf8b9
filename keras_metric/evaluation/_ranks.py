"""The ranks of the relevant items of every query, exactly and in bounded memory.

Two ways give the same ranks. Where a query has few relevant items, or few ranks are asked for, the
rank of one is the number of items closer to the query, which `Counter` counts without a sort. Where
they are many, its row is measured in float64 and sorted.
"""

import numpy as np

from keras_metric.evaluation._counting import NOWHERE, Counter, in_threads
from keras_metric.evaluation._distances import Geometry, order_keys
from keras_metric.evaluation._progress import watched

MOST_COUNTED = 32  # ranks of a query; with more of them a sort is cheaper than the counts
_MOST_SORTED = 1 << 20  # numbers in a block that is sorted: 8 MB in float64
_PASSED = NOWHERE - 1  # even, and behind all others: an item that is as if it were not there


class Ranking:
    """Iterates over `(queries, ranks, relevant)` of blocks of queries that have a relevant item.

    `queries` are row numbers of the embeddings, in free order. `ranks` is `(queries, most)`, from
    1 up, nearest first, infinite beyond `relevant` `(queries,)`, the number of relevant items.
    With `first`, columns beyond that many may be missing.

    Args:
        embeddings: `(queries, dim)`.
        codes: `(queries,)` class numbers from 0 up.
        gallery: `(items, dim)`, or None: each query against all other queries.
        gallery_codes: `(items,)`, numbered together with `codes`.
        metric: One of `METRICS`.
        groups: `(queries,)` group numbers from 0 up, or None. Items of a query's class and group
            are as if they were not there.
        gallery_groups: `(items,)`, numbered together with `groups`.
        progress: See `watched`.
        first: How many ranks of each query are needed, or None for all of them.
    """

    def __init__(
        self,
        embeddings,
        codes,
        gallery,
        gallery_codes,
        metric,
        groups=None,
        gallery_groups=None,
        progress=None,
        first=None,
    ):
        self.alone = gallery is None
        self.progress = progress
        self.first = NOWHERE if first is None else first
        if self.alone:
            gallery, gallery_codes, gallery_groups = embeddings, codes, groups
        sizes = np.bincount(gallery_codes, minlength=codes.max(initial=0) + 1)
        others = sizes - self.alone
        # Classes lie side by side, so that a query's positives are one range of columns; those
        # with few positives come first, so that the queries of a tile have about as many.
        place = np.empty(len(sizes), "int64")
        place[np.argsort(np.where(others > 0, others, NOWHERE), kind="stable")] = np.arange(
            len(sizes)
        )
        self.index = np.argsort(place[gallery_codes], kind="stable")
        rows = self.index if self.alone else np.argsort(place[codes], kind="stable")
        self.rows = rows = rows[others[codes[rows]] > 0]
        self.candidates = others[codes[rows]]  # relevant but for their group
        self.relevant, self.groups = self.candidates, None
        if groups is not None:
            self.groups, self.column_groups = groups[rows], gallery_groups[self.index]
            width = 1 + max(groups.max(initial=0), gallery_groups.max(initial=0))
            mine, theirs = codes[rows] * width + self.groups, gallery_codes * width + gallery_groups
            kinds, counts = np.unique(theirs, return_counts=True)
            found = np.minimum(np.searchsorted(kinds, mine), len(kinds) - 1)
            hidden = np.where(kinds[found] == mine, counts[found], 0)
            self.relevant = sizes[codes[rows]] - hidden
        columns = place[gallery_codes[self.index]]
        ends = [np.searchsorted(columns, place[codes[rows]], side) for side in ("left", "right")]
        self.ranges = np.stack(ends, axis=1)
        gallery = gallery[self.index]
        self.geometry = Geometry(gallery if self.alone else embeddings[rows], gallery, metric)

    def __iter__(self):
        for rows, ranks in self._ranks():
            relevant = self.relevant[rows]
            answered = relevant > 0
            if answered.any():
                most = relevant.max()
                yield self.rows[rows][answered], ranks[answered, :most], relevant[answered]

    def _ranks(self):
        """Yield slices of the queries and their ranks, nearest first."""
        few = int(np.searchsorted(self.candidates, MOST_COUNTED, side="right"))
        # A few ranks of many are those of the nearest positives, which are found in their class.
        counted = len(self.candidates) if self.first <= MOST_COUNTED else few
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
            ranges = self.ranges[rows]
            counter = Counter(self.geometry, self.index, ranges, columns, real, self.first)
            ranks = counter.ranks(self.progress)
            there = np.arange(ranks.shape[1]) < self.relevant[rows, None]
            yield rows, np.sort(np.where(there, ranks, np.inf), axis=1)
        if counted == len(self.candidates):
            return
        self.geometry.keep_exact()
        step = max(1, _MOST_SORTED // max(len(self.index), self.geometry.raw_gallery.shape[1]))
        starts = range(counted, len(self.candidates), step)
        blocks = [slice(start, min(start + step, len(self.candidates))) for start in starts]
        sorted_blocks = in_threads(lambda rows: (rows, self._sorted(rows)), blocks)
        yield from watched(sorted_blocks, len(blocks), "ranks", self.progress)

    def _positives(self, rows):
        """Return columns of the rows' own classes, and which of them are relevant."""
        candidates = self.candidates[rows, None]
        most = candidates.max(initial=0)
        if self.groups is not None:
            slot = np.arange(most + self.alone)
            columns = np.minimum(self.ranges[rows, :1] + slot, self.ranges[rows, 1:] - 1)
            # Of its own group is also the query itself.
            other = self.column_groups[columns] != self.groups[rows, None]
            return columns, other & (slot < candidates + self.alone)
        slot = np.arange(most)
        columns = self.ranges[rows, :1] + slot
        if self.alone:
            columns += columns >= np.arange(rows.start, rows.stop)[:, None]
        real = slot < candidates
        return np.where(real, columns, 0), real

    def _nearest_positives(self, rows):
        """Return the same as `_positives`, of the `first` nearest alone."""
        self.geometry.keep_exact()
        tops = rows.start + np.flatnonzero(np.diff(self.ranges[rows, 0], prepend=-1))
        blocks = []
        for top, end in zip(tops, [*tops[1:], rows.stop], strict=True):
            step = max(1, _MOST_SORTED // int(np.diff(self.ranges[top])[0]))
            blocks += [slice(at, min(at + step, end)) for at in range(top, end, step)]
        columns, real = zip(*in_threads(self._nearest_of_class, blocks), strict=True)
        return np.concatenate(columns), np.concatenate(real)

    def _nearest_of_class(self, rows):
        """Return the same for rows of one class."""
        start, stop = self.ranges[rows.start]
        columns = slice(start, stop)
        keys = order_keys(self.geometry.block(rows, columns), self.index[columns])
        self._pass_over(keys, rows, start)
        # A class of these rows is larger than `first`.
        nearest = np.argpartition(keys, self.first - 1, axis=1)[:, : self.first]
        return start + nearest, np.take_along_axis(keys, nearest, axis=1) != _PASSED

    def _pass_over(self, keys, rows, left):
        """Mark what a query is not asked for in `keys`, whose first column is number `left`."""
        if self.groups is not None:
            for row, number in zip(keys, range(rows.start, rows.stop), strict=True):
                first, last = self.ranges[number]
                same = self.column_groups[first:last] == self.groups[number]
                row[first - left : last - left][same] = _PASSED
        elif self.alone:
            keys[np.arange(len(keys)), np.arange(rows.start, rows.stop) - left] = _PASSED

    def _sorted(self, rows):
        keys = order_keys(self.geometry.block(rows, slice(None)), self.index)
        # Keys are even: an odd one says that its item is relevant, also after the sort.
        for row, (first, last) in zip(keys, self.ranges[rows], strict=True):
            row[first:last] |= 1
        self._pass_over(keys, rows, 0)
        keys.sort(axis=1)
        relevant = self.relevant[rows]
        ranks = np.full((len(keys), max(1, relevant.max())), np.inf)
        found = np.flatnonzero((keys & 1).astype(bool))
        ranks[np.arange(ranks.shape[1]) < relevant[:, None]] = found % keys.shape[1] + 1.0
        return ranks
