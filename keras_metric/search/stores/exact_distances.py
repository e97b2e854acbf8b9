"""Normalization of stored vectors, and exact distances between them in float64.

FAISS and Milvus rank candidates in float32, where a distance from a matrix product loses digits.
The distances that an index returns are computed again in float64 from the stored vectors.
"""

import numpy as np

METRICS = ("cosine", "dot", "euclidean", "squared_euclidean")
# Rows that are processed at once: 32 MB at 128 dimensions.
BLOCK = 65536


def normalized(rows):
    """Rows scaled to length 1, in float32; a zero row stays zero."""
    # Squares of large or tiny components overflow or underflow; squares of ratios do not.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    ratios = rows / np.where(largest == 0, 1, largest)
    return ratios / np.maximum(np.sqrt(np.square(ratios).sum(axis=1, keepdims=True)), 1)


def stored(rows, metric):
    """The rows as an index stores them: of length 1 under the cosine metric."""
    return normalized(rows) if metric == "cosine" else rows


def paired(queries, candidates, metric):
    """Distances `(rows, k)` of queries `(rows, dim)` to candidates `(rows, k, dim)`, in float64.

    Both must be in stored form.
    """
    result = np.empty(candidates.shape[:2])
    step = max(1, 2**21 // max(1, candidates.shape[1] * candidates.shape[2]))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        a, b = queries[block, None].astype("float64"), candidates[block].astype("float64")
        if metric in ("cosine", "dot"):
            result[block] = _from_products((a * b).sum(axis=-1), metric)
        else:
            result[block] = _from_squares(np.square(a - b).sum(axis=-1), metric)
    return result


def across(queries, items, metric):
    """Distances `(queries, items)` of every query to every item, in float64; stored form."""
    queries, items = np.asarray(queries, "float64"), np.asarray(items, "float64")
    products = queries @ items.T
    if metric in ("cosine", "dot"):
        return _from_products(products, metric)
    squares = np.square(queries).sum(1)[:, None] + np.square(items).sum(1) - 2 * products
    return _from_squares(np.maximum(squares, 0), metric)


def _from_products(products, metric):
    return -products if metric == "dot" else np.clip(1 - products, 0, 2)


def _from_squares(squares, metric):
    return np.sqrt(squares) if metric == "euclidean" else squares
