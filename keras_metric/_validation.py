"""Argument validation; every error states what was expected, what was received, and a way out."""

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
    """Return `repr(value)` for an error message, shortened if it is long."""
    try:
        text = _SHORT.repr(value)
    except ValueError:
        # Python does not convert integers of more than 4,300 digits to strings.
        return f"<{type(value).__name__} with a number of too many digits to print>"
    return text if len(text) <= 1000 else text[:1000] + "..."


# Below these limits the whole numbers are exact; above, rounding may merge ids.
_WHOLE_BELOW = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24, "float64": 2**24}

_BARE_TUPLE = (
    "If the data set yields (anchor, positive, negative), Keras interprets the bare 3-tuple as "
    "(x, y, sample_weight): yield ((anchor, positive, negative),) or a dict "
    '{"anchor": ..., "positive": ..., "negative": ...} instead.'
)


def check_choice(name, value, choices):
    """Return `value`; raise unless it is one of the strings `choices`."""
    if not isinstance(value, str) or value not in choices:
        choices = sorted(choices)
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={shown(value)}")
    return value


def check_number(name, value, *, above=None, at_least=None, at_most=None):
    """Return `value`; raise unless it is a finite real number inside the given bounds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number. Received: {name}={shown(value)}")
    bounds = {
        f"greater than {above}": above is None or value > above,
        f"at least {at_least}": at_least is None or value >= at_least,
        f"at most {at_most}": at_most is None or value <= at_most,
    }
    if not _is_finite(value) or not all(bounds.values()):
        expected = " and ".join(text for text in bounds if "None" not in text) or "finite"
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={shown(value)}")
    return value


def _is_finite(value):
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer outside the range of floats
        return False


def check_count(name, value, *, at_least=1):
    """Return `value`; raise unless it is an integer of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be an integer. Received: {name}={shown(value)}")
    if value < at_least:
        raise ValueError(f"`{name}` must be at least {at_least}. Received: {name}={shown(value)}")
    return value


def check_flag(name, value):
    """Return `value` as a bool; raise unless it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False. Received: {name}={shown(value)}")
    return bool(value)


def check_seed(name, value, *, at_least=-math.inf):
    """Raise unless `value` is None or an integer; NumPy's generators require at least 0."""
    if value is not None:
        check_count(name, value, at_least=at_least)


def check_function(name, value):
    """Raise unless `value` is None or can be called."""
    if value is not None and not callable(value):
        raise TypeError(f"`{name}` must be a function or None. Received: {name}={shown(value)}")


def as_array(name, value):
    """Return `value` (array, tensor of the backend, list, column of a table) as a NumPy array."""
    if isinstance(value, np.ndarray):
        if np.ma.is_masked(value):
            raise ValueError(
                f"`{name}` must have no masked entries. Received: a masked array with "
                f"{np.ma.count_masked(value)} masked entries. Omit their rows, or fill them with "
                "its method filled(value)."
            )
        # np.matrix, another subclass, redefines the operator *.
        return value if isinstance(value, np.memmap) else np.asarray(value)
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
            f"type {type(value).__name__}, which NumPy cannot convert: {error}"
        ) from error


def as_path(name, value):
    """Return `value` as a path that is valid on this system."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"`{name}` must be a path. Received: {name} of type {type(value).__name__}")
    path = Path(value)
    try:
        path.exists()
        if "\0" in str(path):
            raise ValueError("it contains a null character")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be a path that is valid on this system. Received: "
            f"{name}={shown(str(value))}: {shown(str(error))[1:-1]}"
        ) from error
    return path


def is_numeric(array):
    """Whether a NumPy array holds real numbers, including bfloat16 and float8 of ml_dtypes."""
    return array.dtype.kind in "biuf" or array.dtype.name.startswith(("bfloat", "float8"))


def as_tensor(name, value):
    """Return `value` as a tensor of numbers, or raise an error that names the argument."""
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
    # Keras converts Python numbers, which have no dtype, to floatx.
    return ops.convert_to_tensor(value if listed and array.size else array)


def at_least_float32(dtype):
    """The dtype in which distances of `dtype` are computed: float64 for float64, else float32."""
    return "float64" if dtype == "float64" else "float32"


def check_matrix(name, value):
    """Raise unless `value` has the rank and the dtype of `(batch, dim)` embeddings."""
    if len(value.shape) != 2 or value.shape[1] == 0:
        shape = tuple(value.shape)
        raise ValueError(f"`{name}` must have shape (batch, dim). Received: {name}.shape={shape}")
    check_floating(name, value)


def check_one_input(shape):
    """Raise unless a layer is built for one tensor with a features axis."""
    is_shape = isinstance(shape, (tuple, list)) and len(shape) > 0
    if not is_shape or any(isinstance(part, (tuple, list)) for part in shape):
        raise ValueError(
            "`inputs` must be one tensor (..., features), not a list of tensors, a number or None. "
            f"Received: inputs of the shape {shape}"
        )


def check_one_each(labels, embeddings, labels_name, embeddings_name):
    """Raise if two tensors have different numbers of rows; None is unknown."""
    if None in (labels.shape[0], embeddings.shape[0]) or labels.shape[0] == embeddings.shape[0]:
        return
    raise ValueError(
        f"Each embedding needs one label. Received: {labels_name}.shape={tuple(labels.shape)}, "
        f"{embeddings_name}.shape={tuple(embeddings.shape)}"
    )


def check_one_label_each(labels, embeddings):
    """Raise unless there is at least one embedding, and one label for each."""
    rows = labels.shape[0], embeddings.shape[0]
    if None not in rows and rows[0] != rows[1] or 0 in rows:
        raise ValueError(
            "`embeddings` must hold one row or more, and `labels` one id for each. Received: "
            f"embeddings.shape={tuple(embeddings.shape)}, labels.shape={tuple(labels.shape)}"
        )


def row_weights(sample_weight, batch=None):
    """Return `sample_weight` as a tensor of shape (), (batch,) or (batch, 1), or raise.

    pytorch-metric-learning takes the output of a miner as this argument.
    """
    several = isinstance(sample_weight, (list, tuple)) and any(
        len(getattr(part, "shape", ())) for part in sample_weight
    )
    if several:
        received = f"a {type(sample_weight).__name__} of {len(sample_weight)} arrays"
    else:
        weight = ops.convert_to_tensor(sample_weight)
        shape = tuple(weight.shape)
        fits = not shape or shape[0] in (1, None, batch) or batch is None
        if fits and shape[1:] in ((), (1,), (None,)):
            return weight
        rows = "" if batch is None else f" for {batch} rows"
        received = f"sample_weight.shape={shape}{rows}"
    raise ValueError(
        "`sample_weight` must be one number for each anchor, shape (batch,) or (batch, 1). "
        f"Received: {received}. The call is loss(labels, embeddings, sample_weight). A loss takes "
        "a miner, not its output: "
        'losses.TripletLoss(mining=keras_metric.layers.TripletMiner("hard")).'
    )


def check_not_swapped(y_true, y_pred):
    """Raise if the labels have the shape of embeddings and the embeddings that of labels."""
    if len(y_pred.shape) > 1 and y_pred.shape[1:] != (1,):
        return
    y_true = y_true if ops.is_tensor(y_true) else as_array("y_true", y_true)
    shape = tuple(y_true.shape)
    if len(shape) > 1 and shape[1:] != (1,) and _hot_kind(y_true) in ("other", "unknown"):
        raise ValueError(
            "The call is loss(labels, embeddings); in pytorch-metric-learning it is reversed. "
            f"Received: y_true.shape={shape}, y_pred.shape={tuple(y_pred.shape)}, the shapes of "
            "embeddings and labels: swap the two."
        )


def check_floating(name, value):
    """Raise unless the dtype of the tensor `value` is floating point."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
        raise ValueError(
            f"`{name}` must be floating point. Received: {name}.dtype={value.dtype}. "
            "Pass the encoder's output, or cast the vectors to float32."
        )


def is_missing(value):
    """Whether a label of any type is NaN, NaT or pandas' NA."""
    # Comparisons with NA return NA, whose truth value raises.
    return type(value).__name__ == "NAType" or bool(np.any(value != value))


def class_ids(labels, name="labels", takes_multi_hot=False):
    """Return `labels` as an integer tensor of shape `(batch,)`; ids are compared as integers.

    Accepts `(batch,)` or `(batch, 1)` of any integer dtype, and floats that are whole numbers in
    the exact range of their dtype. Other floats, strings and booleans raise. Floats of a traced
    tensor, whose values are unknown, become -1 if they are not ids; `invalid_ids` counts them.

    `takes_multi_hot`: whether the caller has the argument labels="multi_hot".
    """
    if ops.is_tensor(labels):
        _check_one_id_each(name, labels, takes_multi_hot)
    else:
        labels = ops.convert_to_tensor(checked_ids(labels, name, takes_multi_hot))
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if not (keras.backend.is_int_dtype(dtype) or dtype in _WHOLE_BELOW):
        raise _bad_ids(name, dtype)
    if dtype in _WHOLE_BELOW:
        if (values := _values(labels)) is not None:
            _check_whole(name, values, dtype)
        labels = ops.cast(ops.where(_are_whole(labels, dtype), labels, -1), "int32")
    if len(labels.shape) == 2:
        labels = ops.squeeze(labels, axis=1)
    # Small and unsigned types are cast, since not all of them support sorting and gathering. uint32
    # wraps around, which keeps ids distinct; JAX has no wider type.
    return ops.cast(labels, "int64" if dtype in ("int64", "uint64") else "int32")


def checked_ids(labels, name="labels", takes_multi_hot=False):
    """Return `labels` as an int32 NumPy array of shape `(rows,)` or `(rows, 1)`, or raise."""
    labels = as_array(name, labels)
    dtype = labels.dtype.name
    _check_one_id_each(name, labels, takes_multi_hot)
    if dtype in _WHOLE_BELOW:
        _check_whole(name, labels, dtype)
    elif labels.dtype.kind not in "iu":
        raise _bad_ids(name, dtype)
    # JAX truncates to 32 bits without an error.
    elif labels.size and (labels.min() < _INT32.min or labels.max() > _INT32.max):
        raise ValueError(
            f"`{name}` must fit 32-bit integers. Received ids from {labels.min()} to "
            f"{labels.max()}. Number them first: "
            "classes, ids = np.unique(labels, return_inverse=True)."
        )
    return labels.astype("int32")


def without_floats(name, labels, any_exact=False):
    """Return NumPy labels with floats converted to integers; raise for floats that are not ids.

    `any_exact`: whether to return other floats unchanged, unless ids may have been rounded.
    """
    dtype = labels.dtype.name
    if dtype not in _WHOLE_BELOW:
        return labels
    are_whole = _are_whole(labels, dtype, np).all()
    rounded = dtype != "float64" and (np.abs(labels) >= _WHOLE_BELOW[dtype]).any()
    if not are_whole and any_exact and not rounded:
        return labels
    _check_whole(name, labels, dtype)
    return labels.astype("int64")


def invalid_ids(labels):
    """Count the floats of a traced tensor that are not class ids, as a float32 scalar.

    Returns None for labels with known values, which `class_ids` checks.
    """
    if not ops.is_tensor(labels):
        return None
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if dtype not in _WHOLE_BELOW or _values(labels) is not None:
        return None
    return ops.sum(ops.cast(ops.logical_not(_are_whole(labels, dtype)), "float32"))


def nan_if_invalid(value, labels):
    """Return `value`, or NaN if a traced tensor of labels has floats that are not class ids."""
    number = invalid_ids(labels)
    return value if number is None else ops.where(ops.equal(number, 0), value, float("nan"))


def _are_whole(values, dtype, xp=ops):
    """Return booleans: which floats are whole and exact in their dtype; `xp=np` for arrays."""
    return xp.logical_and(values == xp.floor(values), xp.abs(values) < _WHOLE_BELOW[dtype])


def _check_whole(name, values, dtype):
    valid = _are_whole(values, dtype, np).reshape(-1)
    if valid.all():
        return
    row = int(np.argmin(valid))
    raise ValueError(
        f"`{name}` must be integer class ids, or floats that are whole numbers below "
        f"{_WHOLE_BELOW[dtype]}, up to which {dtype} is exact. Received: {name}.dtype={dtype} with "
        f"{values.reshape(-1)[row]} in row {row}. Cast larger ids to integers first: "
        "labels.astype('int64'). Number other values: "
        "classes, ids = np.unique(labels, return_inverse=True)."
    )


def _values(tensor):
    """Return the values of a tensor as a NumPy array, or None while it is traced."""
    try:
        return ops.convert_to_numpy(tensor)
    except Exception:  # Each backend raises its own type for a tensor without values.
        return None


def _one_hot_hint(name="labels"):
    """Return a sentence that explains how to convert one-hot labels to class ids."""
    return (
        f"One-hot labels become ids by {name}.argmax(axis=-1). Data sets yield ids with "
        'label_mode="int" (image_dataset_from_directory) or class_mode="sparse" '
        "(ImageDataGenerator)."
    )


def rows_hint(labels, name="labels"):
    """Return a sentence, after a space, for NumPy labels that are rows of 0 and 1; else ""."""
    kind = _hot_kind(labels)
    if kind == "one-hot":
        return " " + _one_hot_hint(name)
    if kind == "multi-hot":
        return ' Several labels for an item need a loss with labels="multi_hot".'
    return ""


def _hot_kind(labels):
    """Return "one-hot" or "multi-hot" for rows of 0 and 1, "other", or "unknown" if no values."""
    values = labels if isinstance(labels, np.ndarray) else _values(labels)
    # On PyTorch Keras builds a model with labels that are all 1.
    if values is None or (is_numeric(values) and (values == 1).all()):
        return "unknown"
    if values.ndim != 2 or not is_numeric(values) or not np.isin(values, (0, 1)).all():
        return "other"
    return "one-hot" if (values.astype("float32").sum(axis=1) == 1).all() else "multi-hot"


def _check_one_id_each(name, labels, takes_multi_hot):
    """Raise unless `labels` (array or tensor) has shape (batch,) or (batch, 1)."""
    shape = tuple(labels.shape)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return
    kind = _hot_kind(labels) if len(shape) == 2 else "other"
    hints = []
    if kind in ("one-hot", "unknown"):
        hints.append(_one_hot_hint())
    if kind in ("multi-hot", "unknown"):
        loss = "give the loss" if takes_multi_hot else "use a loss that takes"
        hints.append(f'For several labels per item (multi-hot rows) {loss} labels="multi_hot".')
    if kind in ("other", "unknown"):
        if name == "y_true":
            hints.append("The call is loss(labels, embeddings).")
        hints.append(_BARE_TUPLE)
    raise ValueError(
        f"`{name}` must have shape (batch,) or (batch, 1): one class id for each row. "
        f"Received: {name}.shape={shape}. " + " ".join(hints)
    )


def multi_hot(labels, name="labels"):
    """Return `labels` as a float32 tensor of zeros and ones, `(batch, classes)`."""
    values = _values(labels) if ops.is_tensor(labels) else as_array(name, labels)
    if values is not None and not (is_numeric(values) and np.isin(values, (0, 1)).all()):
        raise ValueError(
            f"`{name}` must be 0 or 1 for each class. Received: {name}.dtype={values.dtype}, "
            f"shape {values.shape}. The call is loss(labels, embeddings). Convert lists of ids by "
            "keras.layers.CategoryEncoding or sklearn.preprocessing.MultiLabelBinarizer."
        )
    labels = ops.convert_to_tensor(labels if ops.is_tensor(labels) else values)
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
    """Raise for a string or a set, and if a list, tuple or dict contains plain Python numbers.

    Keras interprets each item of a list as a separate input, and fails on PyTorch.
    """
    if isinstance(values, (str, bytes, set, frozenset)):
        raise TypeError(
            f"`{name}` must be an array, or a structure of arrays. Received: {name}={shown(values)}"
        )
    if not isinstance(values, (list, tuple, dict)):
        return
    for leaf in keras.tree.flatten(values):
        if isinstance(leaf, (int, float, complex)):
            raise TypeError(
                f"`{name}` must be an array, or a structure of arrays. Received: {name} with the "
                f"plain number {leaf!r} in it. Convert it: np.array({name})."
            )


def check_not_empty(name, values):
    """Raise if an array in a structure of arrays has no rows."""
    for leaf in keras.tree.flatten(values):
        shape = getattr(leaf, "shape", None)
        if shape is not None and len(shape) and shape[0] == 0:
            shape = tuple(shape)
            raise ValueError(
                f"`{name}` must hold at least one item. Received: {name}.shape={shape}"
            )


def check_not_hdf5(filepath):
    """Raise for a file name of Keras's legacy format, which cannot load the models."""
    if str(filepath).endswith((".h5", ".hdf5")):
        raise ValueError(
            "Keras cannot load these models from its legacy HDF5 format. Received: "
            f"filepath={str(filepath)!r}. Save to a file that ends in .keras, or save only the "
            "weights by save_weights to a file that ends in .weights.h5."
        )


def _bad_ids(name, dtype):
    return ValueError(
        f"`{name}` must be integer class ids. Received: {name}.dtype={dtype}. Number strings or "
        f"booleans first: classes, ids = np.unique(labels, return_inverse=True). {_BARE_TUPLE}"
    )
