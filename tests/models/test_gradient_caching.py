"""Chunks: a batch through an encoder a part at a time gives what the whole batch gives."""

import keras
import numpy as np
import pytest
from autodiff import value_and_gradient

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
    """Losses and weights of a model after three epochs of SGD."""
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


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_in_chunks_is_the_plain_step(name):
    """Chunks of 17, 17 and 16 items: a place is left over, and must count nowhere."""
    # Proxy anchor's slopes, with alpha 32, enlarge a rounding of step one some 20 times by step
    # three, at the rate of the others.
    rate = 0.02 if name == "proxies" else 0.5
    plain, weights = trained(LOSSES[name], None, rate=rate)
    assert plain[0] != plain[-1]
    found, others = trained(LOSSES[name], 17, rate=rate)
    np.testing.assert_allclose(found, plain, rtol=1e-4)
    for a, b in zip(others, weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_batches_of_any_size():
    """Batches of 20, 20 and 10 by chunks of 10: also a batch that is one chunk."""
    plain, weights = trained(losses.SupConLoss, None, batch_size=20)
    found, others = trained(losses.SupConLoss, 10, batch_size=20)
    np.testing.assert_allclose(found, plain, rtol=1e-4)
    for a, b in zip(others, weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def by_hand(model, x, size):
    """The chunks through the encoder one by one, as autodiff sees them."""
    parts = [model.encoder(x[i : i + size], training=True) for i in range(0, len(x), size)]
    return keras.ops.concatenate(parts, axis=0)


@pytest.mark.parametrize("kind", ["dropout", "batch_norm"])
def test_states_move_once_and_are_the_same_in_both_runs(kind):
    """Against the chunks one by one, without our gradient: dropout and moving averages."""

    def make(chunk_size):
        keras.utils.set_random_seed(0)
        layers = keras.layers
        layer = layers.Dropout(0.5, seed=1) if kind == "dropout" else layers.BatchNormalization()
        return EmbeddingModel(network(layer), 4, chunk_size=chunk_size)

    x, y = data()
    loss = losses.SupConLoss()
    results = []
    for size in (10, None):
        model = make(size)
        weights = model.encoder.trainable_variables
        before = [keras.ops.convert_to_numpy(w.value) for w in model.encoder.variables]

        def value(kernel, model=model, size=size, first=weights[0]):
            # The kernel as an input, since there is no autodiff by variables on every backend.
            with keras.StatelessScope([(first, kernel)]) as scope:
                if size is None:
                    z = by_hand(model, x, 10)
                else:
                    z = gradient_caching.embed(
                        model.encoder, keras.ops.convert_to_tensor(x), size, True
                    )
            states = model.encoder.non_trainable_variables
            value.after = [scope.get_current_value(v) for v in states]
            return loss(y, z)

        found, slope = value_and_gradient(value, before[0])
        # Once more outside of autodiff, where what it leaves can be read on JAX, too.
        value(keras.ops.convert_to_tensor(before[0]))
        after = [keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(v)) for v in value.after]
        results.append((found, slope, after))
    (found, slope, after), (wanted, its_slope, its_after) = results
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(slope, its_slope, rtol=1e-4, atol=1e-6)
    assert np.abs(slope).max() > 1e-3
    for a, b in zip(after, its_after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_two_towers_in_chunks():
    def weights(chunk_size):
        keras.utils.set_random_seed(0)
        model = TwoTowerModel(network(), network(), 4, chunk_size=chunk_size)
        model.compile(keras.optimizers.SGD(0.5), losses.ClipLoss(), jit_compile=False)
        x, _ = data()
        model.train_on_batch({"first": x, "second": x[::-1].copy()})
        assert model.get_config()["chunk_size"] == chunk_size
        return model.get_weights()

    plain, chunked = weights(None), weights(16)
    for a, b in zip(chunked, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_layers_that_add_losses_are_refused():
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


def test_a_backbone_without_an_input_gets_its_weights_first():
    def weights(chunk_size):
        keras.utils.set_random_seed(0)
        backbone = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(5, "relu")])
        model = EmbeddingModel(backbone, 4, chunk_size=chunk_size)
        model.compile(keras.optimizers.SGD(0.5), losses.SupConLoss(), jit_compile=False)
        x, y = data()
        model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
        return model.get_weights()

    for a, b in zip(weights(16), weights(None), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
