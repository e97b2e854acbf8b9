"""Re-ranking by k-reciprocal neighbours: those who find each other belong together."""

import numpy as np

from keras_metric._validation import check_count, check_number
from keras_metric.evaluation._distances import Geometry, key_distances, key_index
from keras_metric.evaluation._inputs import as_embeddings, as_gallery_embeddings
from keras_metric.evaluation._neighbors import key_blocks, nearest_keys


def k_reciprocal_distances(
    embeddings, gallery_embeddings=None, k1=20, k2=6, weight=0.3, progress=None
):
    """Measure queries against a gallery by the neighbours that they share.

    Reach for it after training, where each item has several relevant ones, as in person
    re-identification; give the result to `retrieval_metrics(..., metric="precomputed")`. All
    items, queries and gallery together, are neighbours of each other. N(i, k) are the k nearest of
    i and i itself, d the squared Euclidean distance divided by the largest one of its row:

        R(i, k) = those j of N(i, k) with i in N(j, k)
        R*(i) = R(i, k1), and R(j, k1 / 2) of those j in it with more than 2/3 of theirs in it
        v(i) = exp(-d(i, j)) at the places j of R*(i), divided by its sum
        u(i) = mean of v over the k2 nearest of i, itself the first
        jaccard(i, j) = 1 - sum min(u(i), u(j)) / sum max(u(i), u(j))
        result(i, j) = (1 - weight) * jaccard(i, j) + weight * d(i, j)

    The vectors u are kept sparse; only the result is as large as queries times gallery.

    Conventions elsewhere: as in the authors' code. The paper writes "at least 2/3", and leaves the
    scale of d open. Where copies of an item exist that code may count one of them as the item
    itself; here it is the index that tells.

    Args:
        embeddings: Array `(queries, dim)`, finite.
        gallery_embeddings: Array `(items, dim)`, or None: each query against all other queries.
        k1: Integer of at least 1: neighbours that are asked back. About the number of relevant
            items. The defaults are the authors' for Market-1501.
        k2: Integer of at least 1: neighbours that are averaged over; 1 for none.
        weight: Number in 0 to 1: what remains of the plain distance (lambda in the paper).
        progress: Bar on the standard error: None (default) on a terminal after two seconds, True
            always, False never.

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
    geometry = Geometry(items, items, "squared_euclidean")
    plain = np.empty((len(queries), len(items) - first), "float32")
    largest = np.empty(len(items))
    count = min(max(k1 + 1, k2), len(items))
    neighbors = np.empty((len(items), count), "int64")
    for rows, keys in key_blocks(geometry, "neighbours", progress):
        asked = range(rows.start, min(rows.stop, len(queries)))
        distances = key_distances(keys)
        largest[rows] = np.maximum(distances.max(axis=1), np.finfo("float32").tiny)
        if len(asked):
            part = slice(0, len(asked))
            plain[asked.start : asked.stop] = distances[part, first:] / largest[rows][part, None]
        keys[np.arange(len(keys)), np.arange(rows.start, rows.stop)] = -1  # itself the first
        neighbors[rows] = key_index(nearest_keys(keys, rows, count, without_self=False))
        neighbors[rows, 0] = np.arange(rows.start, rows.stop)
    vectors = _encoded(geometry, neighbors, largest, k1, k2)
    by_place = vectors[first:].tocsc()
    for row in range(len(queries)):
        there = slice(*vectors.indptr[row : row + 2])
        shared = _shared(vectors.indices[there], vectors.data[there], by_place)
        # Each vector sums to 1: the sum of the larger is 2 minus that of the smaller.
        plain[row] = (1.0 - weight) * (1.0 - shared / (2.0 - shared)) + weight * plain[row]
    return plain


def _encoded(geometry, neighbors, largest, k1, k2):
    """Return the sparse vectors u `(items, items)`."""
    from scipy import sparse

    mutual = _reciprocal(neighbors[:, : k1 + 1])
    half = _reciprocal(neighbors[:, : round(k1 / 2) + 1])
    # Entry (i, j): how much of j's half set is in i's set; only for j in i's set.
    overlap = (mutual @ half.T).multiply(mutual).tocoo()
    enough = 3 * overlap.data > 2 * half.sum(axis=1)[overlap.col]
    taken = sparse.csr_array(
        (np.ones(enough.sum(), "int64"), (overlap.row[enough], overlap.col[enough])), mutual.shape
    )
    places = (mutual + taken @ half).tocoo()
    values = np.exp(-geometry.paired(places.row, places.col) / largest[places.row])
    vectors = sparse.csr_array((values, (places.row, places.col)), mutual.shape)
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
    # Late: few evaluations want SciPy.
    from scipy import sparse

    items, count = neighbors.shape
    starts = np.arange(items + 1) * count
    return sparse.csr_array(
        (np.full(items * count, value), neighbors.ravel(), starts), (items, items)
    )


def _shared(places, values, by_place):
    """Return the sum over places of the smaller of a vector and each row of `by_place`."""
    columns = by_place[:, places]
    smaller = np.minimum(columns.data, np.repeat(values, np.diff(columns.indptr)))
    return np.bincount(columns.indices, smaller, by_place.shape[0])
