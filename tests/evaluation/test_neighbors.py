"""Exact nearest neighbours compared with a float64 loop over the queries."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from keras_metric._block_loops import in_threads
from keras_metric.neighbors import ExactDistances, key_blocks, nearest_items


def distances_from(query, items, metric="euclidean"):
    """Float64 distances of one query; rounding errors of zero distances are removed.

    The Euclidean distances are squared.
    """
    if metric in ("pearson", "snr"):
        query, items = query - query.mean(), items - items.mean(axis=1, keepdims=True)
    if metric == "dot":
        return -items @ query
    if metric in ("cosine", "pearson"):
        size, sizes = np.linalg.norm(query), np.linalg.norm(items, axis=1)
        if size < 1e-12:
            return np.ones(len(items))
        items = items / np.where(sizes < 1e-12, 1, sizes)[:, None]
        squares = np.square(items - query / size).sum(axis=1) / 2
        distances = np.where(sizes < 1e-12, 1, squares)
    else:
        distances = np.square(items - query).sum(axis=1)
    return np.where(distances < 1e-28, 0, distances)


def copies(rng, n):
    return rng.standard_normal((n, 7))[rng.integers(0, n // 3, n)]


DATA = {
    "random": lambda rng, n: rng.standard_normal((n, 9)),
    "copies": lambda rng, n: copies(rng, n).astype("float32"),
    "grid": lambda rng, n: rng.integers(-1, 2, (n, 4)).astype("float64"),
    "one point": lambda rng, n: np.full((n, 5), 0.1, "float32"),
    "near copies": lambda rng, n: copies(rng, n) + 1e-9 * rng.integers(0, 3, (n, 1)),
    "far from zero": lambda rng, n: 1e4 + rng.standard_normal((n, 6)),
    "an outlier": lambda rng, n: np.vstack(
        [rng.standard_normal((n - 1, 3)), np.full((1, 3), 1e12)]
    ),
    "bytes": lambda rng, n: rng.integers(0, 256, (n, 12)).astype("float32"),
}


@pytest.mark.parametrize("numbers", [1 << 21, 4000])
@pytest.mark.parametrize("k", [1, 4, 40, 999])
@pytest.mark.parametrize("kind", DATA)
def test_nearest_items_are_those_of_a_loop(kind, k, numbers, rng):
    """Small `k` select candidates by a float32 product; large ones sort float64 distances."""
    x = DATA[kind](rng, 400)
    for queries, without_self in ((x[:150], False), (x, True)):
        parts = nearest_items(
            queries, x, "euclidean", k, without_self=without_self, numbers=numbers
        )
        rows, index, distances = zip(*parts)
        assert (len(rows) > 1) is (numbers == 4000)
        for i, (found, distance) in enumerate(
            zip(np.concatenate(index), np.concatenate(distances))
        ):
            expected = distances_from(queries[i].astype("float64"), x.astype("float64"))
            order = np.argsort(expected.astype("float32"), kind="stable")
            order = order[order != i][:k] if without_self else order[:k]
            np.testing.assert_array_equal(found, order)
            np.testing.assert_allclose(distance, np.sqrt(expected[order]), rtol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "dot", "pearson", "squared_euclidean"])
def test_distances_are_in_units_of_the_metric(metric, rng):
    x = rng.standard_normal((300, 5)).astype("float32")
    ((_, index, distances),) = nearest_items(x[:9], x, metric, 4)
    for query, found, distance in zip(x.astype("float64"), index, distances):
        expected = distances_from(query, x.astype("float64"), metric)
        np.testing.assert_array_equal(found, np.argsort(expected)[:4])
        np.testing.assert_allclose(distance, expected[found], rtol=1e-6, atol=1e-12)


def test_a_block_is_as_wide_as_its_vectors():
    """With many queries and few items, the size of a block is that of its queries."""
    distances = ExactDistances(np.ones((90, 50)), np.ones((2, 50)), "cosine")
    sizes = [len(keys) for _, keys in key_blocks(distances, "blocks", numbers=1000)]
    assert sum(sizes) == 90 and max(sizes) <= 20


def test_overlapping_loops_restore_the_threads_of_blas():
    def threads():
        return {
            library["num_threads"]
            for library in threadpool_info()
            if library["internal_api"] == "openblas"
        }

    with threadpool_limits(2, "blas"):
        if threads() != {2}:
            pytest.skip("NumPy has no OpenBLAS whose number of threads can be set")
        first, second = (in_threads(str, [1, 2]) for _ in range(2))
        assert (next(first), next(second)) == ("1", "1") and threads() == {1}
        assert list(first) == ["2"] and threads() == {1}
        assert list(second) == ["2"] and threads() == {2}
