"""Models: fit in every precision, loss values, predictions, loss weights, statistics, warnings."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
import reference
from batch_list import BatchList
from keras import layers, ops
from model_weights import check_same_weights, numpy, weights
from proxies import ProxyLoss

from keras_metric import layers as metric_layers
from keras_metric import losses
from keras_metric.models import (
    EmbeddingModel,
    Encoder,
    QuadrupletModel,
    SiameseModel,
    TripletModel,
    TwoTowerModel,
)
from keras_metric.models.training_warnings import spread_and_length

MODELS = [EmbeddingModel, SiameseModel, TripletModel, QuadrupletModel]
DEFAULT_LOSSES = {
    EmbeddingModel: losses.TripletLoss,
    SiameseModel: losses.ContrastiveLoss,
    TripletModel: losses.TripletLoss,
    QuadrupletModel: losses.QuadrupletLoss,
}
POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 0])

on_xla = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="jit_compile means torch.compile there, not XLA"
)


def items(seed=0, rows=8):
    """Return items (rows, 5) of three overlapping classes."""
    x = np.random.default_rng(seed).normal(size=(rows, 5))
    return (x + np.resize(LABELS, rows)[:, None]).astype("float32")


def tuples(model, rows=8):
    """Return ready-made tuples in the model's first form, and y for pairs."""
    names = model.forms[0]
    parts = {name: items(seed, rows) for seed, name in enumerate(names)}
    return parts, (np.resize([1, 0], rows) if len(names) == 2 else None)


def eager(model):
    """Disable graph compilation, which makes small tests ten times as fast."""
    model.run_eagerly = True
    return model


def embedding_model(loss=None, optimizer="sgd", run_eagerly=True, **settings):
    model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4, **settings)
    if loss is not None:
        model.compile(optimizer, loss)
    model.run_eagerly = run_eagerly
    return model


@contextlib.contextmanager
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


class Count(keras.layers.Layer):
    """Records the number of rows of each call."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def call(self, x):
        self.rows.append(x.shape[0])
        return x


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cls", MODELS)
def test_fit_without_compile(cls, policy):
    """Labelled batches, then tuples: weights change, and embeddings have length 1."""
    keras.config.set_dtype_policy(policy)
    model = cls(keras.layers.Dense(6), embedding_dim=4)
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert type(model.loss) is DEFAULT_LOSSES[cls]
    x = items()
    model(x)
    before = weights(model)
    for inputs, y in ((x, LABELS), tuples(cls)):
        loss = model.fit(inputs, y, batch_size=8, epochs=2, verbose=0).history["loss"]
        assert np.all(np.isfinite(loss)) and loss[0] > 0
        assert any(np.any(a != b) for a, b in zip(before, weights(model)))
        before = weights(model)
        # Precision is the same for tuples; compile only one of the two graphs.
        model.run_eagerly = policy != "float32"
    z = numpy(model.encoder(x))
    assert z.dtype == "float32" and z.shape == (8, 4)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)


@on_xla
def test_jit_compile():
    """XLA gives the same losses, for labelled batches and for tuples."""
    histories = []
    for jit in (False, True):
        keras.utils.set_random_seed(1)
        model = TripletModel(keras.Sequential([keras.layers.Dense(6)]), embedding_dim=4)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=jit)
        histories.append(
            model.fit(items(), LABELS, epochs=2, verbose=0).history["loss"]
            + model.fit(tuples(TripletModel)[0], epochs=2, verbose=0).history["loss"]
        )
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)


@pytest.mark.thorough
@on_xla
@pytest.mark.parametrize("policy", POLICIES[1:])
def test_jit_compile_in_half_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = QuadrupletModel(keras.Sequential([keras.layers.Dense(6)]), embedding_dim=4)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    assert np.all(np.isfinite(model.fit(items(), LABELS, verbose=0).history["loss"]))


def test_training_separates_held_out_digits(digits):
    images, labels = digits
    few = labels < 5
    images, labels = images[few], labels[few]
    model = TripletModel(
        keras.Sequential([layers.Conv2D(16, 3, activation="relu"), layers.Flatten()]), 16
    )

    def overlap():
        z, y = numpy(model(images[600:])), labels[600:]
        d = np.linalg.norm(z[:, None] - z[None], axis=-1)
        same = (y[:, None] == y) & ~np.eye(len(y), dtype=bool)
        return d[same].mean() / d[y[:, None] != y].mean()

    untrained = overlap()
    history = model.fit(images[:600], labels[:600], batch_size=60, epochs=4, verbose=0)
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    assert overlap() < 0.85 * untrained


@pytest.mark.parametrize("cls", MODELS)
def test_tuples_are_encoded_in_order_and_at_once(cls):
    count = Count()
    model = cls(keras.Sequential([count, keras.layers.Dense(6)]), embedding_dim=4)
    x, _ = tuples(cls)
    count.rows.clear()
    embeddings = numpy(model(x))
    branches = len(cls.forms[0])
    assert embeddings.shape == (8, branches, 4)
    assert set(count.rows) == {8 * branches}
    expected = np.stack([numpy(model.encoder(x[name])) for name in cls.forms[0]], axis=1)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-5, atol=1e-6)
    # The order of the keys does not matter: tf.data sorts them.
    found = numpy(model(dict(sorted(x.items(), reverse=True))))
    np.testing.assert_array_equal(found, embeddings)
    if cls.takes_tuples:
        for container in (tuple, list):
            np.testing.assert_array_equal(numpy(model(container(x.values()))), embeddings)


def test_loss_of_tuples_equals_a_loop():
    model = TripletModel(keras.layers.Dense(6), embedding_dim=4)
    x, _ = tuples(TripletModel)
    logged = eager(model).evaluate(x, verbose=0)
    a, p, n = (numpy(model.encoder(part)) for part in x.values())
    terms = [
        max(np.linalg.norm(a[i] - p[i]) - np.linalg.norm(a[i] - n[i]) + 0.2, 0) for i in range(8)
    ]
    assert np.isclose(logged, sum(terms) / np.count_nonzero(terms), rtol=1e-4)


def test_loss_of_a_labelled_batch_equals_a_loop():
    model = embedding_model(losses.TripletLoss(margin=0.3, mining="all"))
    logged = model.evaluate(items(), LABELS[:, None], batch_size=8, verbose=0)
    z = numpy(model(items())).astype("float64")
    expected = reference.triplet_loss(z, LABELS, 0.3, mining="all")
    assert np.isclose(logged, expected, rtol=1e-4)


def test_sample_weight_and_class_weight_change_the_loss():
    model = embedding_model(losses.TripletLoss(0.2), keras.optimizers.SGD(0.0))
    plain, weighted = (
        model.evaluate(items(), LABELS, sample_weight=w, verbose=0) for w in (None, np.arange(8.0))
    )
    assert not np.isclose(plain, weighted, rtol=1e-3)
    logged = model.fit(items(), LABELS, class_weight={0: 0.0, 1: 1.0, 2: 3.0}, verbose=0)
    assert not np.isclose(logged.history["loss"][0], plain, rtol=1e-3)


def test_evaluation_does_not_change_training():
    """Random mining in evaluation does not change the random samples in training."""
    trained = []
    for settings in ({}, {"validation_data": (items(1), LABELS)}):
        keras.utils.set_random_seed(0)
        model = TripletModel(keras.layers.Dense(6), embedding_dim=4)
        mining = metric_layers.TripletMiner("random", seed=3)
        model.compile("sgd", losses.TripletLoss(mining=mining))
        settings = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0, **settings}
        eager(model).fit(items(), LABELS, **settings)
        trained.append(weights(model))
    check_same_weights(*trained)


def test_validation_data_from_a_data_set_of_tuples():
    x, _ = tuples(TripletModel)
    source = BatchList([(tuple(x.values()),)] * 2)
    model = TripletModel(keras.layers.Dense(6), embedding_dim=4)
    history = model.fit(source, validation_data=source, verbose=0).history
    assert set(history) == {"loss", "val_loss"}


class TestPredict:
    def test_siamese_model_returns_distances_of_pairs(self):
        model = eager(SiameseModel(keras.layers.Dense(6), embedding_dim=4))
        x, _ = tuples(SiameseModel)
        first, second = (model.predict(part, verbose=0) for part in x.values())
        assert first.shape == (8, 4)
        expected = np.linalg.norm(first - second, axis=1)
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4)
        np.testing.assert_allclose(
            model.predict((x["first"], x["second"]), batch_size=3, verbose=0), expected, rtol=1e-4
        )
        model.compile(loss=losses.ContrastiveLoss(distance="cosine"), run_eagerly=True)
        cosine = 1 - (first * second).sum(1)
        np.testing.assert_allclose(model.predict(x, verbose=0), cosine, rtol=1e-3, atol=1e-6)

    def test_other_models_return_embeddings_of_tuples(self):
        model = QuadrupletModel(keras.layers.Dense(6), embedding_dim=4)
        assert model.predict(tuples(QuadrupletModel)[0], verbose=0).shape == (8, 4, 4)

    def test_distance(self):
        model = embedding_model()
        eager(model.encoder)
        a, b = items(1), items(2)
        p, q = numpy(model(a)), numpy(model(b))
        expected = np.linalg.norm(p - q, axis=1)
        np.testing.assert_allclose(model.distance(a, b), expected, rtol=1e-4)
        np.testing.assert_allclose(
            model.distance(a[:1], b, metric="cosine"), 1 - q @ p[0], rtol=1e-3, atol=1e-6
        )
        model.compile(loss=losses.TripletLoss(distance="squared_euclidean"))
        np.testing.assert_allclose(model.distance(a, b), expected**2, rtol=1e-4)
        model.compile(loss=[losses.WeightedSum([(1.0, model.loss)])])
        np.testing.assert_allclose(model.distance(a, b), expected**2, rtol=1e-4)
        with pytest.raises(ValueError, match="or one of them a single item. Received: len"):
            model.distance(a[:2], b)
        with pytest.raises(ValueError, match="`metric` must be one of"):
            model.distance(a, b, metric="l2")


class TestLossWeights:
    def test_are_trained_and_counted(self):
        model = embedding_model(ProxyLoss(3), keras.optimizers.SGD(0.1), run_eagerly=False)
        proxies = model.loss.proxies.vectors
        before = proxies.numpy() + 0
        model.fit(items(), LABELS, verbose=0)
        assert np.all(np.any(before != proxies.numpy(), axis=1))
        assert any(v is proxies for v in model.trainable_variables)
        assert model.count_params() == 5 * 6 + 6 + 6 * 4 + 4 + 3 * 4

    def test_are_tracked_with_the_loss(self):
        model = embedding_model()
        model(items())
        own = len(model.trainable_variables)
        first = ProxyLoss(3)
        model.compile(loss=first)
        vectors = first.proxies.vectors
        # A new optimizer keeps the loss and the proxies.
        model.compile(keras.optimizers.SGD(0.1))
        assert model.loss is first and model.trainable_variables[-1] is vectors
        both = losses.WeightedSum([(1, first), (0.5, ProxyLoss(4, 2.0, name="other"))])
        model.compile(loss=both)
        assert len(model.trainable_variables) == own + 2
        assert model.trainable_variables[-2] is vectors
        eager(model).fit(items(), LABELS, verbose=0)
        model.compile(loss=losses.ContrastiveLoss())
        assert len(model.trainable_variables) == own

    def test_are_built_in_the_first_batch(self):
        """Without a linear layer and an input shape the width is unknown before the first batch."""
        model = EmbeddingModel(keras.Sequential([keras.layers.Dense(6)]), embedding_dim=None)
        assert model.embedding_dim is None
        model.compile(keras.optimizers.SGD(0.1), loss=ProxyLoss(3))
        # Both with a graph and eagerly the proxies are built before the step.
        assert not model.loss.proxies.built
        model.fit(items(), LABELS, verbose=0)
        assert model.embedding_dim == 6
        vectors = model.loss.proxies.vectors
        assert vectors.shape == (3, 6)
        before = vectors.numpy() + 0
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        model.fit(items(), LABELS, verbose=0)
        assert np.any(before != vectors.numpy())

    def test_of_another_width_raise(self):
        loss = ProxyLoss(3)
        embedding_model(loss)
        other = EmbeddingModel(keras.layers.Dense(6), embedding_dim=5)
        with pytest.raises(ValueError, match="length 4. This model makes embeddings of length 5"):
            other.compile(loss=loss)

    def test_can_be_frozen(self):
        model = embedding_model(ProxyLoss(3))
        model(items())
        model.loss_layers.trainable = False
        assert all(v is not model.loss.proxies.vectors for v in model.trainable_variables)
        model.loss_layers.trainable = True
        assert model.trainable_variables[-1] is model.loss.proxies.vectors

    def test_summary_has_a_row(self):
        model = embedding_model(ProxyLoss(3))
        model(items())
        lines = []
        model.summary(print_fn=lines.append, line_length=80)
        text = "\n".join(map(str, lines))
        row = next(line for line in text.splitlines() if "loss_layers" in line)
        assert "12" in row and "encoder" in text


class TestSharing:
    def test_an_encoder_is_used_as_it_is(self):
        first = TripletModel(keras.layers.Dense(6), embedding_dim=4, normalize=False)
        second = SiameseModel(first.encoder)
        assert second.encoder is first.encoder and second.embedding_dim == 4
        x = items()
        eager(first).fit(x, LABELS, verbose=0)
        np.testing.assert_array_equal(numpy(first(x)), numpy(second(x)))
        copy = SiameseModel.from_config(second.get_config())
        assert copy.encoder.normalize is False and copy.embedding_dim == 4

    @pytest.mark.parametrize(
        "settings", [{"embedding_dim": 5}, {"normalize": False}, {"pooling": "max"}]
    )
    def test_other_settings_raise(self, settings):
        encoder = TripletModel(keras.layers.Dense(6), embedding_dim=4).encoder
        with pytest.raises(ValueError, match="used as it is, with .* Leave it out, or pass"):
            SiameseModel(encoder, **settings)


class TestTransfer:
    def backbone(self):
        layers = keras.layers
        return keras.Sequential(
            [keras.Input((5,)), layers.Dense(6), layers.BatchNormalization(), layers.Dense(6)]
        )

    def test_a_frozen_backbone_is_trained_after_compile(self):
        model = TripletModel(self.backbone(), embedding_dim=4)
        x = items()
        model.backbone.trainable = False
        before = weights(model.backbone)
        eager(model).fit(x, LABELS, epochs=2, verbose=0)
        check_same_weights(model.backbone, before)
        model.backbone.trainable = True
        model.compile(keras.optimizers.Adam(1e-4), run_eagerly=True)
        assert isinstance(model.loss, losses.TripletLoss)
        model.fit(x, LABELS, verbose=0)
        assert all(np.any(a != b) for a, b in zip(before[:4], weights(model.backbone)))

    @pytest.mark.parametrize("recompiled", [True, False])
    def test_batch_norm_stays_frozen(self, recompiled):
        model = TripletModel(self.backbone(), embedding_dim=4, freeze_batch_norm=True)
        dense, norm, _ = model.backbone.layers
        model.backbone.trainable = True
        if recompiled:
            model.compile(keras.optimizers.SGD(0.1))
        frozen, before = weights(norm), weights(dense)
        model.fit(items(), LABELS, verbose=0)
        check_same_weights(norm, frozen)
        assert np.any(before[0] != weights(dense)[0])
        # With stored statistics an embedding does not depend on the batch.
        two, all_items = (numpy(model.encoder(x, training=True)) for x in (items()[:2], items()))
        np.testing.assert_allclose(two, all_items[:2], rtol=1e-4, atol=1e-6)

    def test_batch_norms_are_found_in_custom_layers(self):
        class Block(keras.layers.Layer):
            def __init__(self):
                super().__init__()
                self.steps = [keras.layers.Dense(6), keras.layers.BatchNormalization()]

            def build(self, shape):
                self.steps[0].build(shape)
                self.steps[1].build((None, 6))

            def call(self, x):
                return self.steps[1](self.steps[0](x))

        block = Block()
        model = EmbeddingModel(keras.Sequential([block]), 4, freeze_batch_norm=True)
        model(items())
        assert len(model.trainable_variables) == 4 and not block.steps[1].trainable


class TestTrainHealth:
    def test_values(self):
        model = TripletModel(keras.layers.Dense(6), embedding_dim=4, train_health=True)
        model.compile(loss=losses.TripletLoss(margin=0.3, mining="all"))
        logs = eager(model).evaluate(items(), LABELS, verbose=0, return_dict=True)
        z = numpy(model(items())).astype("float64")
        d = reference.matrix(z)
        same = (LABELS[:, None] == LABELS) & ~np.eye(8, dtype=bool)
        other = LABELS[:, None] != LABELS
        gaps = [d[a, p] - d[a, n] + 0.3 for a, p, n in reference.triplets(d, LABELS, "all")]
        expected = {
            "loss": reference.triplet_loss(z, LABELS, 0.3, mining="all"),
            "active_fraction": np.mean(np.array(gaps) > 0),
            "positive_distance": d[same].mean(),
            "negative_distance": d[other].mean(),
            "positives": same.sum(),
            "embedding_spread": np.sqrt(((z - z.mean(0)) ** 2).sum(1).mean()),
        }
        assert set(logs) == set(expected)
        for name, value in expected.items():
            assert np.isclose(logs[name], value, rtol=1e-3), name

    def test_of_tuples_in_training_and_validation(self):
        model = SiameseModel(keras.layers.Dense(6), embedding_dim=4, train_health=True)
        x, same = tuples(SiameseModel)
        history = model.fit(x, same, validation_data=(x, same), verbose=0).history
        assert {"active_fraction", "val_active_fraction", "embedding_spread"} < set(history)
        assert history["val_positives"] == [4]

    @pytest.mark.parametrize(("on", "names"), [(True, {"embedding_spread"}), (False, set())])
    def test_statistics_that_the_loss_does_not_report_are_absent(self, on, names):
        model = embedding_model(ProxyLoss(3) if on else None, train_health=on)
        logs = model.evaluate(items(), LABELS, verbose=0, return_dict=True)
        assert set(logs) == {"loss", *names}


def in_batches(kind, x, y):
    """Return arguments of `fit` for batches of four of the same items."""
    if kind == "tf.data":
        import tensorflow as tf

        return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(4), "shuffle": False}
    if kind == "PyDataset":
        return {"x": BatchList((x[i : i + 4], y[i : i + 4]) for i in range(0, len(x), 4))}
    return {"x": x, "y": y, "batch_size": 4, "shuffle": False}


class TestTrainingWarnings:
    # The two items of each class are in different batches of four.
    NO_POSITIVES = np.tile(np.arange(4), 2).astype("int32")

    @pytest.mark.parametrize("kind", ["numpy", "PyDataset", "tf.data"])
    @pytest.mark.parametrize("loss", [losses.TripletLoss, losses.ContrastiveLoss])
    def test_no_batch_has_a_positive(self, kind, loss):
        model = embedding_model(loss(), run_eagerly=False)
        data = in_batches(kind, items(), self.NO_POSITIVES)
        with pytest.warns(UserWarning, match="None of the last 2 batches had two items of the sa"):
            model.fit(**data, epochs=2, verbose=0)
        with no_warning():
            model.fit(**data, verbose=0)

    def test_multi_hot_labels_without_a_common_label(self):
        model = embedding_model(losses.TripletLoss(labels="multi_hot"))
        with pytest.warns(UserWarning, match="None of the last 2 batches had two items of the sa"):
            model.fit(items(), np.tile(np.eye(4), (2, 1)), batch_size=4, shuffle=False, verbose=0)

    @pytest.mark.parametrize(
        ("loss", "labels"),
        [
            (losses.TripletLoss, [0, 1, 2, 3, 0, 0, 1, 2]),  # one batch has a positive
            (lambda: losses.ArcFaceLoss(8), range(8)),
            (losses.InstanceLoss, range(8)),
        ],
        ids=["one batch", "class vectors", "instances"],
    )
    def test_no_warning_if_positives_exist_or_are_not_needed(self, loss, labels):
        # Compiled: on JAX an eager step calls the loss with NumPy labels, and the loss warns then.
        model = embedding_model(loss(), run_eagerly=False)
        with no_warning():
            model.fit(**in_batches("numpy", items(), np.array(labels)), verbose=0)

    @pytest.mark.parametrize("kind", ["numpy", "PyDataset", "tf.data"])
    def test_collapse(self, kind):
        """A head with weights 0 maps all items to one point."""
        model = TripletModel(keras.layers.Dense(6), embedding_dim=4)
        model(items())
        for weight in model.encoder.trainable_variables:
            weight.assign(ops.full(weight.shape, 0.1 if weight.path.endswith("bias") else 0.0))
        data = in_batches(kind, items(), np.arange(8, dtype="int32") // 2)
        with pytest.warns(UserWarning, match="embeddings have collapsed: in the last 2 batches"):
            model.fit(**data, epochs=2, verbose=0)

    def test_a_small_spread_warns_in_the_second_epoch(self):
        """An untrained network may start at a spread of 0.02; if it stays, it has collapsed."""
        model, wide = (
            EmbeddingModel(
                keras.layers.Dense(2, kernel_initializer="identity"), None, normalize=False
            )
            for _ in range(2)
        )
        # The mean has length 1, and the distance of the items from it is 0.01.
        x = np.array([[1.0, 0.01], [1.0, -0.01]] * 4, "float32")
        for each in (model, wide):
            each.compile(keras.optimizers.SGD(1e-9), loss=losses.TripletLoss())
        labels = np.arange(8, dtype="int32") // 4
        with no_warning():
            model.fit(x, labels, batch_size=4, shuffle=False, verbose=0)
            for _ in range(2):
                model.evaluate(x, labels, batch_size=4, verbose=0)
        with pytest.warns(UserWarning, match="mean was 0.01 of their length"):
            model.fit(x, labels, batch_size=4, shuffle=False, verbose=0)
        with no_warning():
            wide.fit(x * [1, 5], labels, batch_size=4, epochs=3, shuffle=False, verbose=0)

    def test_spread_and_length(self):
        z = np.random.default_rng(0).normal(size=(5, 3, 4)) + 2
        flat = z.reshape(-1, 4)
        expected = [
            np.sqrt(((flat - flat.mean(0)) ** 2).sum(1).mean()),
            np.sqrt((flat**2).sum(1).mean()),
        ]
        found = [float(numpy(v)) for v in spread_and_length(ops.convert_to_tensor(z))]
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_one_item_is_no_collapse(self):
        model = TripletModel(keras.layers.Dense(6), embedding_dim=4)
        model.compile(loss=losses.ArcFaceLoss(8))
        with no_warning():
            model.fit(items()[:1], np.zeros(1, "int32"), verbose=0)


class TestSettings:
    @pytest.mark.parametrize("cls", [*MODELS, Encoder])
    def test_round_trip(self, cls):
        model = cls(
            keras.layers.Dense(6, name="own"),
            embedding_dim=None,
            normalize=False,
            pooling=keras.layers.GlobalMaxPooling1D(name="top"),
            freeze_batch_norm=True,
            name="mine",
        )
        config = model.get_config()
        copy = cls.from_config(config)
        assert copy.get_config() == config and copy.name == "mine"

    def test_data_format_is_that_of_the_backbone(self, rng):
        """Max pooling supports channels_first on every CPU."""
        order = "channels_first"
        backbone = keras.Sequential([keras.layers.MaxPooling2D(1, data_format=order)])
        encoder = Encoder(backbone, embedding_dim=None, normalize=False)
        x = rng.normal(size=(2, 3, 4, 4)).astype("float32")
        for one in (encoder, Encoder.from_config(encoder.get_config())):
            np.testing.assert_allclose(numpy(one(x)), x.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)

    def test_precision_is_that_of_the_backbone(self):
        model = EmbeddingModel(keras.layers.Dense(6, dtype="mixed_float16"))
        assert model.dtype_policy.name == model.encoder.dtype_policy.name == "mixed_float16"
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)

    @pytest.mark.parametrize(
        ("settings", "error", "text"),
        [
            ({"embedding_dim": 0}, ValueError, "`embedding_dim` must be at least 1. Received"),
            ({"pooling": "mean"}, ValueError, "`pooling` must be one of"),
            ({"normalize": 1}, TypeError, "`normalize` must be True or False"),
            ({"freeze_batch_norm": "yes"}, TypeError, "`freeze_batch_norm` must be True or"),
            ({"train_health": 2}, TypeError, "`train_health` must be True or False"),
        ],
    )
    def test_invalid_settings_raise(self, settings, error, text):
        with pytest.raises(error, match=text):
            EmbeddingModel(keras.layers.Dense(6), **settings)

    @pytest.mark.parametrize(
        "loss",
        [[losses.TripletLoss(), losses.ContrastiveLoss()], {"embedding": losses.TripletLoss()}],
        ids=type,
    )
    def test_lists_and_dicts_of_losses_raise(self, loss):
        text = r"one output takes one loss.*losses.WeightedSum\(\[\(weight, loss\), ...\]\)"
        with pytest.raises(ValueError, match=text):
            embedding_model(loss)


@pytest.mark.parametrize("make", [Encoder, EmbeddingModel, TripletModel])
def test_build_with_a_shape_creates_the_weights(make):
    model = make(keras.Sequential([layers.Dense(6), layers.Dense(5)]), embedding_dim=3)
    assert model.weights == [] and not model.built
    model.build((None, 4))
    assert [tuple(w.shape) for w in model.trainable_weights][:3] == [(4, 6), (6,), (6, 5)]
    assert model.built and model.count_params() == 4 * 6 + 6 + 6 * 5 + 5 + 5 * 3 + 3


def test_build_creates_both_towers_and_the_weights_of_the_loss():
    towers = [keras.Sequential([layers.Dense(6)]) for _ in range(2)]
    model = TwoTowerModel(*towers, embedding_dim=3)
    model.build([(None, 4), (None, 7)])
    assert {tower.weights[0].shape[0] for tower in model.towers} == {4, 7}
    model = EmbeddingModel(keras.Sequential([layers.Dense(6)]), embedding_dim=3)
    model.compile("sgd", losses.ArcFaceLoss(5))
    model.build({"anchor": (None, 4), "positive": (None, 4)})
    assert [tuple(w.shape) for w in model.loss_layers.weights] == [(5, 3)]
    # A backbone with a known input shape is built in the constructor.
    known = keras.Sequential([keras.Input((4,)), layers.Dense(6)])
    assert EmbeddingModel(known).built


@pytest.mark.parametrize("shape", [4, (), "abc", [None, "x"]])
def test_build_with_an_invalid_shape_raises(shape):
    with pytest.raises(ValueError, match="input_shape"):
        EmbeddingModel(keras.Sequential([layers.Dense(6)])).build(shape)
