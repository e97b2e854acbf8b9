"""Losses in a keras.Model: the code of the error message and of docs/own-model.md works."""

import keras
import numpy as np
import pytest
from model_weights import check_same_weights

from keras_metric import losses
from keras_metric.layers import CrossBatchMemory, EmbeddingHead, Mahalanobis
from keras_metric.models import EmbeddingModel

Y = np.arange(32) % 4
X = np.random.default_rng(0).normal(Y[:, None], size=(32, 6)).astype("float32")
TARGETS = {"embedding": Y, "class": Y}


def two_heads():
    inputs = keras.Input((6,))
    features = keras.layers.Dense(8, "tanh")(inputs)
    embedding = EmbeddingHead(3, name="embedding")(features)
    classes = keras.layers.Dense(4, "softmax", name="class")(features)
    return keras.Model(inputs, {"embedding": embedding, "class": classes})


def compiled(model, loss, optimizer=None):
    both = {"embedding": loss, "class": "sparse_categorical_crossentropy"}
    model.compile(optimizer or keras.optimizers.Adam(1e-2), loss=both)
    return model


def weights_of(loss):
    return [weight for layer in loss.layers for weight in layer.get_weights()]


def track(model, loss):
    for layer in loss.layers:
        layer.build((None, 3))
    model.loss_layers = list(loss.layers)
    return model


WITH_WEIGHTS = {
    "proxies": lambda: losses.ProxyAnchorLoss(4),
    "boundary": lambda: losses.MarginLoss(learn_beta=True),
    "distance": lambda: losses.TripletLoss(1.0, mining="all", distance=Mahalanobis()),
    "sum": lambda: losses.WeightedSum([(1.0, losses.ArcFaceLoss(4)), (0.5, losses.SupConLoss())]),
}
WITH_STATE = {
    "memory": lambda: losses.ContrastiveLoss(memory=CrossBatchMemory(64)),
    "running length": lambda: losses.AdaFaceLoss(4),
    "centers": lambda: losses.CenterLoss(4),
    "histogram": lambda: losses.DynamicSoftMarginLoss(),
}


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_code_of_the_error_works(name):
    model, loss = two_heads(), WITH_WEIGHTS[name]()
    text = "Compile the loss with a keras_metric.EmbeddingModel. In a functional keras.Model, or"
    with pytest.raises(ValueError, match=text) as error:
        compiled(model, loss).fit(X, TARGETS, verbose=0)
    exec(str(error.value).split("\n\n")[1], {"model": model, "loss": loss})
    before = weights_of(loss)
    compiled(model, loss).fit(X, TARGETS, verbose=0)
    assert before and all(np.any(a != b) for a, b in zip(before, weights_of(loss)))


@pytest.mark.parametrize("name", WITH_STATE)
def test_losses_with_a_state_need_an_embedding_model(name):
    with pytest.raises(ValueError, match="Only that updates the state of this loss") as error:
        WITH_STATE[name]()(Y, X)
    assert "loss_layers" not in str(error.value)
    model = EmbeddingModel(keras.layers.Dense(8), 3)
    loss = WITH_STATE[name]()
    model.compile("sgd", loss)
    model.predict(X, verbose=0)
    before = weights_of(loss)
    model.fit(X, Y, verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, weights_of(loss)))


def test_class_vectors_before_their_length_is_known():
    with pytest.raises(ValueError, match="with a keras_metric.EmbeddingModel.$"):
        losses.ProxyAnchorLoss(4).class_vectors  # noqa: B018


@pytest.mark.parametrize("plain", [True, False])
def test_a_separate_learning_rate(plain):
    """The first step of Adam equals the learning rate for each element with a gradient."""
    loss = losses.ProxyAnchorLoss(4)
    by_path = {"proxy_anchor_loss/.*": keras.optimizers.Adam(0.1)}
    optimizer = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Adam(1e-3), by_path)
    )
    if plain:
        model = compiled(track(two_heads(), loss), loss, optimizer)
    else:
        model = EmbeddingModel(keras.Sequential([keras.Input((6,)), keras.layers.Dense(8)]), 3)
        model.compile(optimizer, loss)
    before, proxies = model.get_weights()[0], loss.class_vectors.copy()
    model.fit(X, TARGETS if plain else Y, verbose=0)
    assert np.isclose(np.abs(loss.class_vectors - proxies).max(), 0.1, rtol=1e-2)
    assert np.isclose(np.abs(model.get_weights()[0] - before).max(), 1e-3, rtol=1e-2)


def test_saved_weights_include_those_of_the_loss():
    loss = losses.ProxyAnchorLoss(4)
    model = compiled(track(two_heads(), loss), loss)
    model.fit(X, TARGETS, verbose=0)
    model.save_weights("model.weights.h5")
    other = losses.ProxyAnchorLoss(4)
    loaded = compiled(track(two_heads(), other), other)
    loaded.optimizer.build(loaded.trainable_variables)
    loaded.load_weights("model.weights.h5")
    np.testing.assert_array_equal(other.class_vectors, loss.class_vectors)
    check_same_weights(loaded, model)
