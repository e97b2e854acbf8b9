"""GeneralizedMeanPooling: the definition of the power mean, and training in models."""

import keras
import numpy as np
import pytest
from autodiff import DTYPE, agrees, value_and_gradient

from keras_metric.layers import GeneralizedMeanPooling
from keras_metric.losses import TripletLoss
from keras_metric.models import EmbeddingModel


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x), "float64")


def power_mean(x, p, epsilon=1e-6):
    """The power mean of maps (batch, ..., features), in Python loops."""
    x = np.asarray(x, "float64")
    out = np.zeros((x.shape[0], x.shape[-1]))
    for i in range(x.shape[0]):
        for j in range(x.shape[-1]):
            values = [max(v, epsilon) ** p for v in x[i, ..., j].ravel()]
            out[i, j] = (sum(values) / len(values)) ** (1 / p)
    return out


@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 7.0])
@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 3, 5, 4), (2, 3, 2, 5, 4)])
def test_equals_the_definition(shape, p, rng):
    x = rng.normal(size=shape).astype("float32")
    layer = GeneralizedMeanPooling(p, data_format="channels_last")
    np.testing.assert_allclose(numpy(layer(x)), power_mean(x, p), rtol=1e-4)
    assert layer.compute_output_shape(shape) == (shape[0], shape[-1])
    if len(shape) > 3:
        first = GeneralizedMeanPooling(p, data_format="channels_first")
        moved = np.moveaxis(x, -1, 1)
        np.testing.assert_allclose(numpy(first(moved)), power_mean(x, p), rtol=1e-4)
        assert first.compute_output_shape(moved.shape) == (shape[0], shape[-1])


def test_power_1_is_the_average_and_a_large_power_the_maximum(rng):
    x = rng.uniform(0.1, 1, size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(numpy(GeneralizedMeanPooling(1.0)(x)), x.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(numpy(GeneralizedMeanPooling(2000.0)(x)), x.max((1, 2)), rtol=5e-3)


def test_only_the_steps_that_the_mask_keeps(rng):
    x = rng.uniform(0, 1, size=(3, 5, 2)).astype("float32")
    mask = np.array([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    expected = [power_mean(x[i : i + 1, mask[i]], 3.0)[0] for i in range(2)]
    x[0, 2], x[0, 3] = np.nan, np.inf
    layer = GeneralizedMeanPooling()
    np.testing.assert_allclose(numpy(layer(x, mask=mask)), [*expected, [0, 0]], rtol=1e-4)
    value, gradient = value_and_gradient(lambda z: keras.ops.sum(layer(z, mask=mask)), x)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert not gradient[~mask].any()


def test_gradients_of_the_map_and_of_the_power(rng):
    x = rng.uniform(0.1, 2, size=(2, 3, 3, 2))
    weight = rng.normal(size=(2, 2))
    layer = GeneralizedMeanPooling(data_format="channels_last", dtype=DTYPE)
    layer.build(x.shape)
    still, maps = (keras.ops.convert_to_tensor(array.astype(DTYPE)) for array in (weight, x))
    agrees(
        lambda z: keras.ops.sum(still * layer(z)),
        lambda z: (weight * power_mean(z, 3.0)).sum(),
        x,
        jit=False,
    )
    agrees(
        lambda p: keras.ops.sum(still * layer.stateless_call([p[0]], [], maps)[0]),
        lambda p: (weight * power_mean(x, p[0])).sum(),
        np.array([3.0]),
        jit=False,
    )


@pytest.mark.parametrize("kind", ["zero", "negative", "huge", "tiny"])
@pytest.mark.parametrize("p", [1.0, 3.0, 40.0])
def test_finite_where_powers_are_not(kind, p, rng):
    x = rng.uniform(0.5, 1, size=(2, 3, 3, 2)).astype("float32")
    x *= {"zero": 0, "negative": -1, "huge": 1e30, "tiny": 1e-30}[kind]
    layer = GeneralizedMeanPooling(p, data_format="channels_last")
    value, gradient = value_and_gradient(lambda z: keras.ops.mean(layer(z)), x)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    expected = x.mean() if kind == "huge" else 1e-6
    assert value == pytest.approx(expected, rel=1.0 if kind == "huge" else 1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_its_digits(dtype, rng):
    # The cube of 300 overflows in float16, and epsilon underflows.
    x = keras.ops.cast(rng.uniform(0, 300, size=(2, 4, 4, 3)), dtype)
    layer = GeneralizedMeanPooling(data_format="channels_last", dtype=f"mixed_{dtype}")
    pooled = layer(x)
    assert keras.backend.standardize_dtype(pooled.dtype) == dtype
    expected = power_mean(numpy(keras.ops.cast(x, "float32")), 3.0)
    np.testing.assert_allclose(
        numpy(keras.ops.cast(pooled, "float32")), expected, rtol=1e-3 if dtype[0] == "f" else 1e-2
    )


class TestInsideAModel:
    def model(self, pooling, **kwargs):
        backbone = keras.Sequential(
            [keras.Input((6, 6, 1)), keras.layers.Conv2D(4, 3, activation="relu")]
        )
        model = EmbeddingModel(backbone, embedding_dim=3, pooling=pooling, **kwargs)
        model.compile(keras.optimizers.Adam(0.05), TripletLoss(mining="all"), run_eagerly=True)
        return model

    def data(self, rng):
        return rng.uniform(size=(8, 6, 6, 1)).astype("float32"), np.arange(8) // 2

    @pytest.mark.parametrize("trainable", [True, False])
    def test_the_power_is_trained_unless_it_is_not_trainable(self, trainable, rng):
        pooling = GeneralizedMeanPooling(trainable=trainable)
        model = self.model(pooling)
        model.fit(*self.data(rng), epochs=2, verbose=0)
        assert (float(numpy(pooling.power)) != 3.0) == trainable

    # Near the power 0 the pooled values are almost equal, and the model warns.
    @pytest.mark.filterwarnings("ignore:The embeddings have collapsed")
    def test_the_power_stays_above_zero(self, rng):
        pooling = GeneralizedMeanPooling(0.01)
        model = self.model(pooling)
        model.optimizer.learning_rate = 0.5
        for _ in range(3):
            model.fit(*self.data(rng), verbose=0)
            assert float(numpy(pooling.power)) > 0
        assert np.isfinite(model.predict(self.data(rng)[0], verbose=0)).all()

    @pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
    def test_saves_and_loads(self, policy, rng):
        keras.config.set_dtype_policy(policy)
        model, (x, y) = self.model(GeneralizedMeanPooling(2.0)), self.data(rng)
        model.fit(x, y, epochs=2, verbose=0)
        model.save("model.keras")
        again = keras.models.load_model("model.keras")
        assert numpy(again.encoder.head.pooling.power) == numpy(model.encoder.head.pooling.power)
        np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_arguments_and_config():
    for wrong in ({"p": 0}, {"epsilon": 0}, {"data_format": "last"}):
        with pytest.raises(ValueError, match="must be"):
            GeneralizedMeanPooling(**wrong)
    with pytest.raises(ValueError, match="rank 2"):
        GeneralizedMeanPooling()(np.ones((2, 3), "float32"))
    layer = GeneralizedMeanPooling(2.0, 1e-4, "channels_first", trainable=False)
    again = GeneralizedMeanPooling.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.trainable is False
