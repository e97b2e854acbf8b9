"""The metrics that `train` and `evaluate` print, and their table."""

import numpy as np

from keras_metric import evaluation
from keras_metric.cli.messages import show

METRIC = "cosine"  # of all distances of the command, as in `search.Index`
_COLUMNS = ("recall_at_1", "recall_at_5", "map_at_r", "auc", "eer")


def evaluate_vectors(vectors, labels, verification=False):
    """Return the metrics of images or embeddings; `verification` adds those of pairs.

    The Euclidean distance of rows of length 1 ranks pairs like the cosine distance, in half the
    time for raw pixels. Rows of zeros (black images) cannot be scaled to length 1.
    """
    vectors = np.asarray(vectors, "float32").reshape(len(vectors), -1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors, metric = (vectors / lengths, "euclidean") if lengths.all() else (vectors, METRIC)
    found = evaluation.retrieval_metrics(vectors, labels, k=(1, 5), metric=metric)
    if verification:
        distances, same = evaluation.pair_distances(vectors, labels, metric=metric)
        found |= evaluation.verification_metrics(distances, same)
    return {name: found[name] for name in _COLUMNS if name in found}


def show_table(numbers):
    """Print a table of `{row: {column: number}}`."""
    columns = list(next(iter(numbers.values())))
    show(f"\n{f'{METRIC} distance':18}" + "".join(f"  {column:>11}" for column in columns))
    for row, values in numbers.items():
        show(f"{row:18}" + "".join(f"  {values[column]:11.3f}" for column in columns))
    show("")
