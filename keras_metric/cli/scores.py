"""The numbers that every table of the command shows."""

import numpy as np

from keras_metric import evaluation
from keras_metric.cli.messages import say

METRIC = "cosine"  # of every distance that the command measures, as that of `search.Index`
_COLUMNS = ("recall_at_1", "recall_at_5", "map_at_r")


def flat(values):
    """Float32 rows, `(items, numbers)`, of images or embeddings."""
    return np.asarray(values, "float32").reshape(len(values), -1)


def judge(vectors, labels):
    """The retrieval metrics of the table."""
    vectors, metric = ranked_alike(vectors)
    found = evaluation.retrieval_metrics(vectors, labels, k=(1, 5), metric=metric)
    return {name: found[name] for name in _COLUMNS}


def ranked_alike(vectors):
    """Return rows and a metric that order all pairs as the cosine distance does.

    The Euclidean distance of rows of length 1 does, and takes half the time for raw pixels. A row
    of zeros, an image that is all black, has no such length.
    """
    vectors = flat(vectors)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / lengths, "euclidean") if lengths.all() else (vectors, METRIC)


def say_table(numbers):
    """Print `{row: {column: number}}`."""
    columns = list(next(iter(numbers.values())))
    say(f"\n{f'{METRIC} distance':18}" + "".join(f"  {column:>11}" for column in columns))
    for row, values in numbers.items():
        say(f"{row:18}" + "".join(f"  {values[column]:11.3f}" for column in columns))
    say("")
