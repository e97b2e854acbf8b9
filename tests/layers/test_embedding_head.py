"""EmbeddingHead: pooling, the linear layer, and normalization in every precision."""

import keras
import numpy as np
import pytest
from autodiff import value_and_gradient
from keras import ops

from keras_metric.layers import EmbeddingHead, GeneralizedMeanPooling


def bare(**settings):
    """A head that only pools."""
    return EmbeddingHead(**{"embedding_dim": None, "normalize": False, **settings})


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


class TestPooling:
    @pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 5, 3), (2, 2, 4, 5, 3)])
    @pytest.mark.parametrize(("pooling", "reduce"), [("average", np.mean), ("max", np.max)])
    def test_over_all_positions(self, rng, shape, pooling, reduce):
        x = rng.normal(size=shape).astype("float32")
        expected = reduce(x.reshape(2, -1, 3), axis=1)
        head = bare(pooling=pooling, data_format="channels_last")
        np.testing.assert_allclose(numpy(head(x)), expected, rtol=1e-5, atol=1e-6)
        assert head.compute_output_shape(shape) == (2, 3)

    @pytest.mark.parametrize(("pooling", "reduce"), [("average", np.mean), ("max", np.max)])
    def test_features_first(self, rng, pooling, reduce):
        x = rng.normal(size=(2, 3, 4, 5)).astype("float32")
        head = bare(pooling=pooling, data_format="channels_first")
        np.testing.assert_allclose(numpy(head(x)), reduce(x, axis=(2, 3)), rtol=1e-5, atol=1e-6)
        # A sequence has its features last in either format.
        sequence = x[:, :, :, 0]
        np.testing.assert_allclose(
            numpy(head(sequence)), reduce(sequence, axis=1), rtol=1e-5, atol=1e-6
        )

    @pytest.mark.parametrize("pooling", ["average", "max"])
    def test_respects_a_mask(self, rng, pooling):
        x = rng.normal(size=(4, 6, 3)).astype("float32") - 3
        kept = [6, 2, 1, 0]
        for row, steps in enumerate(kept):
            x[row, steps:] = np.nan
        mask = np.arange(6)[None] < np.array(kept)[:, None]
        expected = np.zeros((4, 3), "float32")
        for row, steps in enumerate(kept[:3]):
            expected[row] = getattr(x[row, :steps], {"average": "mean"}.get(pooling, pooling))(0)
        value, gradient = value_and_gradient(
            lambda t: ops.sum(bare(pooling=pooling)(t, mask=ops.convert_to_tensor(mask))), x
        )
        np.testing.assert_allclose(
            numpy(bare(pooling=pooling)(x, mask=ops.convert_to_tensor(mask))), expected, rtol=1e-5
        )
        assert np.isclose(value, expected.sum(), rtol=1e-5)
        assert np.all(np.isfinite(gradient)) and np.all(gradient[~mask] == 0)

    @pytest.mark.parametrize("make", [GeneralizedMeanPooling, keras.layers.GlobalAveragePooling1D])
    def test_hands_a_mask_to_a_layer_that_pools(self, rng, make):
        x = rng.uniform(1, 2, (2, 4, 3)).astype("float32")
        mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
        head, kept = bare(pooling=make()), ops.convert_to_tensor(mask)
        expected = numpy(head(x, mask=kept))
        x[~mask] = 1000
        np.testing.assert_allclose(numpy(head(x, mask=kept)), expected, rtol=1e-5)
        assert expected.max() < 2

    def test_no_mask_of_steps_is_left_on_features(self):
        assert bare().compute_mask(None, None) is None

    def test_layer(self, rng):
        x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
        head = bare(pooling=keras.layers.GlobalMaxPooling2D(data_format="channels_last"))
        np.testing.assert_allclose(numpy(head(x)), x.max((1, 2)))
        again = EmbeddingHead.from_config(head.get_config())
        np.testing.assert_allclose(numpy(again(x)), x.max((1, 2)))

    def test_matrix_goes_through(self, rng):
        x = rng.normal(size=(2, 3)).astype("float32")
        for pooling in (None, "max", keras.layers.GlobalMaxPooling2D()):
            np.testing.assert_array_equal(numpy(bare(pooling=pooling)(x)), x)

    def test_counts_become_numbers(self):
        assert numpy(bare()(np.array([[[1, 2], [2, 4]]], "uint8"))).tolist() == [[1.5, 3.0]]


class TestLengths:
    def test_linear_and_unit(self, rng):
        x = rng.normal(size=(5, 3)).astype("float32")
        head = EmbeddingHead(4)
        z = numpy(head(x))
        kernel, bias = (numpy(w) for w in head.linear.weights)
        expected = x @ kernel + bias
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-6)
        assert head.width == 4

    @pytest.mark.parametrize("size", [1e-30, 1e-4, 1.0, 30.0, 1e30])
    def test_any_size(self, size):
        z = numpy(EmbeddingHead(None)(np.full((1, 128), size, "float32")))
        np.testing.assert_allclose(z, np.full((1, 128), 128**-0.5), rtol=1e-5)

    @pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
    @pytest.mark.parametrize("dtype", [None, "mixed_float16"])
    def test_huge_half_precision_rows(self, policy, dtype):
        keras.config.set_dtype_policy(policy)
        x = np.full((2, 16, 128), 60000, "float16")
        z = EmbeddingHead(None, dtype=dtype)(x[:, 0])
        assert keras.backend.standardize_dtype(z.dtype) == "float32"
        np.testing.assert_allclose(numpy(z), np.full((2, 128), 128**-0.5), rtol=1e-3)
        if dtype is None:
            # The sum of a map overflows float16 as well.
            z = EmbeddingHead(None)(x)
            np.testing.assert_allclose(numpy(z), np.full((2, 128), 128**-0.5), rtol=1e-3)

    def test_zero_rows(self):
        x = np.zeros((2, 4), "float32")
        x[1] = [3, 0, 0, 4]
        head = EmbeddingHead(None)
        assert np.allclose(numpy(head(x)), [[0, 0, 0, 0], [0.6, 0, 0, 0.8]])
        _, gradient = value_and_gradient(lambda t: ops.sum(head(t)[:, 1]), x)
        assert np.all(np.isfinite(gradient)) and np.isclose(gradient[1, 1], 1 / 5)

    def test_double_stays_double(self, backend):
        if backend == "jax":
            pytest.skip("JAX has no float64 unless it is switched on for the process")
        z = EmbeddingHead(None, dtype="float64")(np.array([[3.0, 4.0]]))
        assert keras.backend.standardize_dtype(z.dtype) == "float64"
        np.testing.assert_allclose(numpy(z), [[0.6, 0.8]], rtol=1e-15)


class TestSettings:
    def test_round_trip(self):
        head = EmbeddingHead(7, False, "max", "channels_first", "mixed_float16", "mine")
        config = head.get_config()
        again = EmbeddingHead.from_config(config)
        assert again.get_config() == config
        assert (again.embedding_dim, again.normalize, again.pooling) == (7, False, "max")
        assert again.dtype_policy.name == "mixed_float16"

    @pytest.mark.parametrize(
        ("settings", "error", "text"),
        [
            ({"embedding_dim": 0}, ValueError, "`embedding_dim` must be at least 1"),
            ({"embedding_dim": 2.5}, TypeError, "`embedding_dim` must be an integer"),
            ({"embedding_dim": True}, TypeError, "`embedding_dim` must be an integer"),
            ({"normalize": "l2"}, TypeError, "`normalize` must be True or False"),
            ({"pooling": "avg"}, ValueError, r"one of \['average', 'max'\], a Keras layer, or"),
            ({"pooling": 3}, ValueError, "`pooling` must be one of"),
            ({"data_format": "NHWC"}, ValueError, "`data_format` must be one of"),
        ],
    )
    def test_wrong_ones(self, settings, error, text):
        with pytest.raises(error, match=text):
            EmbeddingHead(**settings)

    @pytest.mark.parametrize(
        ("pooling", "shape", "text"),
        [
            ("average", (3,), r"one vector \(batch, features\), one sequence"),
            ("average", (3, 2, 2, 2, 2, 2), r"one vector \(batch, features\), one sequence"),
            (None, (2, 3, 3, 4), "Choose pooling='average' or 'max', or end the"),
            (keras.layers.MaxPooling2D(), (2, 4, 4, 3), "return .batch, features.. Received: pool"),
        ],
    )
    def test_wrong_inputs(self, pooling, shape, text):
        with pytest.raises(ValueError, match=text):
            EmbeddingHead(pooling=pooling)(np.zeros(shape, "float32"))
