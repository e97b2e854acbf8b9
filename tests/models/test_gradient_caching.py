"""Gradient caching: a batch in chunks gives the loss and the gradient of the whole batch."""

import keras
import numpy as np
import pytest
from autodiff import value_and_gradient
from model_weights import check_same_weights

from keras_metric import losses
from keras_metric.layers import CrossBatchMemory
from keras_metric.models import EmbeddingModel, TwoTowerModel, gradient_caching

ROWS, SIDE, CLASSES = 50, 6, 5


def data(seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(ROWS) % CLASSES
    return rng.normal(y[:, None] % 3, 1.0, (ROWS, SIDE)).astype("float32"), y


def network(*more):
    return keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(12, "tanh"), *more])


def trained(loss, chunk_size, batch_size=ROWS, more=(), rate=0.5):
    """Return losses and weights of a model after three epochs of SGD."""
    keras.utils.set_random_seed(0)
    model = EmbeddingModel(network(*more), 4, chunk_size=chunk_size)
    jit = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.SGD(rate), loss(), jit_compile=jit)
    x, y = data()
    history = model.fit(x, y, batch_size=batch_size, epochs=3, shuffle=False, verbose=0)
    return history.history["loss"], model.get_weights()


LOSSES = {
    "sup-con": losses.SupConLoss,
    "triplet": losses.TripletLoss,
    "proxies": lambda: losses.ProxyAnchorLoss(CLASSES),
    "memory": lambda: losses.ContrastiveLoss(2.0, memory=CrossBatchMemory(60)),
}


# Chunks of 17, 17 and 16 items need one padding row; batches of 20, 20 and 10 in chunks of 10
# include a batch of one chunk.
@pytest.mark.parametrize(
    ("name", "chunk_size", "batch_size"), [*((n, 17, ROWS) for n in LOSSES), ("sup-con", 10, 20)]
)
def test_a_step_in_chunks_equals_the_plain_step(name, chunk_size, batch_size):
    # At the learning rate of the others, Proxy-Anchor with alpha 32 increases a rounding error of
    # the first step 20 times by the third step.
    rate = 0.02 if name == "proxies" else 0.5
    expected, expected_weights = trained(LOSSES[name], None, batch_size, rate=rate)
    assert expected[0] != expected[-1]
    found, weights = trained(LOSSES[name], chunk_size, batch_size, rate=rate)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    check_same_weights(weights, expected_weights, rtol=1e-4, atol=1e-6)


def embed_with_autodiff(model, x, size):
    """Embed the chunks one by one without a custom gradient."""
    parts = [model.encoder(x[i : i + size], training=True) for i in range(0, len(x), size)]
    return keras.ops.concatenate(parts, axis=0)


@pytest.mark.parametrize("kind", ["dropout", "batch_norm"])
def test_states_are_updated_once_and_are_equal_in_both_runs(kind):
    """Dropout and moving averages, compared with autodiff of the chunks one by one."""
    x, y = data()
    loss = losses.SupConLoss()
    results = []
    for size in (10, None):
        keras.utils.set_random_seed(0)
        layers = keras.layers
        layer = layers.Dropout(0.5, seed=1) if kind == "dropout" else layers.BatchNormalization()
        model = EmbeddingModel(network(layer), 4, chunk_size=size)
        weights = model.encoder.trainable_variables
        before = [keras.ops.convert_to_numpy(w.value) for w in model.encoder.variables]

        def value(kernel, model=model, size=size, first=weights[0]):
            # The kernel is an input, because not every backend differentiates by variables.
            with keras.StatelessScope([(first, kernel)]) as scope:
                if size is None:
                    z = embed_with_autodiff(model, x, 10)
                else:
                    z = gradient_caching.embed(
                        model.encoder, keras.ops.convert_to_tensor(x), size, True
                    )
            states = model.encoder.non_trainable_variables
            value.after = [scope.get_current_value(v) for v in states]
            return loss(y, z)

        found, gradient = value_and_gradient(value, before[0])
        # Run again outside of autodiff, where JAX can read the states.
        value(keras.ops.convert_to_tensor(before[0]))
        after = [keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(v)) for v in value.after]
        results.append((found, gradient, after))
    (found, gradient, after), (expected, expected_gradient, expected_after) = results
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
    assert np.abs(gradient).max() > 1e-3
    check_same_weights(after, expected_after, rtol=1e-5)


def two_towers(chunk_size):
    model = TwoTowerModel(network(), network(), 4, chunk_size=chunk_size)
    return model, losses.ClipLoss(), {"first": data()[0], "second": data()[0][::-1].copy()}, None


def backbone_without_input(chunk_size):
    backbone = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(5, "relu")])
    model = EmbeddingModel(backbone, 4, chunk_size=chunk_size)
    return model, losses.SupConLoss(), *data()


@pytest.mark.parametrize("make", [two_towers, backbone_without_input])
def test_other_models_in_chunks(make):
    results = []
    for chunk_size in (16, None):
        keras.utils.set_random_seed(0)
        model, loss, x, y = make(chunk_size)
        model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=False)
        model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)
        assert model.get_config()["chunk_size"] == chunk_size
        results.append(model.get_weights())
    check_same_weights(*results, rtol=1e-4, atol=1e-6)


def test_layers_that_add_losses_raise():
    model = EmbeddingModel(
        network(keras.layers.Dense(4, activity_regularizer="l2")), 4, chunk_size=10
    )
    x, y = data()
    with pytest.raises(ValueError, match="activity_regularizer"):
        model.train_on_batch(x, y)


@pytest.mark.parametrize("chunk_size", [0, 2.5, "all"])
def test_chunk_size_must_be_a_count(chunk_size):
    with pytest.raises((TypeError, ValueError), match="chunk_size"):
        EmbeddingModel(network(), 4, chunk_size=chunk_size)
