"""Saving and loading of models: settings, weights, optimizer, loss; export."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops
from model_weights import check_same_weights, numpy
from proxies import ProxyLoss

from keras_metric import losses
from keras_metric.models import (
    EmbeddingModel,
    QuadrupletModel,
    SiameseModel,
    TripletModel,
    TwoTowerModel,
)

RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
ROWS = (RNG.normal(size=(8, 5)) + LABELS[:, None]).astype("float32")
TRIPLETS = {"anchor": ROWS, "positive": ROWS[::-1].copy(), "negative": ROWS + 1}


def train(model, x=ROWS, y=LABELS, epochs=2, eager=True):
    # Compilation takes ten times as long as these few steps.
    model.run_eagerly = eager
    return model.fit(x, y, batch_size=4, shuffle=False, epochs=epochs, verbose=0)


def reloaded(model):
    model.save("model.keras")
    return keras.models.load_model("model.keras")


def backbone():
    return keras.Sequential([layers.Dense(6, activation="relu")])


# Keras warns if a model is loaded before its first training step.
untrained = pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")


CASES = {
    "triplets of a batch": (TripletModel, losses.TripletLoss(0.4, mining="hard"), ROWS, LABELS),
    "ready-made triplets": (TripletModel, losses.TripletLoss(0.4), TRIPLETS, None),
    "proxies": (EmbeddingModel, ProxyLoss(3, scale=2.0), ROWS, LABELS),
    "a sum": (
        EmbeddingModel,
        losses.WeightedSum([(0.5, losses.ContrastiveLoss()), (2.0, ProxyLoss(3))]),
        ROWS,
        LABELS,
    ),
    "two towers": (
        lambda first, **settings: TwoTowerModel(first, backbone(), **settings),
        losses.ClipLoss(learn_temperature=True),
        {"first": ROWS, "second": ROWS + 1},
        None,
    ),
}


@pytest.mark.parametrize(
    ("case", "policy"), [*((case, "float32") for case in CASES), ("proxies", "mixed_float16")]
)
def test_a_loaded_model_trains_like_the_saved_one(case, policy):
    """Optimizer, number of steps, settings and weights of the loss are restored."""
    keras.config.set_dtype_policy(policy)
    cls, loss, x, y = CASES[case]
    model = cls(backbone(), embedding_dim=4)
    model.compile(
        keras.optimizers.SGD(0.123, momentum=0.9), loss=type(loss).from_config(loss.get_config())
    )
    eager = case != "proxies"
    train(model, x, y, eager=eager)
    loaded = reloaded(model)
    assert type(loaded) is type(model)
    optimizer = loaded.optimizer
    if policy == "mixed_float16":
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        optimizer = optimizer.inner_optimizer
    assert isinstance(optimizer, keras.optimizers.SGD) and optimizer.momentum == 0.9
    assert np.isclose(float(optimizer.learning_rate), 0.123)
    assert int(loaded.optimizer.iterations) == 4
    assert loaded.loss.get_config() == model.loss.get_config()
    check_same_weights(loaded, model)
    histories = [train(m, x, y, eager=eager).history for m in (loaded, model)]
    assert histories[0] == histories[1]
    assert int(loaded.optimizer.iterations) == 8
    check_same_weights(loaded, model)


def test_the_loss_is_saved_after_compile_without_a_loss():
    """Keras would save `loss: None`."""
    model = EmbeddingModel(backbone(), embedding_dim=4)
    model.compile(loss=ProxyLoss(3, scale=3.0))
    model.compile(keras.optimizers.SGD(0.1))
    train(model)
    loaded = reloaded(model)
    assert isinstance(loaded.loss, ProxyLoss) and loaded.loss.scale == 3.0
    check_same_weights(loaded.loss.proxies, model.loss.proxies)


@untrained
@pytest.mark.parametrize("cls", [EmbeddingModel, SiameseModel, TripletModel, QuadrupletModel])
def test_settings_are_restored(cls):
    model = cls(
        layers.Conv2D(3, 2),
        embedding_dim=None,
        normalize=False,
        pooling=layers.GlobalMaxPooling2D(),
        freeze_batch_norm=True,
        train_health=True,
    )
    model(np.zeros((2, 4, 4, 1), "float32"))
    loaded = reloaded(model)
    settings = loaded.get_config()
    for name in ("normalize", "freeze_batch_norm", "train_health", "name", "embedding_dim"):
        assert settings[name] == model.get_config()[name], name
    assert settings["freeze_batch_norm"] and settings["train_health"]
    assert isinstance(loaded.encoder.pooling, layers.GlobalMaxPooling2D)
    assert not loaded.encoder.normalize and loaded.embedding_dim == 3
    x = RNG.normal(size=(2, 4, 4, 1)).astype("float32")
    np.testing.assert_array_equal(numpy(loaded(x)), numpy(model(x)))


def of_towers(name, part):
    model = TwoTowerModel(backbone(), backbone(), embedding_dim=4)
    return model, {"first": ROWS, "second": ROWS + 1}, None, getattr(model.towers[name], part)


def of_one(path):
    model = EmbeddingModel(backbone(), embedding_dim=4)
    model.compile(keras.optimizers.Adam(0.01), ProxyLoss(3))
    model(ROWS)
    part = model
    for name in path.split("."):
        part = getattr(part, name)
    return model, ROWS, LABELS, part


FROZEN = {
    "backbone": lambda: of_one("backbone"),
    "head": lambda: of_one("encoder.head"),
    "encoder": lambda: of_one("encoder"),
    "all of the loss": lambda: of_one("loss_layers"),
    "a layer of the loss": lambda: of_one("loss.proxies"),
    "second tower's head": lambda: of_towers(1, "head"),
}


@pytest.mark.parametrize("case", FROZEN)
def test_frozen_parts_stay_frozen(case):
    model, x, y, part = FROZEN[case]()
    part.trainable = False
    model.compile(keras.optimizers.Adam(0.01))
    train(model, x, y)
    loaded = reloaded(model)
    assert [w.trainable for w in loaded.weights] == [w.trainable for w in model.weights]
    train(model, x, y)
    train(loaded, x, y)
    check_same_weights(loaded, model)


@pytest.mark.parametrize("name", ["model.h5", "model.hdf5"])
def test_the_legacy_format_raises(name):
    """Keras would write the file and fail to load it."""
    model = EmbeddingModel(backbone(), embedding_dim=4)
    for network in (model, model.encoder):
        with pytest.raises(ValueError, match=r"\.keras"):
            network.save(name)


@untrained
def test_a_model_before_its_first_call():
    with pytest.warns(UserWarning, match="has not yet been built"):
        loaded = reloaded(TripletModel(backbone(), embedding_dim=4))
    assert loaded.embedding_dim == 4 and train(loaded)
    known = keras.Sequential([keras.Input((5,)), layers.Dense(6)])
    model = TripletModel(known, embedding_dim=4)
    np.testing.assert_array_equal(numpy(model(ROWS)), numpy(reloaded(model)(ROWS)))


@untrained
def test_shared_encoder():
    first = TripletModel(backbone(), embedding_dim=4, normalize=False)
    second = SiameseModel(first.encoder)
    second(ROWS)
    loaded = reloaded(second)
    assert loaded.encoder.normalize is False
    np.testing.assert_array_equal(numpy(loaded(ROWS)), numpy(first(ROWS)))


def test_proxies_without_a_linear_layer():
    """In training the width is known after the first batch; in loading it must be known before."""
    model = EmbeddingModel(backbone(), embedding_dim=None)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=ProxyLoss(3))
    train(model)
    loaded = reloaded(model)
    train(model), train(loaded)
    check_same_weights(loaded, model)


@untrained
def test_save_weights():
    model = EmbeddingModel(backbone(), embedding_dim=4)
    model.compile(loss=ProxyLoss(3))
    train(model)
    model.save_weights("model.weights.h5")
    other = EmbeddingModel(backbone(), embedding_dim=4)
    other.compile(loss=ProxyLoss(3))
    other(ROWS)
    other.load_weights("model.weights.h5")
    check_same_weights(other, model)


@pytest.mark.parametrize("inputs", [ROWS, (ROWS, ROWS), {"a": ROWS, "b": ROWS}], ids=type)
def test_the_build_config_is_plain_json(inputs):
    """KerasTuner writes it to a file, to load weights into a model before its first call."""
    single = isinstance(inputs, np.ndarray)
    join = layers.Lambda(lambda x: x if single else ops.concatenate(keras.tree.flatten(x), -1))
    model = EmbeddingModel(join, embedding_dim=3)
    model.encoder(inputs)
    config = json.loads(json.dumps(model.get_build_config()))
    other = EmbeddingModel(join, embedding_dim=3)
    other.build_from_config(config)
    assert [w.shape for w in other.encoder.weights] == [w.shape for w in model.encoder.weights]
    assert other.encoder.input_names == model.encoder.input_names


SCRIPT = """
import keras, keras_metric, numpy as np
encoder = keras.models.load_model("encoder.keras")
np.save("found.npy", encoder.predict(np.load("images.npy"), verbose=0))
model = keras.models.load_model("model.keras")
assert np.array_equal(model.predict(np.load("images.npy"), verbose=0), np.load("found.npy"))
"""


def test_loading_in_another_process():
    """Encoder and model take raw images, because the backbone contains the preprocessing."""
    images = RNG.integers(0, 256, (3, 6, 6, 3), "uint8")
    model = TripletModel(
        keras.Sequential([layers.Rescaling(1 / 255), layers.Conv2D(4, 3)]), embedding_dim=4
    )
    expected = numpy(model(images))
    model.encoder.save("encoder.keras")
    model.save("model.keras")
    np.save("images.npy", images)
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
    np.testing.assert_allclose(np.load("found.npy"), expected, rtol=1e-5, atol=1e-6)


# Keras calls JAX's exporter with a deprecated argument.
@pytest.mark.filterwarnings("ignore:The `native_serialization` parameter is deprecated")
class TestExport:
    @pytest.fixture(autouse=True)
    def skip_on_torch(self, backend):
        if backend == "torch":
            pytest.skip("Keras cannot export a SavedModel on torch")

    def served(self, model, x):
        import tensorflow as tf

        model.export("served", verbose=False)
        loaded = tf.saved_model.load("served")
        return np.asarray(loaded.serve(x))

    def test_keeps_the_dtype_of_raw_images(self):
        import tensorflow as tf

        encoder = TripletModel(
            keras.Sequential([layers.Rescaling(1 / 255), layers.Conv2D(4, 3)]), embedding_dim=4
        ).encoder
        images = RNG.integers(0, 256, (3, 6, 6, 3), "uint8")
        expected = numpy(encoder(images))
        np.testing.assert_allclose(self.served(encoder, images), expected, rtol=1e-4, atol=1e-6)
        loaded = tf.saved_model.load("served")
        signature = loaded.signatures["serving_default"]
        (spec,) = signature.structured_input_signature[1].values()
        assert spec.dtype == tf.uint8 and spec.shape.as_list() == [None, 6, 6, 3]

    def test_of_a_model_is_its_encoder(self):
        model = SiameseModel(backbone(), embedding_dim=4)
        # After sequences of two lengths the exported network takes any length.
        model(np.zeros((2, 3, 5), "float32"))
        x = RNG.normal(size=(2, 7, 5)).astype("float32")
        expected = numpy(model(x))
        longer = np.concatenate([x, x], axis=1)
        np.testing.assert_allclose(self.served(model, longer), expected, rtol=1e-4, atol=1e-6)
