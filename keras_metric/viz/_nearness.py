"""Who is near to whom, among the items of a picture."""

import numpy as np

from keras_metric.viz._style import as_labels, as_matrix, sample

_BLOCK = 1024  # rows measured at a time


def as_items(embeddings, labels):
    """Return float32 embeddings, labels as they are, and class numbers from 0."""
    embeddings = as_matrix("embeddings", embeddings).astype("float32", copy=False)
    labels = as_labels("labels", labels, len(embeddings))
    return embeddings, labels, np.unique(labels, return_inverse=True)[1]


def sampled_items(embeddings, labels, max_items, seed):
    """As `as_items`, of at most `max_items` rows, for pictures of neighbours.

    Returns:
        `(kept, embeddings, codes, classes)`: the rows that were kept, their embeddings and class
        numbers, and the label of every class number.
    """
    embeddings, labels, codes = as_items(embeddings, labels)
    if len(labels) < 2:
        raise ValueError(f"Neighbours need two items. Received: {len(labels)} in `embeddings`")
    kept = sample(len(labels), max_items, seed)
    return kept, embeddings[kept], codes[kept], np.unique(labels)


def distance_blocks(embeddings):
    """Yield `(start, squared Euclidean distances (rows, items))`; infinite from an item to itself.

    In double precision: squares of embeddings far from their mean would swallow small distances.
    """
    centred = embeddings - embeddings.mean(axis=0, dtype="float64")
    squares = np.square(centred).sum(axis=1)
    for start in range(0, len(centred), _BLOCK):
        rows = centred[start : start + _BLOCK]
        block = squares[start : start + _BLOCK, None] + squares - 2.0 * rows @ centred.T
        block = np.maximum(block, 0.0)
        block[np.arange(len(rows)), start + np.arange(len(rows))] = np.inf
        yield start, block


def nearest(embeddings, k):
    """Return the `(items, k)` nearest others of each item, nearest first."""
    k = min(k, len(embeddings) - 1)
    found = [
        np.argsort(block, axis=1, kind="stable")[:, :k] for _, block in distance_blocks(embeddings)
    ]
    return np.concatenate(found)


def closest_pairs(embeddings, allowed, most, farthest=False):
    """Return `most` pairs with the smallest (or largest) distance, no item in two of them.

    Args:
        embeddings: `(items, dim)`.
        allowed: Function from row numbers to a mask `(rows, items)` of the pairs to consider.
        most: Number of pairs.
        farthest: Whether the largest distances are sought.

    Returns:
        List of `(first, second, distance)`.
    """
    found = []
    for start, block in distance_blocks(embeddings):
        rows = np.arange(start, start + len(block))
        possible = allowed(rows) & (np.arange(len(embeddings)) > rows[:, None])
        keys = np.where(possible, -block if farthest else block, np.inf)
        # Each row's best few: the other pairs may have taken two items each.
        columns = np.argsort(keys, axis=1, kind="stable")[:, : 2 * most - 1]
        best = np.take_along_axis(keys, columns, axis=1)
        found += [
            (best[row, place], rows[row], columns[row, place])
            for row, place in zip(*np.nonzero(best < np.inf))
        ]
    pairs, used = [], set()
    for _, first, second in sorted(found):
        if len(pairs) < most and not {first, second} & used:
            used |= {first, second}
            gap = embeddings[first] - embeddings[second]
            pairs.append((int(first), int(second), float(np.sqrt(np.square(gap).sum()))))
    return pairs
