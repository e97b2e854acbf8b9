"""Vectors of an index: what comes in is checked, what is measured is exact.

FAISS and Milvus choose candidates in float32, where a distance from a matrix product loses
digits; the distances that an index answers with are computed anew, in float64, from the stored
vectors.
"""

import numpy as np
from keras import ops

from keras_metric._validation import as_array, is_numeric

METRICS = ("cosine", "dot", "euclidean", "squared_euclidean")
# Rows that are handled at once: 32 MB at 128 dimensions.
BLOCK = 65536
# Arguments of the methods of Index for a caller who has raw inputs.
_CALLS = {
    "add": "encoder.predict(images), labels",
    "replace": "encoder.predict(images), labels, ids",
    "enrol": "encoder.predict(images), label",
    "search": "encoder.predict(images)",
    "staged_search": "encoder.predict(images), stages",
    "verify": "encoder.predict(image[None]), id",
    "identify": "encoder.predict(images)",
    "calibrate": "encoder.predict(images), labels",
}


def as_vectors(name, value, dim, method="add"):
    """Return `value` as a finite, contiguous float32 array `(rows, dim)`, uncopied if it is one.

    Errors about raw inputs propose to embed them first, and then to call `method` of the index.
    """
    # Asking Keras first would cost a single query a tenth of a millisecond.
    known = isinstance(value, np.ndarray) or not ops.is_tensor(value)
    array = as_array(name, value) if known else ops.convert_to_numpy(value)
    if array.ndim != 2:
        vector = array.ndim == 1 and is_numeric(array)
        raise ValueError(
            f"`{name}` must have shape (rows, {dim}). Received: {name}.shape={array.shape}. "
            + ("A single vector becomes a row by vector[None]." if vector else _embed_first(method))
        )
    if array.shape[1] != dim:
        raise ValueError(
            f"`{name}` must have the width of this index, dim={dim}. Received: "
            f"{name}.shape={array.shape}. {_embed_first(method)} Vectors of another encoder belong "
            "in another index."
        )
    if array.dtype.kind == "b" or not is_numeric(array):
        raise TypeError(
            f"`{name}` must be numbers. Received: {name}.dtype={array.dtype}. "
            + _embed_first(method)
        )
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, "float32")
    for start in range(0, len(array), BLOCK):
        block = array[start : start + BLOCK]
        # A sum is finite if every part is: one pass, no mask. What overflows is looked at closely.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(block.sum()):
                continue
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"`{name}` must be finite float32. Received: NaN or infinity in row "
                f"{start + int(np.argmin(finite))} of {name}.shape={array.shape}. Nothing was "
                "changed. The encoder diverged, or a zero vector was normalised."
            )
    return array


def _embed_first(method):
    return f"Embed raw inputs first: `index.{method}({_CALLS[method]})`."


def normalized(rows):
    """Rows scaled to length 1, in float32; a zero row stays zero."""
    # Squares of large or tiny components leave float32, those of ratios do not.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    ratios = rows / np.where(largest == 0, 1, largest)
    return ratios / np.maximum(np.sqrt(np.square(ratios).sum(axis=1, keepdims=True)), 1)


def stored(rows, metric):
    """The form in which an index keeps its rows: of length 1 under the cosine metric."""
    return normalized(rows) if metric == "cosine" else rows


def paired(queries, candidates, metric):
    """Exact distances `(rows, k)` of queries `(rows, dim)` to candidates `(rows, k, dim)`.

    All in stored form; float64.
    """
    result = np.empty(candidates.shape[:2])
    step = max(1, 2**21 // max(1, candidates.shape[1] * candidates.shape[2]))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        a, b = queries[block].astype("float64"), candidates[block].astype("float64")
        result[block] = _measure(a[:, None], b, metric)
    return result


def across(queries, items, metric):
    """Float64 distances `(rows, items)` of every query to every item, both in stored form."""
    queries, items = np.asarray(queries, "float64"), np.asarray(items, "float64")
    products = queries @ items.T
    if metric == "cosine":
        return np.clip(1 - products, 0, 2)
    if metric == "dot":
        return -products
    squares = np.square(queries).sum(1)[:, None] + np.square(items).sum(1) - 2 * products
    squares = np.maximum(squares, 0)
    return np.sqrt(squares) if metric == "euclidean" else squares


def _measure(a, b, metric):
    if metric in ("cosine", "dot"):
        products = (a * b).sum(axis=-1)
        return -products if metric == "dot" else np.clip(1 - products, 0, 2)
    squares = np.square(a - b).sum(axis=-1)
    return np.sqrt(squares) if metric == "euclidean" else squares
