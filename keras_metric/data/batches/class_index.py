"""Labels of any kind numbered 0..C-1, and the rows of each class."""

import numpy as np

from keras_metric._validation import as_array, is_missing, rows_hint, without_floats

_LONGEST_PACKED = 64  # characters


class ClassIndex:
    """The rows of each class.

    `classes[i]` is the label numbered `i`, `ids` the number of each row (-1 for a row of an omitted
    class), `rows[starts[i]:starts[i] + counts[i]]` the rows of class `i`. Classes of fewer than
    `at_least` rows are omitted.
    """

    def __init__(self, labels, at_least=1):
        self.classes, ids = number_labels(labels)
        counts = np.bincount(ids, minlength=len(self.classes))
        kept = counts >= at_least
        if not kept.all():
            renumbered = np.where(kept, np.cumsum(kept) - 1, -1)
            self.classes, counts, ids = self.classes[kept], counts[kept], renumbered[ids]
        self.ids = ids.astype("int32")
        self.counts = counts
        self.starts = np.cumsum(counts) - counts
        order = np.argsort(self.ids, kind="stable")
        self.rows = order[len(order) - counts.sum() :]  # Omitted rows are the first ones.


def number_labels(labels, name="y", as_ids=True):
    """Return `(classes, ids)` with `classes[ids]` equal to `labels`, and `classes` sorted.

    `as_ids`: whether to convert floats that are whole numbers to integers, and raise for floats of
    a dtype too narrow for them.
    """
    labels = as_array(name, labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"`{name}` must hold one label for each row, shape (rows,) or (rows, 1). Received: "
            f"{name}.shape={labels.shape}.{rows_hint(labels, name)}"
        )
    if len(labels) == 0:
        raise ValueError(f"`{name}` must hold at least one label. Received: len({name})=0")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise _missing(name, np.flatnonzero(~np.isfinite(labels))[0], "NaN or infinite")
    labels = _packed(without_floats(name, labels, any_exact=True) if as_ids else labels)
    if labels.dtype.kind in "biuf":
        classes, ids = np.unique(labels, return_inverse=True)
        return classes, ids.reshape(-1)
    return _number_objects(labels, name)


def _packed(labels):
    """Convert objects that are all strings, or all integers, to an array of that type."""
    if labels.dtype.kind != "O":
        return labels
    types = set(map(type, labels.tolist()))
    # NumPy stores every string with the length of the longest one.
    if types == {str} and max(map(len, labels.tolist())) <= _LONGEST_PACKED:
        return labels.astype(str)
    if types != {int}:
        return labels
    packed = np.array(labels.tolist())
    # Integers outside the range of 64 bits become floats, which merges some of them.
    return packed if packed.dtype.kind in "iu" else labels


def _number_objects(labels, name):
    values = labels.tolist()
    try:
        found = dict.fromkeys(values)
    except TypeError as error:
        raise TypeError(
            f"`{name}` must hold one label for each row, such as an integer or a string. Received: "
            f"a label that cannot be compared: {error}"
        ) from error
    if any(value is None or is_missing(value) for value in found):
        row = next(i for i, value in enumerate(values) if value is None or is_missing(value))
        raise _missing(name, row, "missing")
    try:
        ordered = sorted(found)
    except TypeError:  # Labels of several types have no common order.
        ordered = sorted(found, key=lambda value: (type(value).__name__, repr(value)))
    number = {value: i for i, value in enumerate(ordered)}
    ids = np.fromiter((number[value] for value in values), dtype="int64", count=len(values))
    classes = np.empty(len(ordered), dtype=labels.dtype)
    for i, value in enumerate(ordered):
        classes[i] = value
    return classes, ids


def _missing(name, row, what):
    return ValueError(
        f"`{name}` must hold a label for every row. Received: a {what} label in row {row}. "
        f"Drop such rows from x and {name} first."
    )
