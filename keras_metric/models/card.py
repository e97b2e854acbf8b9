"""The model card: what an encoder was trained on, what it is worth, and how to load it."""

import datetime

import keras

from keras_metric._text import as_markdown
from keras_metric.version import __version__

_MOST_NAMES = 30


def model_card(title, data, class_names, training, numbers, notes=()):
    """The card as Markdown, for the file that lies beside a saved encoder.

    Args:
        title: Text for the heading.
        data: Dict from a property of the data to its value.
        class_names: Names of the classes, of which the first 30 are listed.
        training: Dict from a setting to its value.
        numbers: Dict from a row's name ("raw pixels", "trained encoder") to a dict of floats with
            the same names in each row.
        notes: Sentences for the section on limits.

    Example:
    >>> from keras_metric.models.card import model_card
    >>> numbers = {"raw pixels": {"recall_at_1": 0.5}, "trained encoder": {"recall_at_1": 0.75}}
    >>> text = model_card("Birds", {"images": 8}, ["hen", "owl"], {"epochs": 3}, numbers)
    >>> "| trained encoder | 0.750 |" in text
    True
    """
    columns = list(next(iter(numbers.values())))
    names = ", ".join(map(as_markdown, class_names[:_MOST_NAMES]))
    if len(class_names) > _MOST_NAMES:
        names += f" and {len(class_names) - _MOST_NAMES:,} more"
    lines = [
        f"# {as_markdown(title)}",
        "",
        "An encoder: it turns an image into a vector, so that images of one class lie close "
        "together. Smaller cosine distance means more alike; it gives no class and no "
        "probability.",
        "",
        "## Data",
        "",
        *_table(data),
        "",
        f"Classes: {names}.",
        "",
        "## What it is worth",
        "",
        "Each held-out image looks for its nearest among the other held-out images. An encoder "
        "that does not beat raw pixels has learned nothing.",
        "",
        f"| | {' | '.join(map(as_markdown, columns))} |",
        f"| --- |{' ---: |' * len(columns)}",
        *(
            f"| {as_markdown(row)} | {' | '.join(f'{values[column]:.3f}' for column in columns)} |"
            for row, values in numbers.items()
        ),
        "",
        "## Training",
        "",
        *_table(training),
        "",
        "## Limits",
        "",
        "- The numbers hold for images like these. Measure on your own before you rely on it: "
        "`keras-metric evaluate FOLDER`.",
        "- A threshold for same or different depends on how many false matches you can bear; "
        "`search.Index.calibrate` finds one.",
        *(f"- {note}" for note in notes),
        "",
        "## Loading",
        "",
        "```python",
        "import keras, keras_metric  # the second so that Keras knows the class",
        'encoder = keras.saving.load_model("encoder.keras")',
        "```",
        "",
        f"Written {datetime.date.today()} by keras_metric {__version__}, Keras "
        f"{keras.__version__} on {keras.backend.backend()}.",
    ]
    return "\n".join(lines) + "\n"


def _table(rows):
    cells = [[as_markdown(part) for part in row] for row in rows.items()]
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in cells)]
