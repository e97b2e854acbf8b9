"""Expected results of an index, from slow loops that use nothing of keras_metric."""

import numpy as np


def distance(a, b, metric):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if metric == "dot":
        return -(a @ b)
    if metric == "cosine":
        size = np.linalg.norm(a) * np.linalg.norm(b)
        return 1 - (a @ b) / size if size else 1.0
    squares = np.square(a - b).sum()
    return np.sqrt(squares) if metric == "euclidean" else squares


def fits(attributes, where):
    """Whether an item with these attributes fulfils all conditions."""
    for name, condition in where.items():
        if name not in attributes:
            return False
        value = attributes[name]
        if isinstance(condition, tuple):
            low, high = condition
            if (low is not None and value < low) or (high is not None and value > high):
                return False
        elif value not in (condition if isinstance(condition, list) else [condition]):
            return False
    return True


def neighbours(queries, items, metric, where=None):
    """For each query every item that fits `where` as (distance, id), closest first."""
    items = [item for item in items if fits(item["attributes"], where or {})]
    return [
        sorted((distance(query, item["x"], metric), item["id"]) for item in items)
        for query in queries
    ]


def content(index):
    """Everything that an index has, as a dict."""
    return {
        item.id: (type(item.id), item.label, item.embedding.tolist(), item.attributes)
        for item in index
    }
