"""Steering: batches that grow from a few classes by what is hard to tell from them."""

import numpy as np

from keras_metric._validation import as_array, check_number


class Steering:
    """Replaces some classes of a planned batch by difficult neighbours of the others.

    Args:
        index: `ClassIndex` of the labels.
        rows: None, or for each row the rows of other classes that are hard to tell from it,
            `(rows, neighbors)`; -1 where there is none.
        classes: the same of classes, `(classes, neighbors)`. One of the two is given.
        share: share of the classes of a batch that is replaced, above 0 and below 1.
    """

    def __init__(self, index, rows, classes, share):
        check_number("fraction", share, above=0)
        if share >= 1:
            raise ValueError(
                "`fraction` must be below 1: some classes of a batch come by chance, and the "
                f"others are hard to tell from those. Received: fraction={share}"
            )
        if (rows is None) == (classes is None):
            raise ValueError(
                "Give either the hard rows of each row, or the hard classes of each class. "
                f"Received: {'neither' if rows is None else 'both'}."
            )
        name, table = ("rows", rows) if classes is None else ("classes", classes)
        length = len(index.ids) if classes is None else len(index.classes)
        table = as_array(name, table)
        if table.ndim != 2 or len(table) != length or table.dtype.kind not in "iu":
            raise ValueError(
                f"`{name}` must be integers of shape ({length}, neighbors). "
                f"Received: {name}.shape={table.shape}, dtype {table.dtype}"
            )
        if table.size and not -1 <= table.min() <= table.max() < length:
            raise ValueError(
                f"`{name}` must hold numbers from 0 to {length - 1}, or -1 for none. "
                f"Received numbers from {table.min()} to {table.max()}"
            )
        self._index, self._table, self._share = index, table, share
        self._by_class = classes is not None

    def steered(self, classes, rows, rng):
        """`rows` `(P, K)` of the planned `classes` `(P,)`, some of them replaced."""
        places, each = rows.shape
        order = rng.permutation(places)
        kept = order[: max(1, places - round(self._share * places))]
        here = set(classes[kept].tolist())
        groups = [rows[place] for place in kept]
        step = self._nearest_class if self._by_class else self._neighbor_of_a_row
        waiting = self._waiting(groups, rng)
        while len(groups) < places:
            found = step(waiting, here, groups, rng)
            if found is None:
                break
            row, number = found
            here.add(number)
            groups.append(self._group(row, number, each, rng))
        for place in order:
            # What nothing hard was found for comes as it was planned.
            if len(groups) < places and int(classes[place]) not in here:
                here.add(int(classes[place]))
                groups.append(rows[place])
        return np.stack(groups)

    def _waiting(self, groups, rng):
        """The hard rows of all rows kept, in random order."""
        if self._by_class:
            return None
        found = np.unique(self._table[np.concatenate(groups)])
        return rng.permutation(found[found >= 0]).tolist()

    def _neighbor_of_a_row(self, waiting, here, groups, rng):
        while waiting:
            row = waiting.pop()
            number = int(self._index.ids[row])
            if number >= 0 and number not in here:
                return row, number
        return None

    def _nearest_class(self, waiting, here, groups, rng):
        """The nearest class, not in the batch yet, of a class that is; those come in any order."""
        for number in rng.permutation(sorted(here)):
            for other in self._table[number]:
                if other >= 0 and int(other) not in here:
                    return None, int(other)
        return None

    def _group(self, row, number, each, rng):
        """`each` rows of a class, `row` among them if there is one."""
        start, count = self._index.starts[number], self._index.counts[number]
        rows = rng.permutation(self._index.rows[start : start + count])
        if row is not None:
            rows = np.concatenate([[row], rows[rows != row]])
        return np.resize(rows, each)
