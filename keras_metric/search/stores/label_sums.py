"""Sums of the vectors of each label, kept up to date once somebody asked for centroids."""

import threading

import numpy as np

from keras_metric.search.stores.vectors import BLOCK


class LabelSums:
    """One float64 sum and one count for each label code."""

    def __init__(self, dim):
        self._dim = dim
        self._sums = None
        self._counts = None
        # Readers ask at the same time; changes have the index for themselves.
        self._first = threading.Lock()

    def of(self, codes, vectors):
        """The codes that have items, their sums and counts; `codes, vectors` are all the rows."""
        with self._first:
            if self._sums is None:
                whole = LabelSums(self._dim)
                whole._sums, whole._counts = np.zeros((0, self._dim)), np.zeros(0, "int64")
                for start in range(0, len(codes), BLOCK):
                    whole.add(codes[start : start + BLOCK], vectors[start : start + BLOCK])
                self._sums, self._counts = whole._sums, whole._counts
        present = np.flatnonzero(self._counts)
        return present, self._sums[present], self._counts[present]

    def add(self, codes, vectors):
        if self._sums is None or not len(codes):
            return
        size = int(codes.max()) + 1
        if size > len(self._counts):
            # Twice the room: one new label at a time must not copy all the others each time.
            room = max(size, 2 * len(self._counts)) - len(self._counts)
            self._sums = np.concatenate([self._sums, np.zeros((room, self._dim))])
            self._counts = np.concatenate([self._counts, np.zeros(room, "int64")])
        order = np.argsort(codes, kind="stable")
        present, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
        self._sums[present] += np.add.reduceat(vectors[order].astype("float64"), starts)
        self._counts[present] += counts

    def keep(self, codes):
        """Number the labels again: the one of `codes[n]` gets the code `n`, all others go."""
        if self._sums is not None:
            self._sums, self._counts = self._sums[codes], self._counts[codes]

    def subtract(self, code, vector):
        if self._sums is None:
            return
        self._counts[code] -= 1
        if self._counts[code]:
            self._sums[code] -= vector
        else:
            # Rounding must not outlive the last item.
            self._sums[code] = 0
