"""Checks of arguments: each raises with what was expected, what was received, and the way out."""

import math
import numbers
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from keras import ops

_INT32 = np.iinfo(np.int32)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = 20


def shown(value):
    """`repr(value)` for an error message, shortened where it is long."""
    try:
        text = _SHORT.repr(value)
    except ValueError:
        # Python converts no integer of more than 4,300 digits to a string.
        return f"<{type(value).__name__} with a number of too many digits to print>"
    return text if len(text) <= 1000 else text[:1000] + "..."


def check_choice(name, value, choices):
    """Raise unless `value` is one of the strings `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"`{name}` must be one of {sorted(choices)}. Received: {name}={shown(value)}"
        )


def check_number(name, value, *, above=None, at_least=None, at_most=None):
    """Raise unless `value` is a finite real number inside the given bounds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number. Received: {name}={shown(value)}")
    bounds = []
    if above is not None:
        bounds.append((value > above, f"greater than {above}"))
    if at_least is not None:
        bounds.append((value >= at_least, f"at least {at_least}"))
    if at_most is not None:
        bounds.append((value <= at_most, f"at most {at_most}"))
    if not _is_finite(value) or not all(holds for holds, _ in bounds):
        wanted = " and ".join(text for _, text in bounds) or "finite"
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={shown(value)}")


def _is_finite(value):
    try:
        return math.isfinite(value)
    except OverflowError:
        # An integer that no float can hold.
        return False


def check_count(name, value, *, at_least=1):
    """Raise unless `value` is an integer of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be an integer. Received: {name}={shown(value)}")
    if value < at_least:
        raise ValueError(f"`{name}` must be at least {at_least}. Received: {name}={shown(value)}")


def check_flag(name, value):
    """Raise unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False. Received: {name}={shown(value)}")


def check_seed(name, value, *, at_least=-math.inf):
    """Raise unless `value` is None or an integer; NumPy's generators want one of at least 0."""
    if value is not None:
        check_count(name, value, at_least=at_least)


def check_function(name, value):
    """Raise unless `value` is None or can be called."""
    if value is not None and not callable(value):
        raise TypeError(f"`{name}` must be a function or None. Received: {name}={shown(value)}")


def as_array(name, value):
    """Return `value` (array, tensor of the backend, list, column of a table) as a NumPy array."""
    if isinstance(value, np.ndarray):
        return value
    if ops.is_tensor(value):
        return ops.convert_to_numpy(value)
    if isinstance(value, Iterator):
        raise TypeError(
            f"`{name}` must be an array or a list. Received: {name} of type "
            f"{type(value).__name__}, which can be read once. Collect it: np.stack(list({name}))."
        )
    try:
        return np.asarray(value)
    except Exception as error:
        raise ValueError(
            f"`{name}` must be an array, or a list of rows of one length. Received: {name} of "
            f"type {type(value).__name__}, of which NumPy makes no array: {error}"
        ) from error


def as_path(name, value):
    """Return `value` as a path that this system can look for."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"`{name}` must be a path. Received: {name} of type {type(value).__name__}")
    path = Path(value)
    try:
        path.exists()
        if "\0" in str(path):
            raise ValueError("it holds a null character")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be a path that this system can have. Received: "
            f"{name}={shown(str(value))}: {shown(str(error))[1:-1]}"
        ) from error
    return path


def is_numeric(array):
    """Whether a NumPy array holds real numbers; those of 8 and 16 bits that NumPy lacks count."""
    return array.dtype.kind in "biuf" or array.dtype.name.startswith(("bfloat", "float8"))


def as_tensor(name, value):
    """Return `value` as a tensor of numbers; Keras's and TensorFlow's own errors name nothing."""
    if ops.is_tensor(value) or isinstance(value, (keras.KerasTensor, keras.Variable)):
        return ops.convert_to_tensor(value)
    listed = isinstance(value, (list, tuple))
    if listed and any(map(ops.is_tensor, keras.tree.flatten(value))):
        return ops.convert_to_tensor(value)
    array = as_array(name, value)
    if not is_numeric(array):
        raise ValueError(
            f"`{name}` must be an array of numbers. Received: {name} of type "
            f"{type(value).__name__} and dtype {array.dtype}, of shape {array.shape}"
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # Python's own numbers have no width: Keras gives them that of floatx.
    return ops.convert_to_tensor(value if listed and array.size else array)


def check_matrix(name, value):
    """Raise unless `value` has the rank and the dtype of `(batch, dim)` embeddings."""
    if len(value.shape) != 2 or value.shape[1] == 0:
        raise ValueError(
            f"`{name}` must have shape (batch, dim). Received: {name}.shape={tuple(value.shape)}"
        )
    check_floating(name, value)


def check_one_input(shape):
    """Raise unless a layer is built for one tensor that has an axis of features."""
    sound = isinstance(shape, (tuple, list)) and len(shape) > 0
    if not sound or any(isinstance(part, (tuple, list)) for part in shape):
        raise ValueError(
            "`inputs` must be one tensor (..., features), not a list of tensors, a number or None. "
            f"Received: inputs of the shape {shape}"
        )


def check_one_each(labels, embeddings, labels_name, embeddings_name):
    """Raise if two tensors are known to have another number of rows."""
    if None in (labels.shape[0], embeddings.shape[0]) or labels.shape[0] == embeddings.shape[0]:
        return
    raise ValueError(
        f"Each embedding needs one label. Received: {labels_name}.shape={tuple(labels.shape)}, "
        f"{embeddings_name}.shape={tuple(embeddings.shape)}"
    )


def check_one_label_each(labels, embeddings):
    """Raise unless there are embeddings, and a label for each."""
    rows = labels.shape[0], embeddings.shape[0]
    if None not in rows and rows[0] != rows[1] or 0 in rows:
        raise ValueError(
            "`embeddings` must hold one row or more, and `labels` one id for each. Received: "
            f"embeddings.shape={tuple(embeddings.shape)}, labels.shape={tuple(labels.shape)}"
        )


def check_floating(name, value):
    """Raise unless the tensor `value` is of floating point."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
        raise ValueError(
            f"`{name}` must be floating point. Received: {name}.dtype={value.dtype}. "
            "Pass the encoder's output, or cast the vectors to float32."
        )


def is_missing(value):
    """Whether a label of any type is NaN, NaT or pandas' NA."""
    # NA answers every question with NA, and will not say whether that is true.
    return type(value).__name__ == "NAType" or bool(np.any(value != value))


def class_ids(labels, name="labels"):
    """Return `labels` as an integer tensor of shape `(batch,)`; ids are compared as integers.

    Accepts `(batch,)` or `(batch, 1)` of any integer dtype. Floats, strings and booleans raise:
    a float32 cannot tell 16777216 from 16777217, and the way out is one line.
    """
    if not ops.is_tensor(labels):
        labels = as_array(name, labels)
        if labels.dtype.kind not in "iu":
            raise _bad_ids(name, labels.dtype)
        # JAX truncates to 32 bits without a word, so what does not fit is refused here.
        if labels.size and (labels.min() < _INT32.min or labels.max() > _INT32.max):
            raise ValueError(
                f"`{name}` must fit 32-bit integers. Received ids from {labels.min()} to "
                f"{labels.max()}. Number them first: "
                "classes, ids = np.unique(labels, return_inverse=True)."
            )
        labels = labels.astype("int32")
    labels = ops.convert_to_tensor(labels)
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if not keras.backend.is_int_dtype(dtype):
        raise _bad_ids(name, dtype)
    if len(labels.shape) == 2 and labels.shape[1] == 1:
        labels = ops.squeeze(labels, axis=1)
    if len(labels.shape) != 1:
        raise ValueError(
            f"`{name}` must have shape (batch,) or (batch, 1): one class id for each row. "
            f"Received: {name}.shape={tuple(labels.shape)}. One-hot labels become ids by "
            "np.argmax(labels, axis=-1); for several labels an item give the loss "
            'labels="multi_hot".'
        )
    # Small and unsigned types are cast: a sort or a gather does not exist for all of them. Ids are
    # only told apart, and uint32 still are where they wrap around; JAX has no wider type for them.
    return ops.cast(labels, "int64" if dtype in ("int64", "uint64") else "int32")


def multi_hot(labels, name="labels"):
    """Return `labels` as a float32 tensor of zeros and ones, `(batch, classes)`."""
    if not ops.is_tensor(labels):
        labels = as_array(name, labels)
        if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"`{name}` must be 0 or 1 for each class. Received: {name}.dtype={labels.dtype}. "
                "Lists of ids become such rows by keras.layers.CategoryEncoding or "
                "sklearn.preprocessing.MultiLabelBinarizer."
            )
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) != 2:
        raise ValueError(
            f'With labels="multi_hot", `{name}` must have shape (batch, classes). '
            f"Received: {name}.shape={tuple(labels.shape)}"
        )
    return ops.cast(labels, "float32")


def check_not_strings(name, labels):
    """Raise if `labels` is a NumPy array, list or tuple of strings."""
    if not isinstance(labels, (np.ndarray, list, tuple)) or getattr(labels, "ndim", 1) == 0:
        return
    if len(labels) and isinstance(labels[0], (str, bytes)):
        raise _bad_ids(name, np.asarray(labels).dtype)


def check_arrays(name, values):
    """Raise if there are plain Python numbers in a list, tuple or dict of `values`.

    Keras takes each item of a list for an input of its own, and on PyTorch fails on its shape.
    """
    if not isinstance(values, (list, tuple, dict)):
        return
    for leaf in keras.tree.flatten(values):
        if isinstance(leaf, (int, float, complex)):
            raise TypeError(
                f"`{name}` must be an array, or a structure of arrays. Received: {name} with the "
                f"plain number {leaf!r} in it. Make an array of it: np.array({name})."
            )


def _bad_ids(name, dtype):
    return ValueError(
        f"`{name}` must be integer class ids. Received: {name}.dtype={dtype}. "
        "Number strings or floats first: "
        "classes, ids = np.unique(labels, return_inverse=True). "
        "If the data set yields (anchor, positive, negative), Keras reads such a bare 3-tuple as "
        "(x, y, sample_weight): yield ((anchor, positive, negative),) or a dict "
        '{"anchor": ..., "positive": ..., "negative": ...} instead.'
    )
