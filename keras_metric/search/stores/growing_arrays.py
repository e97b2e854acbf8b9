"""Arrays that grow by rows, value codes and sums by label: the memory of a `FaissStore`."""

import threading

import numpy as np

from keras_metric.search.stores.exact_distances import BLOCK

# A code table is compacted only if it has more unused codes than this.
_MIN_UNUSED = 1000


class GrowingArray:
    """An array with spare capacity, so that appending rows does not copy the others.

    The capacity doubles when it is used up. The operating system assigns memory to the spare rows
    only when they are written.
    """

    def __init__(self, dtype, width=None):
        self._capacity = np.empty((0,) if width is None else (0, width), dtype)
        self._size = 0

    @classmethod
    def of(cls, rows):
        """Wrap an array without a copy."""
        result = cls(rows.dtype)
        result._capacity, result._size = rows, len(rows)
        return result

    def __len__(self):
        return self._size

    @property
    def rows(self):
        """A view of the rows; it is valid until the array grows."""
        return self._capacity[: self._size]

    def grow(self, count):
        """Append `count` rows of zeros and return a view of them."""
        size, old = self._size + count, self._capacity
        if size > len(old):
            self._capacity = np.zeros((max(size, 2 * len(old)), *old.shape[1:]), old.dtype)
            self._capacity[: self._size] = old[: self._size]
        self._size = size
        return self._capacity[size - count : size]

    def fill_hole(self, row):
        """Remove a row: the last row moves to its position."""
        self._size -= 1
        self._capacity[row] = self._capacity[self._size]
        # Removed data must not stay in the spare capacity.
        self._capacity[self._size] = 0


class ValueCodes:
    """A table of distinct values with integer codes, in the order of their first appearance.

    A value without rows is dropped at once; its code stays unused until `compact`.
    """

    def __init__(self, values=(), codes=()):
        self.values = list(values)
        self.code_of = {value: code for code, value in enumerate(self.values)}
        codes = np.asarray(codes, "int64")
        self._counts = np.bincount(codes[codes >= 0], minlength=len(self.values)).tolist()
        self._unused = 0

    def encode(self, values):
        """Return the int32 code of each value; new values get new codes."""
        code_of, counts = self.code_of, self._counts
        codes = np.empty(len(values), "int32")
        for row, value in enumerate(values):
            code = code_of.get(value)
            if code is None:
                code = code_of[value] = len(self.values)
                self.values.append(value)
                counts.append(0)
            counts[code] += 1
            codes[row] = code
        return codes

    def release(self, codes):
        """Count one row less for each of the codes; -1 stands for no value."""
        for code in codes[codes >= 0].tolist():
            self._counts[code] -= 1
            if not self._counts[code]:
                del self.code_of[self.values[code]]
                self.values[code] = None
                self._unused += 1

    def compact(self, codes):
        """Renumber `codes` in place if most codes are unused.

        Returns the old code of each new one, or None if nothing changed.
        """
        if self._unused <= max(_MIN_UNUSED, len(self.values) // 2):
            return None
        used = np.flatnonzero(self._counts)
        codes[:], values = compacted(codes, self.values)
        self.__init__(values, codes)
        return used


class LabelSums:
    """Sum of the vectors and number of items of each label code, for centroids.

    Computed at the first request for centroids and updated with every change from then on.
    """

    def __init__(self, dim):
        self._dim = dim
        self._sums = self._counts = None
        # Several readers can make the first request concurrently; changes exclude readers.
        self._first_request = threading.Lock()

    def of(self, codes, vectors):
        """The codes that have items, their sums in float64 and their counts.

        `codes` and `vectors` are those of all rows.
        """
        with self._first_request:
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
            # Double the capacity, so that adding labels one at a time does not copy all each time.
            spare = max(size, 2 * len(self._counts)) - len(self._counts)
            self._sums = np.concatenate([self._sums, np.zeros((spare, self._dim))])
            self._counts = np.concatenate([self._counts, np.zeros(spare, "int64")])
        order = np.argsort(codes, kind="stable")
        present, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
        self._sums[present] += np.add.reduceat(vectors[order].astype("float64"), starts)
        self._counts[present] += counts

    def subtract(self, code, vector):
        if self._sums is None:
            return
        self._counts[code] -= 1
        if self._counts[code]:
            self._sums[code] -= vector
        else:
            # Without items the sum is exactly zero; a subtraction would leave a rounding error.
            self._sums[code] = 0

    def keep(self, codes):
        """Renumber the labels: code `codes[n]` becomes `n`, all others are dropped."""
        if self._sums is not None:
            self._sums, self._counts = self._sums[codes], self._counts[codes]


def compacted(codes, values):
    """Return codes and values without the values that no row has."""
    used = np.unique(codes[codes >= 0])
    # The last entry maps the code -1, missing, to itself.
    new = np.full(len(values) + 1, -1, codes.dtype)
    new[used] = np.arange(len(used))
    return new[codes], [values[code] for code in used.tolist()]
