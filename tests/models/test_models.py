"""The models: fit at once, in every precision; what goes into the loss; what comes out."""

import warnings

import keras
import numpy as np
import pytest
import reference
from keras import layers, ops
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
    """Items (rows, 5) of three classes that overlap."""
    x = np.random.default_rng(seed).normal(size=(rows, 5))
    return (x + np.resize(LABELS, rows)[:, None]).astype("float32")


def tuples(model, rows=8):
    """Ready-made tuples in the model's first form, and a y for pairs."""
    names = model.forms[0]
    parts = {name: items(seed, rows) for seed, name in enumerate(names)}
    return parts, (np.resize([1, 0], rows) if len(names) == 2 else None)


def weights(model):
    return [ops.convert_to_numpy(ops.convert_to_tensor(w)) for w in model.weights]


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def eager(model):
    """Without compiling a graph, where that is not what is tested: ten times as fast."""
    model.run_eagerly = True
    return model


class Count(keras.layers.Layer):
    """Counts how often, and on how many rows, it is called."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def call(self, x):
        self.rows.append(x.shape[0])
        return x


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cls", MODELS)
def test_fit_without_compile(cls, policy):
    """Labelled batches, then tuples, with the weights moving and embeddings of length 1."""
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
        # The graph of tuples differs from that of a batch before the loss, not in precision.
        model.run_eagerly = policy != "float32"
    z = numpy(model.encoder(x))
    assert z.dtype == "float32" and z.shape == (8, 4)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)


@on_xla
def test_jit_compile():
    """XLA: the same losses as without, of labelled batches and of tuples."""
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


def test_it_learns(digits):
    """Real digits it has not seen: those of a class come closer, against those of others."""
    images, labels = digits
    few = labels < 5
    images, labels = images[few], labels[few]
    layers = keras.layers
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
    together = numpy(model(x))
    branches = len(cls.forms[0])
    assert together.shape == (8, branches, 4)
    assert set(count.rows) == {8 * branches}
    # A data set may hand over the names in another order: tf.data sorts them.
    again = numpy(model(dict(sorted(x.items(), reverse=True))))
    for place, name in enumerate(cls.forms[0]):
        alone = numpy(model.encoder(x[name]))
        np.testing.assert_allclose(together[:, place], alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(again[:, place], together[:, place])
    if cls.takes_tuples:
        for container in (tuple, list):
            np.testing.assert_array_equal(numpy(model(container(x.values()))), together)


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
    model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
    model.compile(loss=losses.TripletLoss(margin=0.3, mining="all"))
    logged = eager(model).evaluate(items(), LABELS[:, None], batch_size=8, verbose=0)
    z = numpy(model(items())).astype("float64")
    expected = reference.triplet_loss(z, LABELS, 0.3, mining="all")
    assert np.isclose(logged, expected, rtol=1e-4)


def test_sample_weight_and_class_weight_act():
    model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    plain, weighted = (
        model.evaluate(items(), LABELS, sample_weight=w, verbose=0) for w in (None, np.arange(8.0))
    )
    assert not np.isclose(plain, weighted, rtol=1e-3)
    logged = model.fit(items(), LABELS, class_weight={0: 0.0, 1: 1.0, 2: 3.0}, verbose=0)
    assert not np.isclose(logged.history["loss"][0], plain, rtol=1e-3)


def test_evaluation_does_not_change_training():
    """It mines at random as well, and draws nothing that training would have drawn."""
    trained = []
    for settings in ({}, {"validation_data": (items(1), LABELS)}):
        keras.utils.set_random_seed(0)
        model = TripletModel(keras.layers.Dense(6), embedding_dim=4)
        mining = metric_layers.TripletMiner("random", seed=3)
        model.compile("sgd", losses.TripletLoss(mining=mining))
        settings = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0, **settings}
        eager(model).fit(items(), LABELS, **settings)
        trained.append(weights(model))
    for without, with_evaluation in zip(*trained, strict=True):
        np.testing.assert_array_equal(without, with_evaluation)


def test_validation_data_and_metrics_in_tf_data_style():
    """A generator of tuples without y, as `keras.utils.PyDataset` gives it."""
    x, _ = tuples(TripletModel)

    class Triplets(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return ((x["anchor"], x["positive"], x["negative"]),)

    model = TripletModel(keras.layers.Dense(6), embedding_dim=4)
    history = model.fit(Triplets(), validation_data=Triplets(), verbose=0).history
    assert set(history) == {"loss", "val_loss"}


class TestPredict:
    def test_siamese_gives_distances_of_pairs(self):
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

    def test_others_give_embeddings_of_tuples(self):
        model = QuadrupletModel(keras.layers.Dense(6), embedding_dim=4)
        assert model.predict(tuples(QuadrupletModel)[0], verbose=0).shape == (8, 4, 4)

    def test_distance(self):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
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
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
        model.compile(keras.optimizers.SGD(0.1), loss=ProxyLoss(3))
        proxies = model.loss.proxies.vectors
        before = proxies.numpy() + 0
        model.fit(items(), LABELS, verbose=0)
        assert np.all(np.any(before != proxies.numpy(), axis=1))
        assert any(v is proxies for v in model.trainable_variables)
        assert model.count_params() == 5 * 6 + 6 + 6 * 4 + 4 + 3 * 4

    def test_come_and_go_with_the_loss(self):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
        model(items())
        own = len(model.trainable_variables)
        first = ProxyLoss(3)
        model.compile(loss=first)
        vectors = first.proxies.vectors
        # The optimizer alone: loss and proxies stay.
        model.compile(keras.optimizers.SGD(0.1))
        assert model.loss is first and model.trainable_variables[-1] is vectors
        both = losses.WeightedSum([(1, first), (0.5, ProxyLoss(4, 2.0, name="other"))])
        model.compile(loss=both)
        assert len(model.trainable_variables) == own + 2
        assert model.trainable_variables[-2] is vectors
        eager(model).fit(items(), LABELS, verbose=0)
        model.compile(loss=losses.ContrastiveLoss())
        assert len(model.trainable_variables) == own

    def test_wait_for_the_width(self):
        """No linear layer and a backbone without a shape: the first batch tells the width."""
        model = EmbeddingModel(keras.Sequential([keras.layers.Dense(6)]), embedding_dim=None)
        assert model.embedding_dim is None
        model.compile(keras.optimizers.SGD(0.1), loss=ProxyLoss(3))
        # As a graph and then without: both ways the proxies are there in time.
        assert not model.loss.proxies.built
        model.fit(items(), LABELS, verbose=0)
        assert model.embedding_dim == 6
        vectors = model.loss.proxies.vectors
        assert vectors.shape == (3, 6)
        before = vectors.numpy() + 0
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        model.fit(items(), LABELS, verbose=0)
        assert np.any(before != vectors.numpy())

    def test_of_another_width(self):
        loss = ProxyLoss(3)
        EmbeddingModel(keras.layers.Dense(6), embedding_dim=4).compile(loss=loss)
        other = EmbeddingModel(keras.layers.Dense(6), embedding_dim=5)
        with pytest.raises(ValueError, match="length 4. This model makes embeddings of length 5"):
            other.compile(loss=loss)

    def test_can_be_frozen(self):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
        model.compile(loss=ProxyLoss(3))
        model(items())
        model.loss_layers.trainable = False
        assert all(v is not model.loss.proxies.vectors for v in model.trainable_variables)
        model.loss_layers.trainable = True
        assert model.trainable_variables[-1] is model.loss.proxies.vectors

    def test_summary_has_a_row(self):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
        model.compile(loss=ProxyLoss(3))
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
        again = SiameseModel.from_config(second.get_config())
        assert again.encoder.normalize is False and again.embedding_dim == 4

    @pytest.mark.parametrize(
        "settings", [{"embedding_dim": 5}, {"normalize": False}, {"pooling": "max"}]
    )
    def test_other_settings_are_refused(self, settings):
        encoder = TripletModel(keras.layers.Dense(6), embedding_dim=4).encoder
        with pytest.raises(ValueError, match="used as it is, with .* Leave it out, or pass"):
            SiameseModel(encoder, **settings)


class TestTransfer:
    def backbone(self):
        layers = keras.layers
        return keras.Sequential(
            [keras.Input((5,)), layers.Dense(6), layers.BatchNormalization(), layers.Dense(6)]
        )

    def test_freeze_train_thaw(self):
        model = TripletModel(self.backbone(), embedding_dim=4)
        x = items()
        model.backbone.trainable = False
        before = weights(model.backbone)
        eager(model).fit(x, LABELS, epochs=2, verbose=0)
        for a, b in zip(before, weights(model.backbone)):
            np.testing.assert_array_equal(a, b)
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
        kept, moved = weights(norm), weights(dense)
        model.fit(items(), LABELS, verbose=0)
        for a, b in zip(kept, weights(norm)):
            np.testing.assert_array_equal(a, b)
        assert np.any(moved[0] != weights(dense)[0])
        # At stored statistics: what an item becomes does not depend on its batch.
        alone = numpy(model.encoder(items()[:2], training=True))
        np.testing.assert_allclose(
            alone, numpy(model.encoder(items(), training=True))[:2], rtol=1e-4, atol=1e-6
        )

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
    def test_numbers(self):
        model = TripletModel(keras.layers.Dense(6), embedding_dim=4, train_health=True)
        model.compile(loss=losses.TripletLoss(margin=0.3, mining="all"))
        logs = eager(model).evaluate(items(), LABELS, verbose=0, return_dict=True)
        z = numpy(model(items())).astype("float64")
        d = np.linalg.norm(z[:, None] - z[None], axis=-1)
        same = (LABELS[:, None] == LABELS) & ~np.eye(8, dtype=bool)
        other = LABELS[:, None] != LABELS
        gaps = [
            d[i, j] - d[i, k] + 0.3
            for i in range(8)
            for j in np.flatnonzero(same[i])
            for k in np.flatnonzero(other[i])
        ]
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

    def test_while_training_tuples_and_validation(self):
        model = SiameseModel(keras.layers.Dense(6), embedding_dim=4, train_health=True)
        x, same = tuples(SiameseModel)
        history = model.fit(x, same, validation_data=(x, same), verbose=0).history
        assert {"active_fraction", "val_active_fraction", "embedding_spread"} < set(history)
        assert history["val_positives"] == [4]

    def test_what_a_loss_does_not_report_is_left_out(self):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4, train_health=True)
        model.compile(loss=ProxyLoss(3))
        logs = eager(model).evaluate(items(), LABELS, verbose=0, return_dict=True)
        assert set(logs) == {"loss", "embedding_spread"}

    def test_off_by_default(self):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
        assert set(eager(model).evaluate(items(), LABELS, verbose=0, return_dict=True)) == {"loss"}


class Batches(keras.utils.PyDataset):
    """Batches of four in their order."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // 4

    def __getitem__(self, index):
        part = slice(4 * index, 4 * index + 4)
        return self.x[part], self.y[part]


def in_batches(kind, x, y):
    """Arguments of `fit` for batches of four, of the same items."""
    if kind == "tf.data":
        import tensorflow as tf

        return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(4), "shuffle": False}
    if kind == "PyDataset":
        return {"x": Batches(x, y)}
    return {"x": x, "y": y, "batch_size": 4, "shuffle": False}


class TestTrainingWarnings:
    # Each class has two items, which never share a batch of four.
    NEVER_TOGETHER = np.tile(np.arange(4), 2).astype("int32")

    @pytest.mark.parametrize("kind", ["numpy", "PyDataset", "tf.data"])
    @pytest.mark.parametrize("loss", [losses.TripletLoss, losses.ContrastiveLoss])
    def test_no_batch_has_a_positive(self, kind, loss):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
        model.compile(loss=loss())
        data = in_batches(kind, items(), self.NEVER_TOGETHER)
        with pytest.warns(UserWarning, match="None of the last 2 batches had two items of the sa"):
            model.fit(**data, epochs=2, verbose=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.fit(**data, verbose=0)

    def test_multi_hot_labels_that_share_nothing(self):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
        model.compile(loss=losses.TripletLoss(labels="multi_hot"))
        with pytest.warns(UserWarning, match="None of the last 2 batches had two items of the sa"):
            model.fit(items(), np.tile(np.eye(4), (2, 1)), batch_size=4, shuffle=False, verbose=0)

    def test_one_batch_with_a_positive_is_enough(self):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
        labels = np.array([0, 1, 2, 3, 0, 0, 1, 2])
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.fit(**in_batches("numpy", items(), labels), verbose=0)

    @pytest.mark.parametrize(
        "loss",
        [lambda: losses.ArcFaceLoss(8), losses.InstanceLoss],
        ids=["class", "self"],
    )
    def test_losses_that_need_no_positives(self, loss):
        model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
        model.compile(loss=loss())
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.fit(items(), np.arange(8), batch_size=4, verbose=0)

    @pytest.mark.parametrize("kind", ["numpy", "PyDataset", "tf.data"])
    def test_collapse(self, kind):
        """A head whose weights are 0 maps all items to one point."""
        model = TripletModel(keras.layers.Dense(6), embedding_dim=4)
        model(items())
        for weight in model.encoder.trainable_variables:
            weight.assign(ops.full(weight.shape, 0.1 if weight.path.endswith("bias") else 0.0))
        data = in_batches(kind, items(), np.arange(8, dtype="int32") // 2)
        with pytest.warns(UserWarning, match="embeddings have collapsed: in the last 2 batches"):
            model.fit(**data, epochs=2, verbose=0)

    def test_narrow_embeddings_warn_in_their_second_epoch(self):
        """An untrained network may begin at a spread of 0.02; what stays there has collapsed."""
        model, wide = (
            EmbeddingModel(
                keras.layers.Dense(2, kernel_initializer="identity"), None, normalize=False
            )
            for _ in range(2)
        )
        # The mean is 1 long, and the items lie 0.01 around it.
        x = np.array([[1.0, 0.01], [1.0, -0.01]] * 4, "float32")
        for each in (model, wide):
            each.compile(keras.optimizers.SGD(1e-9), loss=losses.TripletLoss())
        labels = np.arange(8, dtype="int32") // 4
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.fit(x, labels, batch_size=4, shuffle=False, verbose=0)
            for _ in range(2):
                model.evaluate(x, labels, batch_size=4, verbose=0)
        with pytest.warns(UserWarning, match="mean was 0.01 of their length"):
            model.fit(x, labels, batch_size=4, shuffle=False, verbose=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
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
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
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
        again = cls.from_config(config)
        assert again.get_config() == config and again.name == "mine"

    def test_the_order_of_features_is_the_backbones(self, rng):
        """Max pooling runs in this order on every CPU; a model is loaded where another is set."""
        order = "channels_first"
        backbone = keras.Sequential([keras.layers.MaxPooling2D(1, data_format=order)])
        encoder = Encoder(backbone, embedding_dim=None, normalize=False)
        x = rng.normal(size=(2, 3, 4, 4)).astype("float32")
        for one in (encoder, Encoder.from_config(encoder.get_config())):
            np.testing.assert_allclose(numpy(one(x)), x.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)

    def test_precision_is_the_backbones(self):
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
    def test_wrong_ones(self, settings, error, text):
        with pytest.raises(error, match=text):
            EmbeddingModel(keras.layers.Dense(6), **settings)

    def test_list_of_losses(self):
        model = EmbeddingModel(keras.layers.Dense(6))
        with pytest.raises(ValueError, match=r"losses.WeightedSum\(\[\(weight, loss\), ...\]\)"):
            model.compile(loss=[losses.TripletLoss(), losses.ContrastiveLoss()])


@pytest.mark.parametrize("make", [Encoder, EmbeddingModel, TripletModel])
def test_build_with_a_shape_makes_the_weights(make):
    """As everywhere in Keras: `build` with a shape is a promise that there are weights then."""
    model = make(keras.Sequential([layers.Dense(6), layers.Dense(5)]), embedding_dim=3)
    assert model.weights == [] and not model.built
    model.build((None, 4))
    assert [tuple(w.shape) for w in model.trainable_weights][:3] == [(4, 6), (6,), (6, 5)]
    assert model.built and model.count_params() == 4 * 6 + 6 + 6 * 5 + 5 + 5 * 3 + 3


def test_build_reaches_both_towers_and_the_weights_of_the_loss():
    towers = [keras.Sequential([layers.Dense(6)]) for _ in range(2)]
    model = TwoTowerModel(*towers, embedding_dim=3)
    model.build([(None, 4), (None, 7)])
    assert {tower.weights[0].shape[0] for tower in model.towers} == {4, 7}
    model = EmbeddingModel(keras.Sequential([layers.Dense(6)]), embedding_dim=3)
    model.compile("sgd", losses.ArcFaceLoss(5))
    model.build({"anchor": (None, 4), "positive": (None, 4)})
    assert [tuple(w.shape) for w in model.loss_layers.weights] == [(5, 3)]
    # A backbone that knows its inputs has been built by them.
    known = keras.Sequential([keras.Input((4,)), layers.Dense(6)])
    assert EmbeddingModel(known).built


@pytest.mark.parametrize("shape", [4, (), "abc", [None, "x"]])
def test_build_with_no_shape_says_so(shape):
    with pytest.raises(ValueError, match="input_shape"):
        EmbeddingModel(keras.Sequential([layers.Dense(6)])).build(shape)
