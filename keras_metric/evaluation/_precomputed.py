"""The ranks of the relevant items in a matrix of distances that somebody else measured."""

import numpy as np

from keras_metric.evaluation._counting import NOWHERE, in_threads
from keras_metric.evaluation._distances import HEADROOM, exponent_of, order_keys
from keras_metric.evaluation._progress import watched

_MOST = 1 << 20  # numbers in a block


class PrecomputedRanking:
    """Iterates as `Ranking` does, over the rows of `distances` `(queries, items)`.

    Args:
        distances: `(queries, items)`.
        codes: `(queries,)` class numbers from 0 up.
        gallery_codes: `(items,)`, numbered together with `codes`, or None: the queries themselves.
        groups: `(queries,)`, and
        gallery_groups: `(items,)`, or None, as in `Ranking`.
        progress: See `watched`.
    """

    def __init__(self, distances, codes, gallery_codes, groups, gallery_groups, progress):
        self.alone = gallery_codes is None
        self.distances, self.codes, self.groups, self.progress = distances, codes, groups, progress
        # float64 holds distances beyond float32; a power of two changes no order and no tie.
        self.exponent = HEADROOM - exponent_of(distances) if distances.dtype == "float64" else 0
        self.item_codes = codes if self.alone else gallery_codes
        self.item_groups = groups if self.alone else gallery_groups

    def __iter__(self):
        queries, items = self.distances.shape
        step = max(1, _MOST // max(1, items))
        blocks = [slice(start, min(start + step, queries)) for start in range(0, queries, step)]
        parts = in_threads(self._sorted, blocks)
        for rows, keys in watched(parts, len(blocks), "ranks", self.progress):
            relevant = (keys & 1).sum(axis=1)
            answered = relevant > 0
            if not answered.any():
                continue
            keys, relevant = keys[answered], relevant[answered]
            ranks = np.full((len(keys), relevant.max()), np.inf)
            found = np.nonzero(keys & 1)[1]
            ranks[np.arange(ranks.shape[1]) < relevant[:, None]] = found + 1.0
            yield np.arange(rows.start, rows.stop)[answered], ranks, relevant

    def _sorted(self, rows):
        keys = order_keys(
            np.ldexp(self.distances[rows], self.exponent), np.arange(len(self.item_codes))
        )
        same = self.codes[rows, None] == self.item_codes
        hidden = np.zeros_like(same)
        if self.groups is not None:
            hidden = same & (self.groups[rows, None] == self.item_groups)
        if self.alone:
            hidden[np.arange(len(keys)), np.arange(rows.start, rows.stop)] = True
        # Keys are even: an odd one says that its item is relevant, also after the sort.
        keys |= same
        keys[hidden] = NOWHERE - 1
        return rows, np.sort(keys, axis=1)
