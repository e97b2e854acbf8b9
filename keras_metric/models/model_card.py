"""Model card of an encoder: training data, evaluation results, and how to load it."""

import datetime

import keras

from keras_metric._text import as_markdown
from keras_metric.version import __version__

_MOST_NAMES = 30


def model_card(title, data, class_names, training, numbers, notes=()):
    """Return the model card as Markdown, to be saved next to an encoder.

    `data` and `training` are dicts from a property to its value; `numbers` is a dict from a row
    ("raw pixels", "trained encoder") to a dict of floats with the same names in each row; `notes`
    are sentences for the section on limits.
    """
    columns = list(next(iter(numbers.values())))
    names = ", ".join(map(as_markdown, class_names[:_MOST_NAMES]))
    if len(class_names) > _MOST_NAMES:
        names += f" and {len(class_names) - _MOST_NAMES:,} more"
    lines = [
        f"# {as_markdown(title)}",
        "",
        "This encoder maps an image to a vector; images of the same class get close vectors. A "
        "smaller cosine distance means more similar. It returns no class and no probability.",
        "",
        "## Data",
        "",
        *_table(data),
        "",
        f"Classes: {names}.",
        "",
        "## Evaluation results",
        "",
        "Each held-out image is a query among the other held-out images. An encoder is useful only "
        "if its results are better than those of raw pixels.",
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
        "- The results hold for similar images only. Evaluate the encoder on your own images: "
        "`keras-metric evaluate FOLDER`.",
        "- The threshold between same and different depends on the false accept rate (FAR) that "
        "the application accepts; `search.Index.calibrate` finds it.",
        *(f"- {note}" for note in notes),
        "",
        "## Loading",
        "",
        "```python",
        "import keras, keras_metric  # keras_metric registers the class",
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
