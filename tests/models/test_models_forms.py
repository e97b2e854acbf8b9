"""Backbones and inputs of all kinds, and the errors for unsuitable ones."""

import re

import keras
import numpy as np
import pytest
from batch_list import BatchList
from keras import layers, ops
from model_weights import numpy

from keras_metric import losses
from keras_metric.models import (
    EmbeddingModel,
    Encoder,
    QuadrupletModel,
    SiameseModel,
    TripletModel,
    TwoTowerModel,
)

RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 0, 1, 2, 2])
IMAGES = RNG.random((6, 10, 10, 3)).astype("float32")
TOKENS = np.where(np.arange(7) < RNG.integers(1, 8, (6, 1)), RNG.integers(1, 9, (6, 7)), 0)
ROWS = RNG.normal(size=(6, 4)).astype("float32")
TABLES = {"left": ROWS, "right": RNG.normal(size=(6, 3)).astype("float32")}


@keras.saving.register_keras_serializable("tests")
class Squares(layers.Layer):
    """A custom backbone without weights and input shape."""

    def call(self, x):
        return ops.concatenate([x, ops.square(x)], axis=-1)


def of_images():
    inputs = keras.Input((10, 10, 3))
    return keras.Model(inputs, layers.Conv2D(4, 3, activation="relu")(inputs))


def of_tables(structure):
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    out = layers.Dense(5)(layers.Concatenate()([left, right]))
    return keras.Model(structure(left, right), out)


BACKBONES = {
    "sequential": lambda: (keras.Sequential([layers.Conv2D(4, 3)]), IMAGES),
    "sequential with input": lambda: (
        keras.Sequential([keras.Input((10, 10, 3)), layers.Conv2D(4, 3), layers.Flatten()]),
        IMAGES,
    ),
    "functional": lambda: (of_images(), IMAGES),
    "video": lambda: (layers.Conv3D(4, 2), RNG.random((6, 3, 4, 4, 1)).astype("float32")),
    "raw images": lambda: (
        keras.Sequential([layers.Rescaling(1 / 255), layers.Conv2D(4, 3)]),
        (255 * IMAGES).astype("uint8"),
    ),
    "one layer": lambda: (layers.Flatten(), IMAGES),
    "own layer": lambda: (Squares(), ROWS),
    "tokens, pooled": lambda: (
        keras.Sequential([layers.Embedding(9, 4, mask_zero=True), layers.LSTM(5)]),
        TOKENS,
    ),
    "tokens, sequence": lambda: (
        keras.Sequential(
            [layers.Embedding(9, 4, mask_zero=True), layers.GRU(5, return_sequences=True)]
        ),
        TOKENS,
    ),
    "dict": lambda: (of_tables(lambda left, right: {"left": left, "right": right}), TABLES),
    "list": lambda: (of_tables(lambda left, right: [left, right]), list(TABLES.values())),
}


def first_rows(x, rows):
    return keras.tree.map_structure(lambda a: a[:rows], x)


@pytest.mark.parametrize("kind", BACKBONES)
def test_backbone(kind):
    backbone, x = BACKBONES[kind]()
    model = TripletModel(backbone, embedding_dim=3)
    # Keras accepts several inputs as a tuple of arrays, but not as a list.
    inputs = tuple(x) if isinstance(x, list) else x
    # Compilation takes most of the time; compile two kinds only.
    model.run_eagerly = kind not in ("sequential", "dict")
    model.fit(inputs, LABELS, batch_size=4, shuffle=False, verbose=0)
    tensors = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    z = numpy(model(tensors))
    assert z.shape == (6, 3)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    parts = {name: first_rows(tensors, 2) for name in ("anchor", "positive", "negative")}
    tuples = numpy(model(parts))
    np.testing.assert_allclose(tuples[:, 2], z[:2], rtol=1e-4, atol=1e-5)
    assert model.backbone is backbone
    model.encoder.save("encoder.keras")
    loaded = keras.models.load_model("encoder.keras")
    np.testing.assert_array_equal(numpy(loaded(tensors)), z)


def test_application():
    """The feature map of a network of keras.applications is pooled."""
    backbone = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, include_top=False, weights=None
    )
    model = TripletModel(backbone, embedding_dim=3)
    x = RNG.random((6, 32, 32, 3)).astype("float32")
    # Eager JAX compiles each operation separately.
    model.run_eagerly = keras.backend.backend() != "jax"
    before = numpy(backbone.weights[0] + 0)
    model.fit(x, LABELS, verbose=0)
    assert np.any(before != numpy(backbone.weights[0] + 0))
    z = numpy(model(x))
    pooled = numpy(backbone(x)).mean((1, 2))
    kernel, bias = (numpy(w) for w in model.encoder.head.linear.weights)
    expected = pooled @ kernel + bias
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(z, expected, rtol=1e-3, atol=1e-4)


def test_no_linear_layer():
    model = EmbeddingModel(Squares(), embedding_dim=None, normalize=False)
    np.testing.assert_allclose(numpy(model(ROWS)), np.concatenate([ROWS, ROWS**2], 1), rtol=1e-6)
    assert model.embedding_dim == 8


def test_two_views_for_any_loss():
    """Positive pairs, as BalancedBatches returns them with two views."""
    model = EmbeddingModel(layers.Dense(5), embedding_dim=3)
    assert model({"anchor": ROWS, "positive": ROWS}).shape == (6, 2, 3)


def test_inputs_named_like_branches():
    """A dict with the input names of the backbone is not read as branches."""
    inputs = {name: keras.Input((4,), name=name) for name in ("positive", "negative")}
    backbone = keras.Model(inputs, layers.Subtract()(list(inputs.values())))
    model = EmbeddingModel(backbone, embedding_dim=3)
    assert model({"positive": ROWS, "negative": ROWS}).shape == (6, 3)


def test_strings_from_a_data_set(backend):
    if backend != "tensorflow":
        pytest.skip("strings enter a model on TensorFlow only")
    import tensorflow as tf

    words = ["a red car", "a blue car", "red wine", "white wine", "a cat", "the cat"]
    backbone = keras.Sequential(
        [
            layers.TextVectorization(vocabulary=["red", "car", "wine", "cat"]),
            layers.Embedding(6, 4, mask_zero=True),
        ]
    )
    model = TripletModel(backbone, embedding_dim=3)
    data = tf.data.Dataset.from_tensor_slices((words, LABELS)).batch(3)
    model.fit(data, shuffle=False, verbose=0)
    z = model.encoder.predict(data.map(lambda x, y: x), verbose=0)
    model.save("model.keras")
    loaded = keras.models.load_model("model.keras")
    np.testing.assert_array_equal(numpy(loaded.encoder(tf.constant(words))), z)


class TestBackboneErrors:
    @pytest.mark.parametrize(
        "wrong", [None, "mobilenet", layers.Dense, keras.applications.MobileNetV2, np.ones(3)]
    )
    @pytest.mark.parametrize("cls", [TripletModel, Encoder])
    def test_not_a_keras_layer(self, cls, wrong):
        with pytest.raises(TypeError, match="`backbone` must be a Keras model or layer. Rec"):
            cls(wrong)

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda x: TripletModel(layers.Dense(5)), r"weights \(backbone=model.encoder\)"),
            (lambda x: keras.Model(x, ops.sum(x, axis=1)), r"one vector \(batch, features\)"),
            (lambda x: keras.Model(x, [layers.Dense(2)(x)] * 5), "one output. .* of 5 outputs"),
        ],
        ids=["model", "number", "outputs"],
    )
    def test_unsuitable_backbones(self, make, text):
        with pytest.raises(ValueError, match=text):
            TripletModel(make(keras.Input((4,))))

    def test_map_without_pooling(self):
        with pytest.raises(ValueError, match="pooling='average' or 'max'"):
            TripletModel(of_images(), pooling=None)

    def test_one_number_for_each_item_in_the_first_batch(self):
        unknown = keras.Sequential([layers.Lambda(lambda x: ops.sum(x, axis=1))])
        with pytest.raises(ValueError, match=r"one vector \(batch, features\)"):
            TripletModel(unknown).fit(ROWS, LABELS, verbose=0)


APPLICATIONS = {
    "MobileNet": lambda **s: keras.applications.MobileNet((32, 32, 3), alpha=0.25, **s),
    "MobileNetV3Small": lambda **s: keras.applications.MobileNetV3Small(
        (32, 32, 3), alpha=0.75, minimalistic=True, **s
    ),
    "VGG16": lambda **s: keras.applications.VGG16(input_shape=(32, 32, 3), classes=2, **s),
}


class TestClassificationHeads:
    @pytest.mark.parametrize("name", APPLICATIONS)
    def test_applications(self, name, recwarn):
        make = APPLICATIONS[name]
        Encoder(make(include_top=False, pooling="avg", weights=None))
        assert not recwarn
        for activation in ("softmax", None):
            classifier = make(weights=None, classifier_activation=activation)
            Encoder(keras.Sequential([layers.Rescaling(1 / 255), classifier]))
            (warning,) = recwarn
            text = r"sequential.* ends with the classification head 'predictions'.*pooling=\"avg\""
            assert re.search(text, str(warning.message))
            recwarn.clear()

    @pytest.mark.parametrize(
        "model", [EmbeddingModel, TripletModel, SiameseModel, QuadrupletModel, TwoTowerModel]
    )
    def test_every_model_warns_once(self, model, recwarn):
        towers = [keras.Sequential([layers.Dense(5, "softmax")])]
        if model is TwoTowerModel:
            towers.append(layers.Dense(5))
        model(*towers)
        (warning,) = recwarn
        assert "ends with the classification head" in str(warning.message)
        assert model is TwoTowerModel or warning.filename == __file__

    def test_a_softmax_layer(self):
        with pytest.warns(UserWarning, match="'softmax' ends with the classification head"):
            Encoder(layers.Softmax(name="softmax"))

    def test_other_activations(self, recwarn):
        for activation in (None, "relu", "sigmoid", "tanh"):
            Encoder(keras.Sequential([keras.Input((4,)), layers.Dense(5, activation)]))
        assert not recwarn


def model_of(cls=TripletModel):
    return cls(keras.Sequential([layers.Dense(5)]), embedding_dim=3)


class TestInputErrors:
    @pytest.mark.parametrize(
        ("cls", "x", "text"),
        [
            (
                TripletModel,
                {"anchor": ROWS, "positive": ROWS},
                r'\{"anchor": ..., "positive": ..., "negative": ...\}. Received a dict with the '
                r"keys \['anchor', 'positive'\]",
            ),
            (
                TripletModel,
                {"anchor": ROWS, "positive": ROWS, "negatve": ROWS},
                "the keys .'anchor', 'negatve', 'positive'.",
            ),
            (TripletModel, {"first": ROWS, "second": ROWS}, "the keys .'first', 'second'."),
            (SiameseModel, (ROWS,) * 3, 'branches {"first": ..., "second": ...} or a tuple'),
            (EmbeddingModel, (ROWS,) * 3, "Received a tuple of 3 parts"),
        ],
        ids=["missing", "misspelt", "other model", "siamese", "tuple"],
    )
    def test_wrong_branches(self, cls, x, text):
        with pytest.raises(ValueError, match=text):
            model_of(cls)(x)

    def test_quadruplets_of_another_form(self):
        model = model_of(QuadrupletModel)
        parts = dict.fromkeys(("anchor", "second_anchor", "positive", "negative"), ROWS)
        for loss in (model.loss, losses.WeightedSum([(1.0, losses.QuadrupletLoss())])):
            model.compile(loss=loss)
            with pytest.raises(ValueError, match="needs the branches .*Received: .*second_anchor"):
                model(parts)
        model.compile(loss=losses.QuadrupletLoss(form="two_anchors"))
        assert model(parts).shape == (6, 4, 3)

    @pytest.mark.parametrize("y", [[-1, 1], [7, 3]])
    def test_pairs_with_y_out_of_range(self, y):
        model = model_of(SiameseModel)
        with pytest.raises(ValueError, match="must lie between 0 and 1. Received: from"):
            model.fit({"first": ROWS[:2], "second": ROWS[2:4]}, np.array(y), verbose=0)

    def test_a_tuple_of_three_arrays_from_a_data_set(self):
        """Keras reads `(anchor, positive, negative)` as (x, y, sample_weight)."""
        with pytest.raises(ValueError, match=r"yield \(\(anchor, positive, negative\),\)"):
            model_of().fit(BatchList([(ROWS, ROWS, ROWS)]), verbose=0)

    def test_branches_of_different_shapes(self):
        model = model_of()
        with pytest.raises(ValueError, match=r"same batch size and shape.*\(6, 4\) and \(6, 3\)"):
            model((ROWS, ROWS, ROWS[:, :3]))
        with pytest.raises(ValueError, match=r"same batch size and shape.*\(6, 4\) and \(3, 4\)"):
            model((ROWS, ROWS[:3], ROWS))
        two = SiameseModel(of_tables(lambda a, b: {"left": a, "right": b}), embedding_dim=3)
        with pytest.raises(ValueError, match="inputs of the same structure"):
            two({"first": TABLES, "second": ROWS})


class TestTargetErrors:
    @pytest.mark.parametrize("kind", [np.asarray, list, lambda y: np.asarray(y, object)])
    def test_string_ids_in_a_numpy_fit(self, kind):
        names = kind(list("ababcc"))
        with pytest.raises(ValueError, match=r"`y` must be integer class ids.*return_inverse"):
            model_of().fit(ROWS, names, verbose=0)

    def test_string_ids_from_a_data_set(self, backend):
        if backend != "tensorflow":
            pytest.skip("strings enter a model on TensorFlow only")
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((ROWS, list("ababcc"))).batch(3)
        with pytest.raises(ValueError, match="np.unique.labels, return_inverse=True"):
            model_of().fit(data, shuffle=False, verbose=0)

    @pytest.mark.parametrize("in_a_sum", [False, True])
    def test_pairs_without_y(self, in_a_sum):
        model = model_of(SiameseModel)
        if in_a_sum:
            model.compile(loss=losses.WeightedSum([(2.0, losses.ContrastiveLoss())]))
        with pytest.raises(ValueError, match="Pairs need y: 1 "):
            model.fit({"first": ROWS, "second": ROWS}, verbose=0)

    def test_wrong_number_of_branches_for_the_loss(self):
        model = model_of(SiameseModel)
        model.compile(loss=losses.TripletLoss())
        with pytest.raises(ValueError, match=r"shape \(batch, 3, dim\).*Received 2 branches"):
            model.fit((ROWS, ROWS), LABELS, verbose=0)
