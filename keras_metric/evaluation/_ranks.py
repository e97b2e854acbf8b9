"""The ranks of the relevant items of every query, exactly and in bounded memory.

Two ways give the same ranks. Where a query has few relevant items, the rank of one is the
number of items closer to the query, which `Counter` counts without a sort. Where it has many,
its row is measured in float64 and sorted.
"""

import numpy as np

from keras_metric.evaluation._counting import NOWHERE, Counter, in_threads
from keras_metric.evaluation._distances import Geometry, order_keys

MOST_COUNTED = 32  # relevant items; with more of them a sort is cheaper than the counts
_MOST_SORTED = 1 << 20  # numbers in a block that is sorted: 8 MB in float64


class Ranking:
    """Iterates over `(ranks, relevant)` of blocks of queries that have a relevant item.

    `ranks` is `(queries, most)`, from 1 up, nearest first, infinite beyond `relevant`
    `(queries,)`, the number of relevant items. The order of the queries is free.

    Args:
        embeddings: `(queries, dim)`.
        codes: `(queries,)` class numbers from 0 up.
        gallery: `(items, dim)`, or None: each query against all other queries.
        gallery_codes: `(items,)`, numbered together with `codes`.
        metric: One of `METRICS`.
    """

    def __init__(self, embeddings, codes, gallery, gallery_codes, metric):
        self.alone = gallery is None
        if self.alone:
            gallery, gallery_codes = embeddings, codes
        sizes = np.bincount(gallery_codes, minlength=codes.max(initial=0) + 1) - self.alone
        # Classes lie side by side, so that a query's positives are one range of columns; those
        # with few positives come first, so that the queries of a tile have about as many.
        place = np.empty(len(sizes), "int64")
        place[np.argsort(np.where(sizes > 0, sizes, NOWHERE), kind="stable")] = np.arange(
            len(sizes)
        )
        self.index = np.argsort(place[gallery_codes], kind="stable")
        rows = self.index if self.alone else np.argsort(place[codes], kind="stable")
        rows = rows[sizes[codes[rows]] > 0]
        self.relevant = sizes[codes[rows]]
        columns = place[gallery_codes[self.index]]
        ends = [np.searchsorted(columns, place[codes[rows]], side) for side in ("left", "right")]
        self.ranges = np.stack(ends, axis=1)
        gallery = gallery[self.index]
        self.geometry = Geometry(gallery if self.alone else embeddings[rows], gallery, metric)

    def __iter__(self):
        counted = int(np.searchsorted(self.relevant, MOST_COUNTED, side="right"))
        if counted:
            rows = slice(0, counted)
            columns, real = self._positives(rows)
            ranks = Counter(self.geometry, self.index, self.ranges[rows], columns, real).ranks()
            yield np.sort(np.where(real, ranks, np.inf), axis=1), self.relevant[rows]
        if counted == len(self.relevant):
            return
        self.geometry.keep_exact()
        step = max(1, _MOST_SORTED // len(self.index))
        starts = range(counted, len(self.relevant), step)
        blocks = (slice(start, min(start + step, len(self.relevant))) for start in starts)
        yield from in_threads(self._sorted, blocks)

    def _positives(self, rows):
        """Return the columns of the rows' positives, without self, and which of them are real."""
        relevant = self.relevant[rows, None]
        slot = np.arange(relevant.max())
        columns = self.ranges[rows, :1] + slot
        if self.alone:
            columns += columns >= np.arange(rows.start, rows.stop)[:, None]
        real = slot < relevant
        return np.where(real, columns, 0), real

    def _sorted(self, rows):
        keys = order_keys(self.geometry.block(rows, slice(None)), self.index)
        # Keys are even: an odd one says that its item is relevant, also after the sort.
        for row, (first, last) in zip(keys, self.ranges[rows], strict=True):
            row[first:last] |= 1
        if self.alone:
            keys[np.arange(len(keys)), np.arange(rows.start, rows.stop)] = NOWHERE - 1
        keys.sort(axis=1)
        relevant = self.relevant[rows]
        ranks = np.full((len(keys), relevant.max()), np.inf)
        found = np.flatnonzero((keys & 1).astype(bool))
        ranks[np.arange(ranks.shape[1]) < relevant[:, None]] = found % keys.shape[1] + 1.0
        return ranks, relevant
