"""Class ids of all functions that take labels: whole floats, other floats, one-hot rows."""

import keras
import numpy as np
import pytest
from batch_list import BatchList
from keras import layers, ops
from model_weights import check_same_weights

from keras_metric import addons, callbacks, data, evaluation, losses, metrics, search, viz
from keras_metric.layers import PairMiner, TripletMiner
from keras_metric.models import EmbeddingModel

Y = np.repeat(np.arange(4), 6)
X = (Y[:, None] + np.random.default_rng(0).normal(size=(24, 5))).astype("float32")
ONE_HOT = np.eye(4)[Y]
TWO_HOT = ONE_HOT + np.eye(4)[(Y + 1) % 4]
WAY_OUT = r'argmax\(axis=-1\).*label_mode="int"'
# Floats of which at least one is not a class id, and the text of the message.
WRONG = {
    "fraction": (Y + 0.5, "0.5 in row 0"),
    "nan": (np.where(Y == 3, np.nan, Y), "nan|NaN"),
    "infinity": (np.where(Y == 3, np.inf, Y), "inf"),
    "rounded": (np.where(Y == 3, 2**24, Y).astype("float32"), "16777216.0 in row 18"),
    "float16": (np.where(Y == 3, 2048, Y).astype("float16"), "below 2048.*2048.0 in row 18"),
}


class MyLoss(keras.losses.Loss):
    """A custom loss, which receives labels as floats from Keras."""

    def call(self, y_true, y_pred):
        assert "float" in keras.backend.standardize_dtype(y_true.dtype)
        return losses.TripletLoss()(y_true, y_pred) + 0.5 * losses.NTXentLoss()(y_true, y_pred)


def my_loss(y_true, y_pred):
    return losses.TripletLoss()(y_true, y_pred) + 0.5 * losses.NTXentLoss()(y_true, y_pred)


def direct():
    return losses.WeightedSum([(1, losses.TripletLoss()), (0.5, losses.NTXentLoss())])


def model_of(loss, plain=False, **settings):
    keras.utils.set_random_seed(0)
    head = [layers.Dense(4), layers.UnitNormalization()]
    model = keras.Sequential(head) if plain else EmbeddingModel(layers.Dense(8), 4)
    model.compile(keras.optimizers.SGD(0.1), loss=loss, **settings)
    return model


def batches_of(y, size=12):
    """Return a data set; its labels cannot be checked before training."""
    return BatchList((X[i : i + size], y[i : i + size]) for i in range(0, len(y), size))


class TestOwnKerasLosses:
    @pytest.mark.parametrize("plain", [False, True])
    @pytest.mark.parametrize("loss", [MyLoss, lambda: my_loss])
    def test_train_like_our_loss(self, loss, plain):
        settings = {} if keras.backend.backend() == "torch" else {"jit_compile": True}
        trained = []
        for one in (loss(), direct()):
            model = model_of(one, plain, **settings)
            history = model.fit(X, Y, batch_size=12, epochs=3, shuffle=False, verbose=0)
            trained.append([history.history["loss"], *model.get_weights()])
        check_same_weights(*trained, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_ids_that_keras_rounds_raise(self, dtype):
        """2049 is 2048 in float16 and exact in float32."""
        loss, y = MyLoss(dtype=dtype), Y + 2046
        if dtype == "float32":
            assert float(loss(y, X)) == pytest.approx(float(direct()(y, X)), rel=1e-5)
        else:
            with pytest.raises(ValueError, match="below 2048, up to which float16 is exact"):
                loss(y, X)

    def test_ids_above_the_range_of_float32_raise_after_the_epoch(self):
        on_torch = keras.backend.backend() == "torch"
        text = "in row" if on_torch else "24 labels were no class of triplet_loss and nt_xent"
        model = model_of(MyLoss())
        with pytest.raises(ValueError, match=text):
            model.fit(X, Y + 2**24, verbose=0)
        assert all(np.isfinite(weight).all() for weight in model.get_weights())


class TestFit:
    @pytest.mark.parametrize("loss", [losses.TripletLoss, lambda: losses.ArcFaceLoss(4)])
    def test_float_ids_train_as_integers(self, loss):
        results = []
        for y in (Y, Y.astype("float32"), Y[:, None].astype("float64")):
            fitted = [
                model_of(loss()).fit(source, y_, shuffle=False, verbose=0).history["loss"]
                for source, y_ in ((X, y), (batches_of(y, 24), None))
            ]
            results += fitted
        np.testing.assert_allclose(results, results[:1] * 6, rtol=1e-5)

    @pytest.mark.parametrize("wrong", WRONG)
    @pytest.mark.parametrize("loss", [losses.TripletLoss, lambda: losses.ArcFaceLoss(4)])
    def test_other_floats_of_arrays_raise_before_training(self, loss, wrong):
        y, text = WRONG[wrong]
        with pytest.raises(ValueError, match=f"`y` must be integer class ids.*({text})"):
            model_of(loss()).fit(X, y, verbose=0)

    @pytest.mark.parametrize("wrong", WRONG)
    @pytest.mark.parametrize("loss", [losses.TripletLoss, lambda: losses.ArcFaceLoss(4)])
    def test_other_floats_of_batches_raise_after_the_epoch(self, loss, wrong):
        model, (y, _) = model_of(loss()), WRONG[wrong]
        on_torch = keras.backend.backend() == "torch"
        with pytest.raises(ValueError, match="in row" if on_torch else "labels were no class of"):
            model.fit(batches_of(y), verbose=0)
        assert all(np.isfinite(weight).all() for weight in model.get_weights())
        history = model.fit(X, Y, verbose=0)
        assert np.isfinite(history.history["loss"]).all()

    def test_train_on_batch(self):
        model = model_of(losses.TripletLoss())
        expected = model_of(losses.TripletLoss()).train_on_batch(X, Y)
        assert model.train_on_batch(X, Y.astype("float32")) == pytest.approx(expected)
        with pytest.raises(ValueError, match="with 0.5 in row 0"):
            model.train_on_batch(X, Y + 0.5)

    @pytest.mark.parametrize("form", ["arrays", "batches"])
    @pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
    def test_one_hot(self, dtype, form):
        y = ONE_HOT.astype(dtype)
        with pytest.raises(ValueError, match=WAY_OUT):
            model_of(losses.TripletLoss()).fit(
                *((X, y) if form == "arrays" else (batches_of(y),)), verbose=0
            )

    def test_multi_hot(self):
        with pytest.raises(ValueError, match='give the loss labels="multi_hot"'):
            model_of(losses.TripletLoss()).fit(X, TWO_HOT, verbose=0)
        with pytest.raises(ValueError, match='use a loss that takes labels="multi_hot"'):
            model_of(losses.ArcFaceLoss(4)).fit(X, TWO_HOT, verbose=0)
        model_of(losses.TripletLoss(labels="multi_hot")).fit(X, TWO_HOT, verbose=0)

    @pytest.mark.parametrize("mode", ["binary", "categorical", "int"])
    def test_image_dataset_from_directory(self, mode, tmp_path, backend):
        if backend != "tensorflow":
            pytest.skip("needs TensorFlow to read images")
        for i, kind in enumerate("aabbab"):
            (tmp_path / kind).mkdir(exist_ok=True)
            image = np.random.default_rng(i).integers(0, 255, (8, 8, 3))
            keras.utils.save_img(tmp_path / kind / f"{i}.png", image)
        images = keras.utils.image_dataset_from_directory(
            tmp_path, label_mode=mode, image_size=(8, 8), shuffle=False, verbose=False
        )
        model = EmbeddingModel(layers.Flatten(), 4)
        evaluator = callbacks.RetrievalEvaluator(images, k=1)
        if mode == "categorical":
            evaluator.set_model(model)
            with pytest.raises(ValueError, match=WAY_OUT):
                evaluator.on_epoch_end(0, {})
            with pytest.raises(ValueError, match=WAY_OUT):
                model.fit(images, shuffle=False, verbose=0)
        else:
            logs = model.fit(images, shuffle=False, callbacks=[evaluator], verbose=0)
            assert np.isfinite(logs.history["loss"]).all() and logs.history["val_recall_at_1"]


def rows_of(source):
    return keras.tree.flatten(source[0])


# Functions of labels; each returns numbers that depend on them.
READERS = {
    "BalancedBatches": lambda y: rows_of(data.BalancedBatches(X, y, 2, 3, seed=0)),
    "TripletBatches": lambda y: rows_of(data.TripletBatches(X, y, 8, seed=0)),
    "PairBatches": lambda y: rows_of(data.PairBatches(X, y, 8, seed=0)),
    "QuadrupletBatches": lambda y: rows_of(data.QuadrupletBatches(X, y, 8, seed=0)),
    "StreamBatches": lambda y: rows_of(
        data.StreamBatches(lambda: zip(X, y), 2, 3, batches_per_epoch=2, seed=0)
    ),
    "split_by_class": lambda y: data.split_by_class(y, test_size=2),
    "check_no_leak": lambda y: data.check_no_leak([0, 1], [6, 7], y=y) or (0,),
    "retrieval_metrics": lambda y: [*evaluation.retrieval_metrics(X, y, k=1).values()],
    "gallery": lambda y: [*evaluation.retrieval_metrics(X, Y, X + 1, y, k=1).values()],
    "identification_metrics": lambda y: [
        *evaluation.identification_metrics(X[::2], y[::2], X[1::2], y[1::2]).values()
    ],
    "clustering_metrics": lambda y: [*evaluation.clustering_metrics(X, y, seed=0).values()],
    "few_shot_accuracy": lambda y: [
        *evaluation.few_shot_accuracy(X, y, ways=2, episodes=5, queries=2).values()
    ],
    "geometry_metrics": lambda y: [*evaluation.geometry_metrics(X, y).values()],
    "pair_distances": lambda y: evaluation.pair_distances(X, y),
    "PositiveDistance": lambda y: (metrics.PositiveDistance()(y, X),),
    "TripletMiner": lambda y: TripletMiner("hard")(X, y),
    "PairMiner": lambda y: PairMiner("multi-similarity")(X, y),
    "TripletLoss": lambda y: (losses.TripletLoss()(y, X),),
    "ContrastiveLoss": lambda y: (losses.ContrastiveLoss(mining="easy-hard")(y, X),),
    "against": lambda y: (losses.TripletLoss().against(Y, X, y, X + 1),),
    "ClipLoss": lambda y: (losses.ClipLoss()(y, np.stack([X, X + 1], axis=1)),),
}
# These accept labels of any kind, including fractions.
NUMBERED = (
    *("BalancedBatches", "TripletBatches", "PairBatches", "QuadrupletBatches"),
    *("split_by_class", "check_no_leak"),
)
NO_MULTI_HOT = {*READERS} - {"TripletLoss", "ContrastiveLoss", "against", "ClipLoss"}


def numbers(found):
    return [np.asarray(ops.convert_to_numpy(part), "float64") for part in found]


class TestReaders:
    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "column"])
    @pytest.mark.parametrize("reader", READERS)
    def test_float_ids_read_as_integers(self, reader, dtype):
        y = Y.astype("float32")[:, None] if dtype == "column" else Y.astype(dtype)
        found, expected = numbers(READERS[reader](y)), numbers(READERS[reader](Y))
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("wrong", WRONG)
    @pytest.mark.parametrize("reader", READERS)
    def test_other_floats_raise(self, reader, wrong):
        y, text = WRONG[wrong]
        if wrong == "fraction" and reader in NUMBERED:
            READERS[reader](y)
            return
        if reader.endswith("Miner") and wrong == "float16":
            pytest.skip("Keras casts the inputs of a float32 layer to float32")
        if reader in ("StreamBatches", "identification_metrics", "check_no_leak"):
            text = text.split(" in row")[0]
        with pytest.raises(ValueError, match=text):
            READERS[reader](y)

    @pytest.mark.parametrize("dtype", ["float32", "int64"])
    @pytest.mark.parametrize("reader", READERS)
    def test_one_hot(self, reader, dtype):
        with pytest.raises(ValueError, match=WAY_OUT):
            READERS[reader](ONE_HOT.astype(dtype))

    @pytest.mark.parametrize("reader", READERS)
    def test_multi_hot(self, reader):
        text = "give the loss" if reader not in NO_MULTI_HOT else "(a loss|those) .*"
        with pytest.raises(ValueError, match=f'{text} labels="multi_hot"') as error:
            READERS[reader](TWO_HOT)
        assert "argmax" not in str(error.value)


def test_classes_of_float_labels_are_integers():
    batches = data.BalancedBatches(X, 3.0 * Y, 2, 3)
    assert batches.classes.tolist() == [0, 3, 6, 9] and batches.classes.dtype == "int64"
    stream = data.StreamBatches(lambda: zip(X, 3.0 * Y), 2, 3, batches_per_epoch=1)
    assert set(stream[0][1]) <= {0, 3, 6, 9}


def test_groups_may_be_any_floats():
    groups = Y / 7
    found = evaluation.retrieval_metrics(X, Y % 2, k=1, groups=groups)
    assert found == evaluation.retrieval_metrics(X, Y % 2, k=1, groups=Y)
    data.split_by_class(Y, test_size=2, groups=groups)


def test_addons_take_any_float_as_tensorflow_addons_does():
    loss = addons.losses.TripletSemiHardLoss()
    assert float(loss(0.25 * Y, X)) == float(loss(Y, X))
    with pytest.raises(ValueError, match=WAY_OUT):
        loss(ONE_HOT, X)


def test_float_labels_with_a_list_of_names():
    """`label_mode="binary"` yields floats, and `class_names` is a list."""
    figure = viz.plot_embeddings(X, Y.astype("float32"), class_names=list("abcd"), method="pca")
    shown = {text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))}
    assert {"a", "b", "c", "d"} <= shown


@pytest.mark.parametrize(
    "call",
    [
        lambda: search.Index(5).add(X, ONE_HOT),
        lambda: viz.plot_embeddings(X, ONE_HOT),
        lambda: data.ViewBatches(X, lambda x: x, batch_size=4, y=ONE_HOT),
    ],
)
def test_one_hot_elsewhere(call):
    with pytest.raises(ValueError, match=WAY_OUT):
        call()


class TestPairsOfAnyFloats:
    """y of ready-made pairs is a target, not a class id."""

    PAIRS = np.stack([X, X[::-1]], axis=1)

    def test_binary_and_graded_targets(self):
        half = np.full(24, 0.5)
        parts = [losses.ContrastiveLoss(reduction="sum")(y, self.PAIRS) for y in (half, Y % 2)]
        assert np.isfinite([float(part) for part in parts]).all()
        assert np.isfinite(float(losses.CosineRegressionLoss(y_max=5)(Y + 0.3, self.PAIRS)))

    def test_in_fit(self):
        model = model_of(losses.CosineRegressionLoss())
        pairs = {"first": X, "second": X[::-1]}
        assert np.isfinite(model.fit(pairs, Y / 7, verbose=0).history["loss"]).all()

    def test_y_of_triplets_is_ignored(self):
        """Keras requires a target; triplets need none."""
        triplets = np.stack([X, X, X[::-1]], axis=1)
        expected = float(losses.TripletLoss()(None, triplets))
        assert float(losses.TripletLoss()(np.full(24, np.nan), triplets)) == expected


LOSSES = {
    "TripletLoss": losses.TripletLoss,
    "ContrastiveLoss": losses.ContrastiveLoss,
    "ArcFaceLoss": lambda: losses.ArcFaceLoss(4, embedding_dim=5),
    "HistogramLoss": losses.HistogramLoss,
    "WeightedSum": lambda: losses.WeightedSum([(1, losses.TripletLoss())]),
    "TripletSemiHardLoss": addons.losses.TripletSemiHardLoss,
}
# Third arguments of a loss in pytorch-metric-learning, and their descriptions.
MINED = {
    "triplet miner": (lambda: TripletMiner("hard")(X, Y), "a tuple of 2 arrays"),
    "pair miner": (lambda: PairMiner("multi-similarity")(X, Y), "a tuple of 2 arrays"),
    "triplets": (lambda: (np.arange(5),) * 3, "a tuple of 3 arrays"),
    "pairs": (lambda: [np.arange(5)] * 4, "a list of 4 arrays"),
    "one matrix": (lambda: TripletMiner("hard")(X, Y)[1], r"sample_weight.shape=\(24, 24\)"),
    "rows of pairs": (lambda: np.ones((7, 2)), r"sample_weight.shape=\(7, 2\)"),
}


class TestCallsOfPytorchMetricLearning:
    @pytest.mark.parametrize("mined", MINED)
    @pytest.mark.parametrize("loss", LOSSES)
    def test_mined_pairs_as_the_third_argument(self, loss, mined):
        output, described = MINED[mined]
        text = f"`sample_weight` must be one number.*Received: {described}.*mining=.*TripletMiner"
        with pytest.raises(ValueError, match=text):
            LOSSES[loss]()(Y, X, output())

    @pytest.mark.parametrize("weight", [np.ones(7), np.ones((24, 3)), [[1.0, 2.0]] * 24])
    def test_weights_of_other_shapes(self, weight):
        with pytest.raises(ValueError, match=r"sample_weight.shape=.* for 24 rows"):
            losses.TripletLoss()(Y, X, weight)

    def test_weights_that_fit(self):
        loss = losses.TripletLoss()
        expected = float(loss(Y, X))
        for weight in (1, 1.0, np.ones(24), np.ones((24, 1)), [1.0] * 24, (1,) * 24, np.ones(1)):
            assert float(loss(Y, X, weight)) == pytest.approx(expected)

    @pytest.mark.parametrize("convert", [np.asarray, ops.convert_to_tensor])
    @pytest.mark.parametrize("labels", [Y, Y.astype("float32"), Y[:, None].astype("float32")])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_embeddings_before_labels(self, loss, labels, convert):
        text = r"The call is loss\(labels, embeddings\).*y_true.shape=.*24, 5.*swap the two"
        for more in ((), (np.ones(24),)) if loss != "HistogramLoss" else ((),):
            with pytest.raises(ValueError, match=text):
                LOSSES[loss]()(convert(X), convert(labels), *more)

    @pytest.mark.parametrize("convert", [np.asarray, ops.convert_to_tensor])
    def test_embeddings_before_multi_hot_labels(self, convert):
        loss = losses.TripletLoss(labels="multi_hot")
        with pytest.raises(ValueError, match=r"0 or 1 for each class.*The call is loss\(labels,"):
            loss(convert(X), convert(TWO_HOT.astype("float32")))
        with pytest.raises(ValueError, match=r"one class id for each row.*The call is loss"):
            losses.TripletLoss()(convert(X), convert(TWO_HOT.astype("float32")))

    def test_tuples_before_targets(self):
        pairs = np.stack([X, X], axis=1)
        with pytest.raises(ValueError, match=r"y_true.shape=\(24, 2, 5\).*swap the two"):
            losses.ContrastiveLoss()(pairs, (Y % 2).astype("float32"))

    def test_one_dimension_is_no_label(self):
        """Embeddings (batch, 1) next to rows of labels are in order."""
        narrow = X[:, :1]
        assert np.isfinite(float(losses.TripletLoss(labels="multi_hot")(TWO_HOT, narrow)))
        assert np.isfinite(float(losses.TripletLoss()(Y, narrow)))
