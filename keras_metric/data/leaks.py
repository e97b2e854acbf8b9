"""A check that the parts of a split have nothing in common."""

import hashlib
import itertools

import keras
import numpy as np

from keras_metric._validation import as_array
from keras_metric.data.batches.class_index import number_labels
from keras_metric.data.batches.samples import sealed


def check_no_leak(*parts, y=None, groups=None, x=None):
    """Raise if two parts of a split share a row, a class, a group, or a copy of a sample.

    Run it once before the first training: a copy of a test image among the training images, or
    one person in both, makes every number after it too good.

    Args:
        *parts: two or more arrays of row numbers, as `split_by_class` returns them.
        y: None, or labels of all rows, of any kind; no class may be in two parts.
        groups: None, or one group for each row; no group may be in two parts.
        x: None, or the samples, an array with a row for each (or a dict, tuple or list of
            such); no row may be equal, bit for bit, to a row of another part.

    Raises:
        ValueError: two parts share something; the message names it and the rows.

    Example:
    >>> import numpy as np
    >>> from keras_metric.data import check_no_leak
    >>> y = np.array(["owl", "hen", "owl", "hen"])
    >>> check_no_leak([0, 2], [1, 3], y=y)
    >>> check_no_leak([0, 1], [2, 3], y=y)
    Traceback (most recent call last):
    ...
    ValueError: Parts 0 and 1 must not share a class. Received: the class 'owl' in rows 0 and 2.
    """
    parts = [as_array("parts", part) for part in parts]
    # An empty list has the dtype of floats.
    parts = [part.astype("int64") if part.shape == (0,) else part for part in parts]
    if len(parts) < 2:
        raise ValueError(f"There must be at least two parts. Received: {len(parts)}")
    for part in parts:
        if part.ndim != 1 or part.dtype.kind not in "iu":
            raise TypeError(
                "`parts` must be arrays of row numbers, shape (rows,). Received: dtype "
                f"{part.dtype}, shape {part.shape}. A mask becomes row numbers by "
                "np.flatnonzero(mask)."
            )
    rows = np.concatenate(parts)
    _check_apart("row", parts, {row: row for row in rows.tolist()})
    for what, labels in (("class", y), ("group", groups)):
        if labels is not None:
            names, ids = number_labels(labels, name=what, as_ids=what == "class")
            _check_rows(rows, len(ids), what)
            names = names.tolist()
            _check_apart(what, parts, {row: names[ids[row]] for row in rows.tolist()})
    if x is not None:
        arrays = [as_array("x", part) for part in keras.tree.flatten(sealed(x))]
        for array in arrays:
            if array.ndim == 0:
                raise ValueError(f"`x` must have rows. Received: x={x!r}")
            _check_rows(rows, len(array), "x")
        digests = {row: _digest(arrays, row) for row in rows.tolist()}
        _check_apart("copy of a sample", parts, digests)


def _check_rows(rows, number, what):
    if len(rows) and not 0 <= rows.min() <= rows.max() < number:
        raise ValueError(
            f"`parts` must number rows from 0 to {number - 1}, those of `{what}`. Received: rows "
            f"from {rows.min()} to {rows.max()}"
        )


def _check_apart(what, parts, keys):
    first_rows = [{} for _ in parts]
    for seen, part in zip(first_rows, parts):
        for row in part.tolist():
            seen.setdefault(keys[row], row)
    for (i, one), (j, other) in itertools.combinations(enumerate(first_rows), 2):
        common = one.keys() & other.keys()
        if common:
            key = min(common, key=one.get)
            named = f"the {what} {key!r} in " if what in ("class", "group") else ""
            raise ValueError(
                f"Parts {i} and {j} must not share a {what}. Received: {named}rows "
                f"{one[key]} and {other[key]}."
            )


def _digest(arrays, row):
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        sample = array[row : row + 1]
        # The bytes of objects are their addresses.
        known = repr(sample.tolist()).encode() if sample.dtype.hasobject else sample.tobytes()
        digest.update(known)
    return digest.digest()
