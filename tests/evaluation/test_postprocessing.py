"""Query expansion, re-ranking and whitening compared with loops over their definitions."""

import numpy as np
import pytest

from keras_metric.evaluation import (
    k_reciprocal_distances,
    pca_whitening,
    query_expansion,
    retrieval_metrics,
)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def make_data(rng, size):
    y = rng.integers(0, 6, size)
    return (rng.normal(size=(6, 8))[y] + rng.normal(size=(size, 8))).astype("float32"), y


@pytest.fixture
def data(rng):
    return make_data(rng, 60)


class TestQueryExpansion:
    @pytest.mark.parametrize("alpha", [0, 2.5])
    @pytest.mark.parametrize("size", [60, 1600])
    @pytest.mark.parametrize("leave_one_out", [False, True])
    def test_equals_the_definition(self, leave_one_out, size, alpha, rng):
        """1,600 items are more than one block."""
        x, _ = make_data(rng, size)
        queries, gallery = (x, x) if leave_one_out else (x[: size // 2], x[size // 2 :])
        units = unit(gallery.astype("float64"))
        expected = []
        for i, q in enumerate(unit(queries.astype("float64"))):
            cosines = units @ q
            order = [j for j in np.argsort(-cosines)[:5] if not (leave_one_out and j == i)][:4]
            near = [max(cosines[j], 0) ** alpha * units[j] for j in order]
            expected.append(unit(q + sum(near)))
        ours = query_expansion(queries, None if leave_one_out else gallery, k=4, alpha=alpha)
        np.testing.assert_allclose(ours, expected, atol=1e-5)

    def test_it_increases_map(self, data):
        x, y = data
        ours = query_expansion(x, k=5)
        assert retrieval_metrics(ours, y)["map"] > retrieval_metrics(unit(x), y)["map"] + 0.02

    def test_more_neighbours_than_items_and_zero_vectors(self):
        ours = query_expansion([[0.0, 0.0], [2.0, 0.0]], [[0.0, 3.0]], k=9, alpha=0)
        np.testing.assert_allclose(ours, [[0, 1], unit(np.array([1, 1]))], atol=1e-6)
        np.testing.assert_allclose(query_expansion([[5.0, 0.0]]), [[1, 0]])


def reranked_by_hand(queries, gallery, k1, k2, weight):
    """The authors' procedure, item by item, with Python sets."""
    items = np.concatenate([queries, gallery]).astype("float64")
    squares = np.square(items[:, None] - items[None]).sum(axis=2)
    d = squares / squares.max(axis=1, keepdims=True)
    size = len(items)
    rank = [[i, *(j for j in np.argsort(d[i], kind="stable") if j != i)] for i in range(size)]

    def mutual(i, k):
        return {j for j in rank[i][: k + 1] if i in rank[j][: k + 1]}

    v = np.zeros((size, size))
    for i in range(size):
        own = mutual(i, k1)
        whole = set(own)
        for j in own:
            theirs = mutual(j, int(np.around(k1 / 2)))
            if len(theirs & own) > 2 / 3 * len(theirs):
                whole |= theirs
        for j in whole:
            v[i, j] = np.exp(-d[i, j])
        v[i] /= v[i].sum()
    u = np.array([v[rank[i][:k2]].mean(axis=0) for i in range(size)])
    first = len(queries)
    result = np.empty((first, len(gallery)))
    for i in range(first):
        for j in range(len(gallery)):
            least = np.minimum(u[i], u[first + j]).sum()
            jaccard = 1 - least / np.maximum(u[i], u[first + j]).sum()
            result[i, j] = (1 - weight) * jaccard + weight * d[i, first + j]
    return result


class TestReranking:
    @pytest.mark.parametrize(
        ("k1", "k2", "weight", "size"),
        [(7, 3, 0.3, 60), (6, 1, 0.0, 60), (4, 9, 0.8, 60), (7, 3, 0.3, 1100)],
    )
    def test_equals_the_definition(self, k1, k2, weight, size, rng):
        """1,100 items are more than one block."""
        x, _ = make_data(rng, size)
        parts = x[:-40], x[-40:]
        ours = k_reciprocal_distances(*parts, k1, k2, weight)
        expected = reranked_by_hand(*parts, k1, k2, weight)
        np.testing.assert_allclose(ours, expected, atol=1e-5)

    def test_without_a_gallery_items_are_queries_and_gallery(self, data):
        x, y = data
        ours = k_reciprocal_distances(x, k1=8, k2=3)
        expected = reranked_by_hand(x, np.empty((0, 8)), 8, 3, 0.3)
        assert ours.shape == (60, 60) and expected.shape == (60, 0)
        halves = k_reciprocal_distances(x[:30], x[30:], k1=8, k2=3)
        np.testing.assert_allclose(ours[:30, 30:], halves, atol=1e-6)
        after = retrieval_metrics(ours, y, metric="precomputed")["map"]
        assert after > retrieval_metrics(x, y)["map"] + 0.02

    def test_weight_one_keeps_the_original_order(self, data):
        x, y = data
        ours = k_reciprocal_distances(x[:20], x[20:], weight=1.0)
        plain = retrieval_metrics(x[:20], y[:20], x[20:], y[20:])
        again = retrieval_metrics(ours, y[:20], gallery_labels=y[20:], metric="precomputed")
        assert again == pytest.approx(plain)

    def test_copies_and_one_point(self, data):
        x, _ = data
        assert np.isfinite(k_reciprocal_distances(np.tile(x[:5], (9, 1)), k1=4)).all()
        assert np.isfinite(k_reciprocal_distances(np.ones((12, 3)), k1=4)).all()
        assert k_reciprocal_distances(x[:1], x[1:2]).shape == (1, 1)


@pytest.mark.parametrize("size", [1e20, 1e-25, 1e-30])
def test_expansion_of_huge_and_tiny_vectors(size):
    gallery = np.array([[1.0, 0.2], [1.0, 0.1], [0.0, 1.0]])
    expected = query_expansion([[1.0, 0.0]], gallery, k=2)
    small = np.array([[size, 0.0]], "float32"), (gallery * size).astype("float32")
    np.testing.assert_allclose(query_expansion(*small, k=2), expected, rtol=1e-5)


class TestWhitening:
    def test_equal_variance_along_the_axes(self, rng):
        x = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)) + 3.0
        white = pca_whitening(x[:300], dim=3)
        centred = x[300:] - x[:300].mean(axis=0)
        values, axes = np.linalg.eigh(np.cov(x[:300].T))
        expected = unit(centred @ axes[:, ::-1][:, :3] / np.sqrt(values[::-1][:3]))
        ours = white.transform(x[300:])
        np.testing.assert_allclose(np.abs(ours), np.abs(expected), atol=1e-6)
        assert pca_whitening(x).transform(x).shape == (400, 5)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_directions_of_rounding_errors_are_removed(self, rng, dtype):
        """Few items, and constant features: they must not dominate a new item."""
        few = rng.normal(size=(50, 128)).astype(dtype)
        new = rng.normal(size=(200, 128)).astype(dtype)
        white = pca_whitening(few)
        assert white.transform(new).shape == (200, 49)
        assert np.abs(white.transform(new)).max() < 0.9
        constant = np.concatenate([rng.normal(size=(400, 5)), np.full((400, 3), 0.3)], axis=1)
        mixed = (constant @ rng.normal(size=(8, 8))).astype(dtype)
        assert pca_whitening(mixed).transform(mixed).shape == (400, 5)
        # A direction of small variance is kept.
        thin = (rng.normal(size=(400, 3)) * [1, 1, 1e-4]).astype(dtype)
        assert pca_whitening(thin).transform(thin).shape == (400, 3)
        with pytest.raises(ValueError, match="at most 49, the directions along"):
            pca_whitening(few, dim=50)
        with pytest.raises(ValueError, match="all equal"):
            pca_whitening(np.full((9, 2), 0.1, dtype))

    def test_dim_is_at_most_the_width(self):
        with pytest.raises(ValueError, match="at most 2"):
            pca_whitening(np.zeros((9, 2)), dim=3)

    @pytest.mark.parametrize("scale", [1e-30, 1e200])
    def test_scales_that_scikit_learn_cannot_whiten(self, rng, scale):
        """It divides by at least 2e-16, so tiny rows would keep their variances."""
        with pytest.raises(ValueError, match="more than 1e-12 .* Scale them"):
            pca_whitening(scale * rng.normal(size=(50, 3)))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (query_expansion, dict(k=0), "at least 1"),
        (query_expansion, dict(alpha=-1), "at least 0"),
        (query_expansion, dict(alpha=10**400), "at least 0"),
        (query_expansion, dict(gallery_embeddings=[[0.0]]), "same width"),
        (k_reciprocal_distances, dict(k1=0), "at least 1"),
        (k_reciprocal_distances, dict(weight=2), "at most 1"),
        (k_reciprocal_distances, dict(gallery_embeddings=[[0.0]]), "same width"),
    ],
)
def test_errors(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(np.zeros((3, 2)), **arguments)
