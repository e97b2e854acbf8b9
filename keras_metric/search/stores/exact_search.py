"""Exact nearest rows by FAISS, among all rows or a selection of them."""

import os
import sys
from contextlib import contextmanager
from functools import cache

import numpy as np

from keras_metric.search.stores.exact_distances import BLOCK, across, paired

# Candidates beyond k: FAISS ranks in float32, and exact distances may reverse near-ties. More are
# fetched until the ranking is certain, or until there are more than _MAX_SPARE: so many items at
# one distance are duplicates, of which any are the nearest.
_SPARE, _MAX_SPARE = 6, 400
# For few queries and a filter that keeps many rows, FAISS skips the other rows faster than the
# selected ones can be copied. For many queries the copy is faster.
_MANY_QUERIES = 8
_WIDE_FRACTION = 0.05
# From this number of queries on, a matrix product is up to 10 times faster than one pass a query.
# FAISS 1.15 itself uses products from 1,000 queries of 128 dimensions on.
_PRODUCT_QUERIES = 5


def nearest_rows(queries, vectors, k, metric, largest, rows=None, block=BLOCK):
    """The `k` nearest rows of each query and their exact distances, closest first.

    Fewer are returned only if there are fewer. What FAISS leaves out is farther by its float32
    score. The error of a score is bounded by the vector lengths; more candidates are fetched while
    that error could change the last match.

    `queries` and `vectors` are float32 arrays in stored form. `largest` is the squared length of
    the longest vector. `rows` are the rows to search, in rising order, or None for all. `block` is
    the number of selected rows that are copied at once.
    """
    total = len(vectors) if rows is None else len(rows)
    k = min(k, total)
    found, distances = np.empty((len(queries), k), "int64"), np.empty((len(queries), k))
    pending, spare = np.arange(len(queries)), _SPARE
    while k and len(pending):
        part = queries[pending]
        count = min(k + spare, total)
        scores, candidates = _search(part, vectors, count, metric, rows, block)
        exact = paired(part, vectors[candidates], metric)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        exact = np.take_along_axis(exact, order, axis=1)
        found[pending] = np.take_along_axis(candidates, order, axis=1)
        distances[pending] = exact
        if count == total or spare > _MAX_SPARE:
            break
        error = _score_error(part, largest, metric)
        certain = _as_score(exact[:, -1], metric) + error <= scores.max(axis=1)
        pending, spare = pending[~certain], 8 * spare
    return found, distances


@contextmanager
def matrix_products(queries):
    """Make FAISS use matrix products for this number of queries if that is faster.

    The setting is one for the whole process, and is restored to its first value. A concurrent
    search of another thread may use the slower method; its result is the same.
    """
    import faiss

    threshold = _default_threshold()
    if queries < _PRODUCT_QUERIES:
        yield
        return
    faiss.cvar.distance_compute_blas_threshold = 0
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = threshold


def bitmap(rows, size):
    """A FAISS selector of some of `size` rows."""
    import faiss

    mask = np.zeros(size, bool)
    mask[rows] = True
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def _score_error(queries, largest, metric):
    """Upper bound of the float32 error of the scores."""
    lengths = np.square(queries, dtype="float64").sum(axis=1)
    error = queries.shape[1] * np.finfo("float32").eps
    if metric in ("cosine", "dot"):
        return error * np.sqrt(lengths * largest)
    return error * np.square(np.sqrt(lengths) + np.sqrt(largest))


def _as_score(distances, metric):
    """Distances as FAISS scores them: minus the product, or the squared distance."""
    if metric == "cosine":
        return distances - 1
    return np.square(distances) if metric == "euclidean" else distances


def _search(queries, vectors, count, metric, rows, block):
    """Scores (smaller is closer) and rows of `count` candidates, unordered."""
    if rows is None:
        scores, found = _knn(queries, vectors, count, metric)
    elif len(queries) < _MANY_QUERIES and len(rows) > _WIDE_FRACTION * len(vectors):
        scores, found = _knn(queries, vectors, count, metric, bitmap(rows, len(vectors)))
    else:
        scores, found = _search_blocks(queries, vectors, count, metric, rows, block)
    lost = (found < 0).any(axis=1)
    if lost.any():
        # Squares of vectors beyond 1e19 overflow float32, and FAISS leaves their entries empty.
        found[lost] = _search_in_float64(queries[lost], vectors, count, metric, rows)
        scores[lost] = np.inf
    return scores, found


def _search_blocks(queries, vectors, count, metric, rows, block):
    """Copy the rows block by block, and keep the best of each block and those before it."""
    best_scores = best_rows = None
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        scores, found = _knn(queries, vectors[part], min(count, len(part)), metric)
        found = np.where(found < 0, -1, part[found])
        if best_rows is not None:
            scores = np.concatenate([best_scores, scores], axis=1)
            found = np.concatenate([best_rows, found], axis=1)
        if found.shape[1] > count:
            order = np.argpartition(scores, count - 1, axis=1)[:, :count]
            scores = np.take_along_axis(scores, order, axis=1)
            found = np.take_along_axis(found, order, axis=1)
        best_scores, best_rows = scores, found
    return best_scores, best_rows


def _knn(queries, vectors, count, metric, selector=None):
    """Scores (smaller is closer) and rows from one call of FAISS."""
    # Importing FAISS is slow, and training does not need it.
    import faiss

    shape = (len(queries), count)
    scores, found = np.empty(shape, "float32"), np.empty(shape, "int64")
    products = metric in ("cosine", "dot")
    search = faiss.knn_inner_product if products else faiss.knn_L2sqr
    sizes = [queries.shape[1], len(queries), len(vectors), count]
    # The additional argument of knn_L2sqr is the squared norms of the rows, None to compute them.
    optional = [] if selector is None else [selector] if products else [None, selector]
    x, y, d, i = map(faiss.swig_ptr, (queries, vectors, scores, found))
    with matrix_products(len(queries)):
        search(x, y, *sizes, d, i, *optional)
    return (-scores if products else scores), found


def _search_in_float64(queries, vectors, count, metric, rows):
    rows = np.arange(len(vectors)) if rows is None else rows
    order = np.argsort(across(queries, vectors[rows], metric), axis=1, kind="stable")
    return rows[order[:, :count]]


@cache
def _default_threshold():
    import faiss

    return faiss.cvar.distance_compute_blas_threshold


def _use_one_thread():
    """Give FAISS one thread in a forked child, where it would wait for the parent's threads."""
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)
