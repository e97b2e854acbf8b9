"""The retrieval metrics that `train` and `evaluate` print, and their table."""

import numpy as np

from keras_metric import evaluation
from keras_metric.cli.messages import show

METRIC = "cosine"  # of all distances of the command, as in `search.Index`
_COLUMNS = ("recall_at_1", "recall_at_5", "map_at_r")


def as_rows(values):
    """Return images or embeddings as float32 rows `(items, numbers)`."""
    return np.asarray(values, "float32").reshape(len(values), -1)


def evaluate_retrieval(vectors, labels):
    """Return the retrieval metrics of the table."""
    vectors, metric = cosine_equivalent(vectors)
    found = evaluation.retrieval_metrics(vectors, labels, k=(1, 5), metric=metric)
    return {name: found[name] for name in _COLUMNS}


def cosine_equivalent(vectors):
    """Return rows and a metric that rank all pairs like the cosine distance.

    The Euclidean distance of rows of length 1 takes half the time for raw pixels. Rows of zeros
    (black images) cannot be scaled to length 1.
    """
    vectors = as_rows(vectors)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / lengths, "euclidean") if lengths.all() else (vectors, METRIC)


def say_table(numbers):
    """Print a table of `{row: {column: number}}`."""
    columns = list(next(iter(numbers.values())))
    show(f"\n{f'{METRIC} distance':18}" + "".join(f"  {column:>11}" for column in columns))
    for row, values in numbers.items():
        show(f"{row:18}" + "".join(f"  {values[column]:11.3f}" for column in columns))
    show("")
