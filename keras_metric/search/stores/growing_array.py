"""An array that grows by rows."""

import numpy as np


class GrowingArray:
    """Rows at the front of a larger array, so that adding one moves none of the others.

    Room doubles when it runs out; what is not filled yet is address space, not memory.
    """

    def __init__(self, dtype, width=None):
        self._room = np.empty((0,) if width is None else (0, width), dtype)
        self._size = 0

    @classmethod
    def of(cls, rows):
        """Take over an array as it is."""
        result = cls(rows.dtype)
        result._room, result._size = rows, len(rows)
        return result

    def __len__(self):
        return self._size

    @property
    def rows(self):
        """A view of the rows; it is valid until the array grows."""
        return self._room[: self._size]

    def grow(self, count):
        """Add `count` rows of zeros and return a view of them."""
        size = self._size + count
        if size > len(self._room):
            room = np.zeros(
                (max(size, 2 * len(self._room)), *self._room.shape[1:]), self._room.dtype
            )
            room[: self._size] = self.rows
            self._room = room
        self._size = size
        return self._room[size - count : size]

    def fill_hole(self, row):
        """Remove a row: the last one takes its place."""
        self._size -= 1
        self._room[row] = self._room[self._size]
        # The room keeps nothing of a removed row.
        self._room[self._size] = 0
