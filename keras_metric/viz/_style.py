"""What the pictures share: colours, symbols, and the checks of what is drawn."""

import numpy as np
from keras import ops

# Okabe and Ito's colours, told apart with every common kind of colour blindness, but for their
# yellow, which is too faint on white; and three dark ones of Paul Tol's that stand off from them.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"),
    *("#332288", "#882255", "#999933"),
)
SYMBOLS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "p")
RIGHT, WRONG, GREY = "#0072B2", "#D55E00", "#C8C8C8"


def as_matrix(name, value):
    """Return `value` as a finite float NumPy array of shape `(items, dim)`."""
    array = as_numpy(value)
    if array.ndim != 2 or array.dtype.kind in "OSUM" or 0 in array.shape:
        raise ValueError(
            f"`{name}` must be numbers of shape (items, dim), with at least one item. "
            f"Received: {name}.shape={array.shape}, {name}.dtype={array.dtype}"
        )
    array = array.astype("float64" if array.dtype == np.float64 else "float32", copy=False)
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite. Received: NaN or infinity in {name}")
    return array


def as_labels(name, value, num_items):
    """Return `value` as a NumPy array of shape `(num_items,)` of whatever kind."""
    array = as_numpy(value)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (num_items,):
        raise ValueError(
            f"`{name}` must have shape ({num_items},): one label for each item. "
            f"Received: {name}.shape={array.shape}"
        )
    return array


def as_numpy(value):
    """Return an array or a tensor of any backend as a NumPy array."""
    return ops.convert_to_numpy(value) if ops.is_tensor(value) else np.asarray(value)


def readable(label, class_names=None):
    """Return the text for a label: its name, if `class_names` (a list or a dict) has one."""
    return str(label if class_names is None else class_names[label])


def sample(num_items, limit, seed):
    """Return sorted indices: all of them, or `limit` drawn evenly with `seed`."""
    if num_items <= limit:
        return np.arange(num_items)
    return np.sort(np.random.default_rng(seed).choice(num_items, limit, replace=False))


def tidy(axes):
    """Take away the frame that says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
