"""Replacement of some classes of a planned batch by hard neighbors of the others."""

import numpy as np

from keras_metric._validation import as_array, check_number


class HardNeighbors:
    """Replaces some classes of a planned batch by hard neighbors of the remaining classes.

    `index` is the `ClassIndex` of the labels; the other arguments are those of
    `BalancedBatches.set_hard_neighbors`.
    """

    def __init__(self, index, rows, classes, fraction):
        check_number("fraction", fraction, above=0)
        if fraction >= 1:
            raise ValueError(f"`fraction` must be below 1. Received: fraction={fraction}")
        if (rows is None) == (classes is None):
            raise ValueError(
                "Pass either `rows`, the hard rows of each row, or `classes`, the hard classes of "
                f"each class. Received: {'neither' if rows is None else 'both'}."
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
        self._index, self._table, self._fraction = index, table, fraction
        self._by_class = classes is not None

    def replace(self, classes, rows, rng):
        """Return `rows` `(P, K)` of the planned `classes` `(P,)` with some classes replaced."""
        total, samples = rows.shape
        order = rng.permutation(total)
        kept = order[: max(1, total - round(self._fraction * total))]
        present = set(classes[kept].tolist())
        groups = [rows[position] for position in kept]
        candidates = [] if self._by_class else self._hard_rows(groups, rng)
        while len(groups) < total:
            if self._by_class:
                found = self._next_class(present, rng)
            else:
                found = self._next_row(candidates, present)
            if found is None:
                break
            row, class_id = found
            present.add(class_id)
            groups.append(self._group(row, class_id, samples, rng))
        for position in order:
            # Without enough hard neighbors the batch keeps the planned classes.
            if len(groups) < total and int(classes[position]) not in present:
                present.add(int(classes[position]))
                groups.append(rows[position])
        return np.stack(groups)

    def _hard_rows(self, groups, rng):
        """Return the hard rows of all rows kept, in random order."""
        found = np.unique(self._table[np.concatenate(groups)])
        return rng.permutation(found[found >= 0]).tolist()

    def _next_row(self, candidates, present):
        while candidates:
            row = candidates.pop()
            class_id = int(self._index.ids[row])
            if class_id >= 0 and class_id not in present:
                return row, class_id
        return None

    def _next_class(self, present, rng):
        """Return the nearest missing class of a class that is present; those in random order."""
        for class_id in rng.permutation(sorted(present)):
            for other in self._table[class_id]:
                if other >= 0 and int(other) not in present:
                    return None, int(other)
        return None

    def _group(self, row, class_id, samples, rng):
        """Return `samples` random rows of a class; `row` is one of them unless it is None."""
        start, count = self._index.starts[class_id], self._index.counts[class_id]
        rows = rng.permutation(self._index.rows[start : start + count])
        if row is not None:
            rows = np.concatenate([[row], rows[rows != row]])
        return np.resize(rows, samples)
