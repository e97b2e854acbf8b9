"""Rows taken out of whatever the user calls x."""

import keras
import numpy as np

from keras_metric.data.class_index import as_array


class Samples:
    """x as rows: arrays (one, or a dict, tuple or list of them), or items that `load` reads."""

    def __init__(self, x, load=None):
        self._load = load
        if load is None:
            self._x = keras.tree.map_structure(_checked_array, _sealed(x))
            lengths = {len(part) for part in keras.tree.flatten(self._x)}
        elif isinstance(x, dict):
            raise TypeError(
                "`x` must be one sequence of items (such as paths) where `load` is given. "
                f"Received: a dict with the keys {sorted(x)}. Let `load` take an item apart, and "
                "return a dict of arrays."
            )
        else:
            self._x = x if isinstance(x, (list, tuple)) else as_array(x)
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
        items = [self._read(row) for row in wanted]
        return keras.tree.map_structure(lambda *parts: self._stack(parts, wanted)[place], *items)

    def _read(self, row):
        try:
            return keras.tree.map_structure(as_array, self._load(self._x[row]))
        except Exception as error:
            # TensorFlow passes on only the text of an error, so the item is named in it.
            raise ValueError(f"`load` failed on x[{row}]={self._x[row]!r}: {error}") from error

    def _stack(self, parts, rows):
        shapes = {part.shape for part in parts}
        if len(shapes) > 1:
            odd = next(i for i, part in enumerate(parts) if part.shape != parts[0].shape)
            raise ValueError(
                "`load` must return arrays of one shape. Received: shape "
                f"{parts[0].shape} for {self._x[rows[0]]!r} and {parts[odd].shape} for "
                f"{self._x[rows[odd]]!r}. Resize or pad inside `load`."
            )
        return np.stack(parts)


def _sealed(x):
    # A list of plain numbers or strings is a column, not a list of inputs.
    if isinstance(x, (list, tuple)) and not any(np.ndim(part) for part in x):
        return np.asarray(x)
    return x


def _checked_array(part):
    array = as_array(part)
    if array.ndim == 0:
        raise ValueError(f"`x` must have rows. Received: a part that is a single value, {part!r}")
    if array.dtype.kind in "OSUT":
        raise ValueError(
            f"`x` must hold numbers. Received: a part of dtype {array.dtype}. For file paths pass "
            "load=, a function from one path to an array, such as keras_metric.data.ImageLoader; "
            "vectorise text first: keras.layers.TextVectorization()(texts)."
        )
    return array
