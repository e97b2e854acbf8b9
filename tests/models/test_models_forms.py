"""What the models take: every kind of backbone and input; and what they say to a wrong one."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

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
    """A backbone of one's own, without weights or a shape."""

    def call(self, x):
        return ops.concatenate([x, ops.square(x)], axis=-1)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


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
    "mlp": lambda: (keras.Sequential([layers.Dense(8, "relu"), layers.Dense(5)]), ROWS),
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
    # Keras takes a list of arrays as one batch of several inputs only in a data set or tuple.
    inputs = tuple(x) if isinstance(x, list) else x
    # Compiling a graph takes ten times as long as running it once: two kinds are enough.
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
    alone = keras.models.load_model("encoder.keras")
    np.testing.assert_array_equal(numpy(alone(tensors)), z)


def test_application():
    """A network of keras.applications, without its top: the map is pooled."""
    backbone = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, include_top=False, weights=None
    )
    model = TripletModel(backbone, embedding_dim=3)
    x = RNG.random((6, 32, 32, 3)).astype("float32")
    # JAX compiles each operation by itself where it runs eagerly.
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


def test_padding_does_not_matter():
    backbone = keras.Sequential([layers.Embedding(9, 4, mask_zero=True)])
    model = EmbeddingModel(backbone, embedding_dim=3)
    longer = np.pad(TOKENS, ((0, 0), (0, 5)))
    np.testing.assert_allclose(numpy(model(TOKENS)), numpy(model(longer)), rtol=1e-4, atol=1e-6)


def test_no_linear_layer():
    model = EmbeddingModel(Squares(), embedding_dim=None, normalize=False)
    np.testing.assert_allclose(numpy(model(ROWS)), np.concatenate([ROWS, ROWS**2], 1), rtol=1e-6)
    assert model.embedding_dim == 8


def test_two_views_for_any_loss():
    """Pairs of positives, as BalancedBatches with two views gives them."""
    model = EmbeddingModel(layers.Dense(5), embedding_dim=3)
    assert model({"anchor": ROWS, "positive": ROWS}).shape == (6, 2, 3)


def test_inputs_named_like_branches():
    """What the backbone calls its own inputs comes first."""
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
    again = keras.models.load_model("model.keras")
    np.testing.assert_array_equal(numpy(again.encoder(tf.constant(words))), z)


class TestBackboneErrors:
    @pytest.mark.parametrize(
        "wrong", [None, "mobilenet", layers.Dense, keras.applications.MobileNetV2, np.ones(3)]
    )
    @pytest.mark.parametrize("cls", [TripletModel, Encoder])
    def test_no_keras_layer(self, cls, wrong):
        with pytest.raises(TypeError, match="`backbone` must be a Keras model or layer. Rec"):
            cls(wrong)

    def test_a_whole_model(self):
        model = TripletModel(layers.Dense(5))
        with pytest.raises(ValueError, match=r"share the weights \(backbone=model.encoder\)"):
            SiameseModel(model)

    def test_one_number_an_item(self):
        inputs = keras.Input((4,))
        scalar = keras.Model(inputs, ops.sum(inputs, axis=1))
        with pytest.raises(ValueError, match=r"must give one vector \(batch, features\)"):
            TripletModel(scalar)
        unknown = keras.Sequential([layers.Lambda(lambda x: ops.sum(x, axis=1))])
        with pytest.raises(ValueError, match=r"must give one vector \(batch, features\)"):
            TripletModel(unknown).fit(ROWS, LABELS, verbose=0)

    def test_five_outputs(self):
        inputs = keras.Input((4,))
        five = keras.Model(inputs, [layers.Dense(2)(inputs) for _ in range(5)])
        with pytest.raises(ValueError, match="one output. Received a list of 5 outputs"):
            TripletModel(five)

    def test_map_without_pooling(self):
        with pytest.raises(ValueError, match="pooling='average' or 'max'"):
            TripletModel(of_images(), pooling=None)


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
            whole = make(weights=None, classifier_activation=activation)
            Encoder(keras.Sequential([layers.Rescaling(1 / 255), whole]))
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

    def test_a_layer_that_is_one(self):
        with pytest.warns(UserWarning, match="'softmax' ends with the classification head"):
            Encoder(layers.Softmax(name="softmax"))

    def test_other_activations(self, recwarn):
        for activation in (None, "relu", "sigmoid", "tanh"):
            Encoder(keras.Sequential([keras.Input((4,)), layers.Dense(5, activation)]))
        assert not recwarn


class TestInputErrors:
    def model(self, cls=TripletModel):
        return cls(keras.Sequential([layers.Dense(5)]), embedding_dim=3)

    def test_missing_branch(self):
        text = r'\{"anchor": ..., "positive": ..., "negative": ...\}. Received a dict with the keys'
        with pytest.raises(ValueError, match=text + r" \['anchor', 'positive'\]"):
            self.model().fit({"anchor": ROWS, "positive": ROWS}, verbose=0)

    def test_misspelt_branch(self):
        with pytest.raises(ValueError, match="the keys .'anchor', 'negatve', 'positive'."):
            self.model()({"anchor": ROWS, "positive": ROWS, "negatve": ROWS})

    def test_branches_of_another_model(self):
        pair = {"first": ROWS, "second": ROWS}
        with pytest.raises(ValueError, match="the keys .'first', 'second'."):
            self.model()(pair)
        with pytest.raises(ValueError, match='branches {"first": ..., "second": ...} or a tuple'):
            self.model(SiameseModel)((ROWS, ROWS, ROWS))
        with pytest.raises(ValueError, match="Received a tuple of 3 parts"):
            self.model(EmbeddingModel)((ROWS, ROWS, ROWS))

    def test_quadruplets_of_another_form(self):
        model = self.model(QuadrupletModel)
        with pytest.raises(ValueError, match="needs the branches .*Received: .*second_anchor"):
            model(dict.fromkeys(("anchor", "second_anchor", "positive", "negative"), ROWS))
        model.compile(loss=losses.WeightedSum([(1.0, losses.QuadrupletLoss())]))
        with pytest.raises(ValueError, match="needs the branches .*Received: .*second_anchor"):
            model(dict.fromkeys(("anchor", "second_anchor", "positive", "negative"), ROWS))
        model.compile(loss=losses.QuadrupletLoss(form="two_anchors"))
        parts = dict.fromkeys(("anchor", "second_anchor", "positive", "negative"), ROWS)
        assert model(parts).shape == (6, 4, 3)

    @pytest.mark.parametrize("y", [[-1, 1], [7, 3]])
    def test_pairs_whose_y_is_no_score(self, y):
        model = self.model(SiameseModel)
        with pytest.raises(ValueError, match="must lie between 0 and 1. Received: from"):
            model.fit({"first": ROWS[:2], "second": ROWS[2:4]}, np.array(y), verbose=0)

    def test_bare_triplet(self):
        """`(anchor, positive, negative)` reads as (x, y, sample_weight)."""

        class Bare(keras.utils.PyDataset):
            def __len__(self):
                return 1

            def __getitem__(self, index):
                return ROWS, ROWS, ROWS

        with pytest.raises(ValueError, match=r"yield \(\(anchor, positive, negative\),\)"):
            self.model().fit(Bare(), verbose=0)

    def test_branches_that_do_not_fit(self):
        model = self.model()
        with pytest.raises(ValueError, match=r"same batch size and shape.*\(6, 4\) and \(6, 3\)"):
            model((ROWS, ROWS, ROWS[:, :3]))
        with pytest.raises(ValueError, match=r"same batch size and shape.*\(6, 4\) and \(3, 4\)"):
            model((ROWS, ROWS[:3], ROWS))
        two = SiameseModel(of_tables(lambda a, b: {"left": a, "right": b}), embedding_dim=3)
        with pytest.raises(ValueError, match="inputs of the same structure"):
            two({"first": TABLES, "second": ROWS})


class TestTargetErrors:
    def model(self, cls=TripletModel):
        return cls(keras.Sequential([layers.Dense(5)]), embedding_dim=3)

    def test_float_ids(self):
        with pytest.raises(ValueError, match="must be integer class ids.*Received.*float32"):
            self.model().fit(ROWS, LABELS.astype("float32") + 0.5, verbose=0)

    def test_one_hot(self):
        with pytest.raises(ValueError, match=r"become ids by labels.argmax\(axis=-1\)"):
            self.model().fit(ROWS, np.eye(3, dtype="int32")[LABELS], verbose=0)

    @pytest.mark.parametrize("kind", [np.asarray, list, lambda y: np.asarray(y, object)])
    def test_string_ids_in_a_numpy_fit(self, kind):
        names = kind(list("ababcc"))
        with pytest.raises(ValueError, match=r"`y` must be integer class ids.*return_inverse"):
            self.model().fit(ROWS, names, verbose=0)

    def test_string_ids_from_a_data_set(self, backend):
        if backend != "tensorflow":
            pytest.skip("strings enter a model on TensorFlow only")
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((ROWS, list("ababcc"))).batch(3)
        with pytest.raises(ValueError, match="np.unique.labels, return_inverse=True"):
            self.model().fit(data, shuffle=False, verbose=0)

    def test_no_ids(self):
        with pytest.raises(ValueError, match=r"needs integer class ids: fit\(x, y\).*anchor"):
            self.model().fit(ROWS, verbose=0)

    def test_pairs_without_y(self):
        with pytest.raises(ValueError, match="Pairs need y: 1 where the two items are the same"):
            self.model(SiameseModel).fit({"first": ROWS, "second": ROWS}, verbose=0)

    def test_pairs_without_y_for_a_sum_of_losses(self):
        model = self.model(SiameseModel)
        model.compile(loss=losses.WeightedSum([(2.0, losses.ContrastiveLoss())]))
        with pytest.raises(ValueError, match="Pairs need y"):
            model.fit({"first": ROWS, "second": ROWS}, verbose=0)

    def test_wrong_number_of_branches_for_the_loss(self):
        model = self.model(SiameseModel)
        model.compile(loss=losses.TripletLoss())
        with pytest.raises(ValueError, match=r"shape \(batch, 3, dim\).*Received 2 branches"):
            model.fit((ROWS, ROWS), LABELS, verbose=0)
