"""Exact nearest rows by FAISS, over all rows or inside a selection."""

import os
import sys
from contextlib import contextmanager
from functools import cache

import numpy as np

from keras_metric.search.stores.vectors import BLOCK, across, paired

# Candidates beyond k: FAISS ranks in float32, and exact distances may turn near-ties round. Where
# more than so many items stand equally close, as copies do, any of them are the nearest.
_SPARE, _MOST_SPARE = 6, 400
# For few queries and a wide filter, FAISS skipping rows is cheaper than copying the others
# together; for many queries the copy pays.
_MANY_QUERIES = 8
_WIDE = 0.05
# From so many queries on a matrix product beats one pass for each query, up to ten times. FAISS
# 1.15 by itself begins with 1,000 queries of 128 dimensions.
_PRODUCT_QUERIES = 5


def nearest_rows(queries, vectors, k, metric, largest, rows=None):
    """The `k` nearest rows of each query and their exact distances, closest first.

    `rows` narrows the search to some rows, in rising order. Every query gets as many as there
    are, up to `k`. `largest` is the squared length of the longest vector: what FAISS leaves out is
    farther by its float32 score, and the score's error, bounded by the lengths, must not reach
    the last match; else more candidates are fetched.
    """
    total = len(vectors) if rows is None else len(rows)
    k = min(k, total)
    found, distances = np.empty((len(queries), k), "int64"), np.empty((len(queries), k))
    open_rows, spare = np.arange(len(queries)), _SPARE
    while k and len(open_rows):
        asked = queries[open_rows]
        count = min(k + spare, total)
        scores, candidates = _search(asked, vectors, count, metric, rows)
        exact = paired(asked, vectors[candidates], metric)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        exact = np.take_along_axis(exact, order, axis=1)
        found[open_rows] = np.take_along_axis(candidates, order, axis=1)
        distances[open_rows] = exact
        if count == total or spare > _MOST_SPARE:
            break
        error = _error(asked, largest, metric)
        sure = _as_score(exact[:, -1], metric) + error <= scores.max(axis=1)
        open_rows, spare = open_rows[~sure], 8 * spare
    return found, distances


def _error(queries, largest, metric):
    """A bound of what float32 makes of the scores."""
    lengths = np.square(queries, dtype="float64").sum(axis=1)
    worst = queries.shape[1] * np.finfo("float32").eps
    if metric in ("cosine", "dot"):
        return worst * np.sqrt(lengths * largest)
    return worst * np.square(np.sqrt(lengths) + np.sqrt(largest))


def _as_score(distances, metric):
    """Distances in FAISS's terms: minus the product, or the squared distance."""
    if metric == "cosine":
        return distances - 1
    return np.square(distances) if metric == "euclidean" else distances


def _search(queries, vectors, count, metric, rows):
    """Scores, smaller is closer, and rows of `count` candidates, in no order."""
    if rows is None:
        scores, found = _knn(queries, vectors, count, metric)
    elif len(queries) < _MANY_QUERIES and len(rows) > _WIDE * len(vectors):
        scores, found = _knn(queries, vectors, count, metric, _bitmap(rows, len(vectors)))
    else:
        scores, found = _search_blocks(queries, vectors, count, metric, rows)
    lost = (found < 0).any(axis=1)
    if lost.any():
        # Squares of vectors beyond 1e19 leave float32, and FAISS leaves their places empty.
        found[lost] = _by_hand(queries[lost], vectors, count, metric, rows)
        scores[lost] = np.inf
    return scores, found


def _search_blocks(queries, vectors, count, metric, rows):
    """Gather the rows block by block, and keep the best of each block and those before it."""
    best_scores = best_rows = None
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        gathered = vectors[block]
        scores, found = _knn(queries, gathered, min(count, len(block)), metric)
        found = np.where(found < 0, -1, block[found])
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
    """Scores (smaller is closer) and rows, by one call of FAISS."""
    # Loading FAISS takes a while, and who only trains never needs it.
    import faiss

    shape = (len(queries), count)
    scores, found = np.empty(shape, "float32"), np.empty(shape, "int64")
    products = metric in ("cosine", "dot")
    search = faiss.knn_inner_product if products else faiss.knn_L2sqr
    arguments = [faiss.swig_ptr(queries), faiss.swig_ptr(vectors), queries.shape[1]]
    arguments += [len(queries), len(vectors), count]
    arguments += [faiss.swig_ptr(scores), faiss.swig_ptr(found)]
    if selector is not None:
        # The squared norms of the rows, which FAISS then computes itself, stand in between.
        arguments += [selector] if products else [None, selector]
    with by_products(len(queries)):
        search(*arguments)
    return (-scores if products else scores), found


@contextmanager
def by_products(queries):
    """FAISS takes matrix products for this number of queries, if that is quicker.

    Its bound is one for the whole process, so it is set back to what it was at first. A search of
    another thread that begins meanwhile may take the slower way, to the same neighbours.
    """
    import faiss

    bound = _first_bound()
    if queries < _PRODUCT_QUERIES:
        yield
        return
    faiss.cvar.distance_compute_blas_threshold = 0
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = bound


def _run_alone():
    """Give FAISS one thread in a forked child, where it would wait for threads of the parent."""
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run_alone)


@cache
def _first_bound():
    import faiss

    return faiss.cvar.distance_compute_blas_threshold


def _bitmap(rows, size):
    import faiss

    mask = np.zeros(size, bool)
    mask[rows] = True
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def _by_hand(queries, vectors, count, metric, rows):
    rows = np.arange(len(vectors)) if rows is None else rows
    order = np.argsort(across(queries, vectors[rows], metric), axis=1, kind="stable")
    return rows[order[:, :count]]
