"""What the pictures share: colours, symbols, and the checks of what is drawn."""

import numpy as np

from keras_metric._text import visible
from keras_metric._validation import as_array, is_numeric, rows_hint

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
    array = as_array(name, value)
    if array.ndim != 2 or not is_numeric(array) or 0 in array.shape:
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
    array = as_array(name, value)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (num_items,):
        raise ValueError(
            f"`{name}` must have shape ({num_items},): one label for each item. "
            f"Received: {name}.shape={array.shape}.{rows_hint(array, name)}"
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(
            f"`{name}` must be labels. Received: NaN in {name}. Leave items without a label out."
        )
    try:
        # The order in which classes are drawn.
        np.sort(array)
    except TypeError as error:
        raise ValueError(
            f"`{name}` must be comparable with each other, all of one type. Received: "
            f"{name}.dtype={array.dtype}"
        ) from error
    return array


def new_figure(**settings):
    """Return a matplotlib `Figure`; imported late, since most who import the package draw none."""
    from matplotlib.figure import Figure

    return Figure(**settings)


def readable(label, class_names=None):
    """Return the text for a label: its name, if `class_names` (a list or a dict) has one."""
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        label = int(label)  # A float is no position in a list.
    if class_names is None:
        return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
    check_class_names(class_names)
    try:
        # A list counts from its end below 0, and would name "no class" by its last one.
        if not hasattr(class_names, "keys") and label < 0:
            raise IndexError
        return str(class_names[label])
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"`class_names` must have a name for each label. Received: none for {label!r}"
        ) from error


def check_class_names(class_names):
    """Raise unless `class_names` is None or can be asked for the name of a label."""
    # A string has a name of one letter for each label.
    if class_names is not None and not hasattr(class_names, "__getitem__"):
        raise TypeError(
            "`class_names` must be a list or a dict from a label to its name. Received: "
            f"class_names of type {type(class_names).__name__}"
        )


def shorten(text, most=14):
    """Return a text for matplotlib, of at most `most` letters.

    The middle is left out: names of one family may differ at their end only.
    """
    text = visible(text)
    if not text.strip():
        return "(empty)"
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[most // 2 + 1 - most :]}"
    # A pair of dollar signs begins a formula; a legend leaves out what begins with "_".
    return text.replace("$", r"\$").replace("_", " _", text.startswith("_"))


def sample(num_items, limit, seed):
    """Return sorted indices: all of them, or `limit` drawn evenly with `seed`."""
    if num_items <= limit:
        return np.arange(num_items)
    return np.sort(np.random.default_rng(seed).choice(num_items, limit, replace=False))


def tidy(axes):
    """Take away the frame that says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
