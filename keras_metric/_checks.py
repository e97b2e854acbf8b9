"""Checks of arguments: each raises with what was expected, what was received, and the way out."""

import math
import numbers

import keras
import numpy as np
from keras import ops

_INT32 = np.iinfo(np.int32)


def check_choice(name, value, choices):
    """Raise unless `value` is one of the strings `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"`{name}` must be one of {sorted(choices)}. Received: {name}={value!r}")


def check_number(name, value, *, above=None, at_least=None, at_most=None):
    """Raise unless `value` is a finite real number inside the given bounds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number. Received: {name}={value!r}")
    bounds = []
    if above is not None:
        bounds.append((value > above, f"greater than {above}"))
    if at_least is not None:
        bounds.append((value >= at_least, f"at least {at_least}"))
    if at_most is not None:
        bounds.append((value <= at_most, f"at most {at_most}"))
    if not math.isfinite(value) or not all(holds for holds, _ in bounds):
        wanted = " and ".join(text for _, text in bounds) or "finite"
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r}")


def check_count(name, value, *, at_least=1):
    """Raise unless `value` is an integer of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be an integer. Received: {name}={value!r}")
    if value < at_least:
        raise ValueError(f"`{name}` must be at least {at_least}. Received: {name}={value!r}")


def check_flag(name, value):
    """Raise unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False. Received: {name}={value!r}")


def check_matrix(name, value):
    """Raise unless `value` has the rank and the dtype of `(batch, dim)` embeddings."""
    if len(value.shape) != 2:
        raise ValueError(
            f"`{name}` must have shape (batch, dim). Received: {name}.shape={tuple(value.shape)}"
        )
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
        raise ValueError(
            f"`{name}` must be floating point. Received: {name}.dtype={value.dtype}. "
            "Pass the encoder's output, or cast the vectors to float32."
        )


def class_ids(labels, name="labels"):
    """Return `labels` as an integer tensor of shape `(batch,)`; ids are compared as integers.

    Accepts `(batch,)` or `(batch, 1)` of any integer dtype. Floats, strings and booleans raise:
    a float32 cannot tell 16777216 from 16777217, and the way out is one line.
    """
    if not ops.is_tensor(labels):
        labels = np.asarray(labels)
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
        labels = np.asarray(labels)
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


def _bad_ids(name, dtype):
    return ValueError(
        f"`{name}` must be integer class ids. Received: {name}.dtype={dtype}. "
        "Number strings or floats first: "
        "classes, ids = np.unique(labels, return_inverse=True). "
        "If the data set yields (anchor, positive, negative), Keras reads such a bare 3-tuple as "
        "(x, y, sample_weight): yield ((anchor, positive, negative),) or a dict "
        '{"anchor": ..., "positive": ..., "negative": ...} instead.'
    )
