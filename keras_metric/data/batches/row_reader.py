"""Reads rows of x: slices arrays, or calls `load` on the items of a sequence."""

import collections.abc
import contextlib
import reprlib

import keras
import numpy as np
from keras import ops

from keras_metric._validation import as_array, check_function, is_numeric


class RowReader:
    """Reads rows of arrays (one, or a dict, tuple or list of them), or items that `load` reads."""

    def __init__(self, x, load=None):
        check_function("load", load)
        self._load = load
        if load is None:
            self._x = keras.tree.map_structure(_checked_array, column_as_array(x))
            lengths = {len(part) for part in keras.tree.flatten(self._x)}
        elif isinstance(x, dict):
            raise TypeError(
                "`x` must be one sequence of items (such as paths) where `load` is given. "
                f"Received: a dict with the keys {sorted(x)}. Pass a sequence, and let `load` "
                "return a dict of arrays."
            )
        else:
            # A sequence may read its items lazily.
            self._x = x if _is_sequence(x) else as_array("x", x)
            lengths = {len(self._x)}
        if len(lengths) != 1:
            raise ValueError(
                "Every part of `x` must have the same number of rows. Received: parts with "
                f"{sorted(lengths)} rows. A list or tuple is read as several inputs of one model: "
                "join a list of samples by np.stack first."
            )
        self._length = lengths.pop()

    def __len__(self):
        return self._length

    def take(self, rows):
        """Return the rows in the structure of x, stacked into arrays."""
        if self._load is None:
            return keras.tree.map_structure(lambda part: part[rows], self._x)
        # A row that occurs several times is read once.
        unique, position = np.unique(rows, return_inverse=True)
        decoded = self._decode_batch(unique) or [None] * len(unique)
        read = [self._read(row) if item is None else item for row, item in zip(unique, decoded)]
        items = [read[i] for i in position]
        self._check_equal(items, rows, _structure, "the same structure for each item", ".")
        return keras.tree.map_structure(lambda *parts: self._stack(parts, rows), *items)

    def _decode_batch(self, rows):
        """Return what `load` decodes of these rows together, see `ImageLoader.decode_batch`."""
        if not hasattr(self._load, "decode_batch"):
            return None
        # An error is raised again, with the name of the item, where the item is read separately.
        with contextlib.suppress(Exception):
            return self._load.decode_batch(self._x[row] for row in rows)

    def _read(self, row):
        try:
            return keras.tree.map_structure(_checked_result, self._load(self._x[row]))
        except Exception as error:
            # TensorFlow passes on only the text of an error, so the text names the item.
            raise ValueError(f"`load` failed on x[{row}]={self._name(row)}: {error}") from error

    def _name(self, row):
        try:
            item = self._x[row]
            # A path is shown completely; the bytes of a file and lazily read items are shortened.
            is_listed = isinstance(self._x, (list, tuple, np.ndarray))
            complete = is_listed and not isinstance(item, bytes)
            return repr(item) if complete else reprlib.repr(item)
        except Exception:  # Reading the item may be what failed.
            return "(not readable)"

    def _stack(self, parts, rows):
        way_out = ". Resize or pad inside `load`."
        self._check_equal(parts, rows, _shape, "arrays of one shape", way_out)
        return np.stack(parts)

    def _check_equal(self, items, rows, described, expected, end):
        found = list(map(described, items))
        other = next((i for i, one in enumerate(found) if one != found[0]), None)
        if other is not None:
            raise ValueError(
                f"`load` must return {expected}. Received: {found[0]} for {self._name(rows[0])} "
                f"and {found[other]} for {self._name(rows[other])}{end}"
            )


def _is_sequence(x):
    if isinstance(x, (list, tuple)):
        return True
    # Grain sources have a length and items, but are not arrays.
    named = isinstance(x, collections.abc.Sequence) and not isinstance(x, (str, bytes))
    items = hasattr(x, "__len__") and hasattr(x, "__getitem__")
    return named or (items and not hasattr(x, "__array__") and not ops.is_tensor(x))


def column_as_array(x):
    """Return `x`, or an array if it is a list of plain numbers or strings (one column)."""
    if isinstance(x, (list, tuple)) and not any(np.ndim(part) for part in x):
        return np.asarray(x)
    return x


def _structure(item):
    if isinstance(item, dict):
        return f"a dict of {sorted(map(str, item))}"
    is_sequence = isinstance(item, (list, tuple))
    return f"a {type(item).__name__} of {len(item)}" if is_sequence else "an array"


def _shape(array):
    return f"shape {array.shape}"


def _checked_result(part):
    array = as_array("load(item)", part)
    if array.dtype.kind == "O" and not all(isinstance(one, (str, bytes)) for one in array.flat):
        raise TypeError(f"it must return an array, or a structure of arrays. Received: {part!r}")
    return array


def _checked_array(part):
    array = as_array("x", part)
    if array.ndim == 0:
        what = f"a part that is a single value, {part!r}"
        raise ValueError(f"`x` must have rows. Received: {what}. Convert lists: np.array(x).")
    if not is_numeric(array):
        raise ValueError(
            f"`x` must hold numbers. Received: a part of dtype {array.dtype}. For file paths pass "
            "load=, a function from one path to an array, such as keras_metric.data.ImageLoader; "
            "vectorize text first: keras.layers.TextVectorization()(texts)."
        )
    return array
