"""Distances and their gradients, compared with loops in NumPy."""

import keras
import numpy as np
import pytest
import reference
from autodiff import CLOSE, DOUBLE, DTYPE, value_and_gradient

from keras_metric import distances

METRICS = distances.METRICS


@pytest.mark.parametrize("metric", METRICS)
def test_pairwise_and_elementwise_equal_loops(metric, rng):
    a, b = rng.normal(size=(7, 5)) + 0.3, 2 * rng.normal(size=(4, 5))
    pairwise = distances.pairwise(a.astype(DTYPE), b.astype(DTYPE), metric=metric)
    np.testing.assert_allclose(pairwise, reference.matrix(a, metric, b), **CLOSE)
    own = distances.pairwise(a.astype(DTYPE), metric=metric)
    # The matrix of a set to itself: a float64 square root of a rounding error is 1e-8.
    np.testing.assert_allclose(own, reference.matrix(a, metric), rtol=1e-4, atol=1e-6)
    one = distances.elementwise(a[:4].astype(DTYPE), b.astype(DTYPE), metric=metric)
    expected = [reference.distance(u, v, metric) for u, v in zip(a, b)]
    np.testing.assert_allclose(one, expected, **CLOSE)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("side", ["a", "b", "both"])
def test_gradients_equal_central_differences(metric, side, rng):
    a, b = rng.normal(size=(6, 4)), rng.normal(size=(5, 4))
    weight = rng.normal(size=(6, 6 if side == "both" else 5))
    x = b if side == "b" else a

    def ours(z):
        if side == "both":
            matrix = distances.pairwise(z, metric=metric)
        elif side == "a":
            matrix = distances.pairwise(z, b.astype(DTYPE), metric=metric)
        else:
            matrix = distances.pairwise(a.astype(DTYPE), z, metric=metric)
        return keras.ops.sum(matrix * keras.ops.convert_to_tensor(weight.astype(DTYPE)))

    def loop(z):
        first, second = {"a": (z, b), "b": (a, z), "both": (z, z)}[side]
        return (reference.matrix(first, metric, second) * weight).sum()

    value, gradient = value_and_gradient(ours, x.astype(DTYPE))
    directions = rng.normal(size=(3, *x.shape))
    along = (directions * gradient).sum((1, 2))
    np.testing.assert_allclose(value, loop(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        along, reference.slopes(loop, x, directions), rtol=1e-3, atol=1e-5 if DOUBLE else 2e-3
    )


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch has such tensors")
@pytest.mark.parametrize("metric", METRICS)
def test_no_value_is_read_from_the_device(metric):
    """Tensors without values: reading one, which would wait for a device, raises."""
    import torch

    with keras.device("meta"):
        a, b = torch.ones((3, 4), device="meta"), torch.ones((3, 4), device="meta")
        assert distances.pairwise(a, b, metric=metric).is_meta
        assert distances.pairwise(a, metric=metric).is_meta
        assert distances.elementwise(a, b, metric=metric).is_meta


# One vector of the four, then all of them.
EXTREMES = {
    "two equal": lambda x: x[[0, 0, 2, 3]],
    "one zero": lambda x: x * np.array([[1], [0], [1], [1]]),
    "one constant": lambda x: np.where(np.arange(4)[:, None] == 1, 0.5, x),
    "one huge": lambda x: x * np.array([[1], [1e18], [1], [1]]),
    "one tiny": lambda x: x * np.array([[1], [1e-30], [1], [1]]),
    "all equal": lambda x: x[[0, 0, 0, 0]],
    "all zero": lambda x: 0 * x,
    "all constant": lambda x: 0 * x + 0.5,
    "all huge": lambda x: 1e18 * x,
    "all tiny": lambda x: 1e-30 * x,
}
SETTINGS = {
    "pairwise of one set": lambda z, metric: distances.pairwise(z, metric=metric),
    "pairwise": lambda z, metric: distances.pairwise(z, z + 0.0, metric=metric),
    "elementwise": lambda z, metric: distances.elementwise(
        z, keras.ops.flip(z, axis=0), metric=metric
    ),
    "elementwise equal": lambda z, metric: distances.elementwise(z, z + 0.0, metric=metric),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_values_and_gradients_are_finite_where_the_formula_is_not(metric, kind, setting, rng):
    if metric == "dot" and "huge" in kind:
        pytest.skip("sums of -x.y overflow for vectors of 1e18, as the formula does")
    x = EXTREMES[kind](rng.normal(size=(4, 3))).astype("float32")
    # Both arguments are z, so both get a gradient.
    measure = SETTINGS[setting]
    matrix = np.asarray(keras.ops.convert_to_numpy(measure(keras.ops.convert_to_tensor(x), metric)))
    assert np.isfinite(matrix).all()
    value, gradient = value_and_gradient(lambda z: keras.ops.mean(measure(z, metric)), x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


# The formula has no derivative there, or that of a cusp.
@pytest.mark.parametrize("metric", ["euclidean", "squared_euclidean", "manhattan", "snr"])
def test_equal_points_have_a_zero_gradient(metric, rng):
    x = rng.normal(size=(1, 3)).repeat(4, axis=0).astype("float32")
    for measure in SETTINGS.values():
        value, gradient = value_and_gradient(lambda z, m=measure: keras.ops.sum(m(z, metric)), x)
        assert value == 0 and not gradient.any()


@pytest.mark.parametrize("metric", ["cosine", "pearson"])
@pytest.mark.parametrize("kind", ["one zero", "all zero"])
def test_a_zero_vector_has_a_zero_gradient(metric, kind, rng):
    x = EXTREMES[kind](rng.normal(size=(4, 3))).astype("float32")
    for measure in SETTINGS.values():
        _, gradient = value_and_gradient(lambda z, m=measure: keras.ops.sum(m(z, metric)), x)
        assert not gradient[1].any()


def test_the_diagonal_is_zero_and_small_distances_keep_their_precision(rng):
    x = (1000 + 1e-3 * rng.normal(size=(6, 8))).astype("float32")
    matrix = np.asarray(distances.pairwise(x))
    assert (np.diag(matrix) == 0).all()
    exact = reference.matrix(x)
    np.testing.assert_allclose(matrix, exact, rtol=1e-3)


@pytest.mark.parametrize("metric", ["euclidean", "squared_euclidean"])
def test_one_far_vector_does_not_affect_the_precision_of_others(metric, rng):
    x = rng.normal(size=(16, 5)).astype("float32")
    x[3] *= 1e6
    exact = reference.matrix(x, metric)
    near = np.delete(np.arange(16), 3)[:, None], np.delete(np.arange(16), 3)[None]
    found = np.asarray(distances.pairwise(x, metric=metric))
    np.testing.assert_allclose(found[near], exact[near], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_a_vector_of_nan_affects_only_its_own_distances(metric):
    x = np.array([[0.5, 0.2], [np.nan, 0.0], [3.0, 4.5]], "float32")
    found = np.asarray(distances.pairwise(x, x[::-1].copy(), metric))
    assert np.isnan(found[1]).all() and np.isnan(found[:, 1]).all()
    assert np.isfinite(found[::2, ::2]).all()


def test_elementwise_small_distances_are_exact():
    a, b = np.zeros((3, 2), "float32"), np.array([[1e-4, 2e-4], [3e-6, 4e-6], [1e-5, 0]], "float32")
    expected = np.sqrt((b.astype("float64") ** 2).sum(1))
    np.testing.assert_allclose(np.asarray(distances.elementwise(a, b)), expected, rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(metric, dtype, rng):
    x = keras.ops.cast(200 * rng.normal(size=(4, 8)), dtype)
    wide = keras.ops.cast(x, "float32")
    for measure in (distances.pairwise, distances.elementwise):
        found = measure(x, keras.ops.flip(x, 0), metric)
        expected = measure(wide, keras.ops.flip(wide, 0), metric)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    same = distances.pairwise(keras.ops.ones((2, 4), dtype), metric=metric)
    assert np.isfinite(np.asarray(same)).all()


def test_distances_of_huge_vectors_are_finite():
    x = np.array([[1e20, 0.0], [0.0, 0.0], [0.0, 1e20]], "float32")
    matrix = np.asarray(distances.pairwise(x), "float64")
    np.testing.assert_allclose(matrix[0], [0, 1e20, 2**0.5 * 1e20], rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_memory_has_no_tensor_of_rows_by_columns_by_dim(metric):
    # 2000 x 2000 x 64 floats would be 1 GB; the matrix itself is 16 MB.
    resource = pytest.importorskip("resource")
    x = np.random.default_rng(0).normal(size=(2000, 64)).astype("float32")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value_and_gradient(lambda z: keras.ops.mean(distances.pairwise(z, metric=metric)), x)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 400, f"{grown:.0f} MB"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distances.pairwise(np.ones((2, 3)), metric="l2"), "must be one of"),
        (lambda: distances.pairwise(np.ones(3)), r"shape \(batch, dim\)"),
        (lambda: distances.pairwise(np.ones((2, 3)), np.ones((2, 4))), "same length"),
        (lambda: distances.pairwise(np.ones((2, 3), "int32")), "floating point"),
        (lambda: distances.elementwise(np.ones((2, 3)), np.ones((2, 4))), "same length"),
    ],
)
def test_wrong_input_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call()
