"""Colours, symbols, texts and axes that all plots use."""

import numpy as np

from keras_metric._text import visible

# Okabe and Ito's colours, which are distinct with every common kind of colour blindness, without
# their yellow, which is too faint on white; and three dark colours of Paul Tol.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"),
    *("#332288", "#882255", "#999933"),
)
SYMBOLS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "p")
LINES = ("-", "--", "-.", ":")
RIGHT, WRONG, GREY = "#0072B2", "#D55E00", "#C8C8C8"


def new_figure(width, height):
    """Return a matplotlib `Figure` of a size in inches."""
    # Imported here because most programs that import the package plot nothing.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def show_image(axes, image, title="", **text):
    """Show uint8 pixels without ticks and frame, under a title."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, **text)


def readable(label, class_names=None):
    """Return the text for a label: its name, if `class_names` (a list or a dict) has one."""
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        label = int(label)  # A float cannot index a list.
    if class_names is None:
        return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
    check_class_names(class_names)
    try:
        # A negative index would return one of the last names of a list.
        if not hasattr(class_names, "keys") and label < 0:
            raise IndexError
        return str(class_names[label])
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"`class_names` must have a name for each label. Received: none for {label!r}"
        ) from error


def check_class_names(class_names):
    """Raise unless `class_names` is None or can be indexed by a label; a string can."""
    if class_names is not None and not hasattr(class_names, "__getitem__"):
        raise TypeError(
            "`class_names` must be a list or a dict from a label to its name. Received: "
            f"class_names of type {type(class_names).__name__}"
        )


def shorten(text, most=14):
    """Return a text for matplotlib, of at most `most` letters.

    The middle is removed: similar names often differ only at their end.
    """
    text = visible(text)
    if not text.strip():
        return "(empty)"
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[most // 2 + 1 - most :]}"
    # A pair of dollar signs starts a formula; legends omit texts that start with "_".
    return text.replace("$", r"\$").replace("_", " _", text.startswith("_"))


def curve_style(number, name, text):
    """Return the arguments of a line: colour, dashes and label of curve `number`."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": LINES[number % len(LINES)],
        "linewidth": 1.6,
        "label": f"{shorten(str(name), 28)}: {text}" if name else text,
    }


def add_labels(axes, xlabel, ylabel, legend_columns=0):
    """Label the axes, remove two frames, and add a legend below if it has columns."""
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if legend_columns:
        settings = {"loc": "outside lower center", "fontsize": 8, "frameon": False}
        axes.figure.legend(**settings, ncols=legend_columns)
