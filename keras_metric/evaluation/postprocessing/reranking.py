"""Re-ranking by k-reciprocal neighbours: items that are among each other's nearest."""

import numpy as np

from keras_metric._validation import check_count, check_number
from keras_metric.evaluation._input_checks import as_embeddings, as_gallery_embeddings
from keras_metric.neighbors import (
    ExactDistances,
    key_blocks,
    key_distances,
    key_index,
    smallest_keys,
)


def k_reciprocal_distances(
    embeddings, gallery_embeddings=None, k1=20, k2=6, weight=0.3, progress=None
):
    """Compute distances of queries to a gallery from the neighbours that they have in common.

    It improves the ranking after training if each item has several relevant ones, as in person
    re-identification. Pass the result to `retrieval_metrics(..., metric="precomputed")`. Queries
    and gallery together are the candidate neighbours. N(i, k) are the k nearest of i and i itself,
    d the squared Euclidean distance divided by the largest one of its row:

        R(i, k) = those j of N(i, k) with i in N(j, k)
        R*(i) = R(i, k1), and R(j, k1 / 2) of the j in R(i, k1) with more than 2/3 of it in R(i, k1)
        v(i) = exp(-d(i, j)) at the positions j of R*(i), divided by its sum
        u(i) = mean of v over the k2 nearest of i, the first of which is i
        jaccard(i, j) = 1 - sum min(u(i), u(j)) / sum max(u(i), u(j))
        result(i, j) = (1 - weight) * jaccard(i, j) + weight * d(i, j)

    The vectors u are sparse; only the result is as large as queries times gallery.

    Other conventions: this is the authors' code. The paper has "at least 2/3" and does not specify
    the scale of d. If an item has copies, that code may use one of them as the item itself; this
    function uses the index.

    Args:
        embeddings: Array `(queries, dim)`, finite.
        gallery_embeddings: Array `(items, dim)`, or None: each query against all other queries.
        k1: Integer of at least 1: neighbours that must be mutual, about the number of relevant
            items. The defaults are the authors' for Market-1501.
        k2: Integer of at least 1: neighbours whose vectors are averaged; 1 for no average.
        weight: Number in 0 to 1: weight of the original distance (lambda in the paper).
        progress: Bar: True always, False never, None (default) on terminals after two seconds.

    Returns:
        Float32 array `(queries, items)`, `(queries, queries)` without a gallery; smaller is closer.

    Raises:
        ValueError: NaN or infinity, or widths that differ.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import k_reciprocal_distances, retrieval_metrics
        >>> x, y = np.array([[0.0], [1.0], [2.0], [2.9], [4.0]]), ["a", "a", "a", "b", "b"]
        >>> reranked = k_reciprocal_distances(x, k1=2, k2=1)
        >>> plain = retrieval_metrics(x, y, k=1)
        >>> better = retrieval_metrics(reranked, y, k=1, metric="precomputed")
        >>> plain["recall_at_1"], better["recall_at_1"]
        (0.6, 0.8)

    Reference:
        Zhong, Zheng, Cao, Li (2017), Re-ranking Person Re-identification with k-reciprocal
        Encoding, https://arxiv.org/abs/1701.08398.
    """
    check_count("k1", k1)
    check_count("k2", k2)
    check_number("weight", weight, at_least=0, at_most=1)
    queries = as_embeddings("embeddings", embeddings)
    items, first = queries, 0
    if gallery_embeddings is not None:
        gallery = as_gallery_embeddings(gallery_embeddings, queries.shape)
        items, first = np.concatenate([queries, gallery]), len(queries)
    if len(items) == 0:
        return np.empty((0, 0), "float32")
    measured = ExactDistances(items, items, "squared_euclidean")
    plain = np.empty((len(queries), len(items) - first), "float32")
    largest = np.empty(len(items))
    count = min(max(k1 + 1, k2), len(items))
    neighbors = np.empty((len(items), count), "int64")
    for rows, keys in key_blocks(measured, "neighbours", progress):
        distances = key_distances(keys)
        largest[rows] = np.maximum(distances.max(axis=1), np.finfo("float32").tiny)
        stop = min(rows.stop, len(queries))
        if rows.start < stop:
            part = distances[: stop - rows.start, first:]
            plain[rows.start : stop] = part / largest[rows.start : stop, None]
        keys[np.arange(len(keys)), np.arange(rows.start, rows.stop)] = -1  # the item itself first
        neighbors[rows] = key_index(smallest_keys(keys, count))
        neighbors[rows, 0] = np.arange(rows.start, rows.stop)
    vectors = _encoded(measured, neighbors, largest, k1, k2)
    by_position = vectors[first:].tocsc()
    for row in range(len(queries)):
        entries = slice(*vectors.indptr[row : row + 2])
        smaller = _sum_of_smaller(vectors.indices[entries], vectors.data[entries], by_position)
        # Each vector sums to 1, so the sum of the larger entries is 2 minus that of the smaller.
        plain[row] = (1.0 - weight) * (1.0 - smaller / (2.0 - smaller)) + weight * plain[row]
    return plain


def _encoded(measured, neighbors, largest, k1, k2):
    """Return the sparse vectors u `(items, items)`."""
    from scipy import sparse

    mutual = _reciprocal(neighbors[:, : k1 + 1])
    half = _reciprocal(neighbors[:, : round(k1 / 2) + 1])
    # Entry (i, j): how many items of j's half set are in i's set, for j in i's set.
    overlap = (mutual @ half.T).multiply(mutual).tocoo()
    enough = 3 * overlap.data > 2 * half.sum(axis=1)[overlap.col]
    taken = sparse.csr_array(
        (np.ones(enough.sum(), "int64"), (overlap.row[enough], overlap.col[enough])), mutual.shape
    )
    entries = (mutual + taken @ half).tocoo()
    values = np.exp(-measured.paired(entries.row, entries.col) / largest[entries.row])
    vectors = sparse.csr_array((values, (entries.row, entries.col)), mutual.shape)
    vectors.data /= np.repeat(vectors.sum(axis=1), np.diff(vectors.indptr))
    if k2 == 1:
        return vectors
    near = neighbors[:, :k2]
    return (_table(near, 1.0 / near.shape[1]) @ vectors).tocsr()


def _reciprocal(neighbors):
    table = _table(neighbors, 1)
    return table.multiply(table.T).tocsr()


def _table(neighbors, value):
    """Return a sparse matrix with `value` at the neighbours of each row."""
    # Imported here because few evaluations need SciPy.
    from scipy import sparse

    items, count = neighbors.shape
    starts = np.arange(items + 1) * count
    return sparse.csr_array(
        (np.full(items * count, value), neighbors.ravel(), starts), (items, items)
    )


def _sum_of_smaller(positions, values, by_position):
    """Return the sum of the smaller entries of a vector and each row of `by_position`."""
    columns = by_position[:, positions]
    smaller = np.minimum(columns.data, np.repeat(values, np.diff(columns.indptr)))
    return np.bincount(columns.indices, smaller, by_position.shape[0])
