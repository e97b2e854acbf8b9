"""Rows taken out of whatever the user calls x."""

import collections.abc
import contextlib
import reprlib

import keras
import numpy as np
from keras import ops

from keras_metric._validation import as_array, check_function, is_numeric


class Samples:
    """x as rows: arrays (one, or a dict, tuple or list of them), or items that `load` reads."""

    def __init__(self, x, load=None):
        check_function("load", load)
        self._load = load
        if load is None:
            self._x = keras.tree.map_structure(_checked_array, sealed(x))
            lengths = {len(part) for part in keras.tree.flatten(self._x)}
        elif isinstance(x, dict):
            raise TypeError(
                "`x` must be one sequence of items (such as paths) where `load` is given. "
                f"Received: a dict with the keys {sorted(x)}. Let `load` take an item apart, and "
                "return a dict of arrays."
            )
        else:
            # A sequence may read its items only when they are asked for.
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
        # A row that is wanted twice is read once.
        wanted, place = np.unique(rows, return_inverse=True)
        quick = self._quickly(wanted) or [None] * len(wanted)
        read = [self._read(row) if item is None else item for row, item in zip(wanted, quick)]
        items = [read[i] for i in place]
        self._check_structures(items, rows)
        return keras.tree.map_structure(lambda *parts: self._stack(parts, rows), *items)

    def _quickly(self, rows):
        """What `load` can give of these rows all at once, see `ImageLoader.quickly`."""
        if not hasattr(self._load, "quickly"):
            return None
        # What is wrong with one of them is said where it is read alone.
        with contextlib.suppress(Exception):
            return self._load.quickly(self._x[row] for row in rows)

    def _read(self, row):
        try:
            return keras.tree.map_structure(_loaded, self._load(self._x[row]))
        except Exception as error:
            # TensorFlow passes on only the text of an error, so the item is named in it.
            raise ValueError(f"`load` failed on x[{row}]={self._name(row)}: {error}") from error

    def _name(self, row):
        try:
            item = self._x[row]
            # A path is said whole, for whoever looks for the file; a whole file is not.
            whole = not (_is_lazy(self._x) or isinstance(item, bytes))
            return repr(item) if whole else reprlib.repr(item)
        except Exception:  # What failed may have been the reading of the item.
            return "(not readable)"

    def _check_structures(self, items, rows):
        forms = list(map(_form, items))
        odd = next((i for i, form in enumerate(forms) if form != forms[0]), None)
        if odd is not None:
            raise ValueError(
                f"`load` must return the same structure for each item. Received: {forms[0]} for "
                f"{self._name(rows[0])} and {forms[odd]} for {self._name(rows[odd])}."
            )

    def _stack(self, parts, rows):
        shapes = {part.shape for part in parts}
        if len(shapes) > 1:
            odd = next(i for i, part in enumerate(parts) if part.shape != parts[0].shape)
            raise ValueError(
                "`load` must return arrays of one shape. Received: shape "
                f"{parts[0].shape} for {self._name(rows[0])} and {parts[odd].shape} for "
                f"{self._name(rows[odd])}. Resize or pad inside `load`."
            )
        return np.stack(parts)


def _is_sequence(x):
    if isinstance(x, (list, tuple)):
        return True
    # Sources of Grain have a length and items, and nothing else that an array has.
    named = isinstance(x, collections.abc.Sequence) and not isinstance(x, (str, bytes))
    items = hasattr(x, "__len__") and hasattr(x, "__getitem__")
    return named or (items and not hasattr(x, "__array__") and not ops.is_tensor(x))


def _is_lazy(x):
    return not isinstance(x, (list, tuple, np.ndarray))


def sealed(x):
    """Return `x`, or an array if it is a list of plain numbers or strings, which is a column."""
    if isinstance(x, (list, tuple)) and not any(np.ndim(part) for part in x):
        return np.asarray(x)
    return x


def _form(item):
    if isinstance(item, dict):
        return f"a dict of {sorted(map(str, item))}"
    return (
        f"a {type(item).__name__} of {len(item)}" if isinstance(item, (list, tuple)) else "an array"
    )


def _loaded(part):
    array = as_array("load(item)", part)
    if array.dtype.kind == "O" and not all(isinstance(one, (str, bytes)) for one in array.flat):
        raise TypeError(
            f"it must return an array of numbers, or a structure of arrays, and returned {part!r}"
        )
    return array


def _checked_array(part):
    array = as_array("x", part)
    if array.ndim == 0:
        raise ValueError(
            f"`x` must have rows. Received: a part that is a single value, {part!r}. A list of "
            "rows becomes an array by np.array(x)."
        )
    if not is_numeric(array):
        raise ValueError(
            f"`x` must hold numbers. Received: a part of dtype {array.dtype}. For file paths pass "
            "load=, a function from one path to an array, such as keras_metric.data.ImageLoader; "
            "vectorise text first: keras.layers.TextVectorization()(texts)."
        )
    return array
