"""Data that the models reject before the first batch, in training and in evaluation."""

import keras
import numpy as np
import pytest
from model_weights import check_same_weights

from keras_metric import losses
from keras_metric.models import EmbeddingModel, TripletModel, TwoTowerModel

ROWS = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
LABELS = np.arange(8) % 4
TRIPLETS = {"anchor": ROWS, "positive": ROWS[::-1].copy(), "negative": ROWS + 1}
WEIGHTS = np.zeros(8, "float32")


def make(cls=EmbeddingModel, loss=None):
    model = cls(keras.layers.Dense(4), embedding_dim=3)
    model.compile(keras.optimizers.SGD(0.1), loss or losses.TripletLoss(), run_eagerly=True)
    return model


def fit(model, x, y=None, **settings):
    return model.fit(x, y, verbose=0, **settings)


def held_out(model, x, y=None):
    """Train on valid data; the epoch must not start if the validation data is rejected."""
    forbidden = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: pytest.fail())
    data = x if y is None else (x, y)
    return model.fit(ROWS, LABELS, validation_data=data, callbacks=[forbidden], verbose=0)


def evaluate(model, x, y=None):
    return model.evaluate(x, y, verbose=0)


USES = {
    "fit": fit,
    "validation": held_out,
    "evaluate": evaluate,
    "train_on_batch": lambda model, x, y=None: model.train_on_batch(x, y),
    "test_on_batch": lambda model, x, y=None: model.test_on_batch(x, y),
}


@pytest.mark.parametrize("use", USES)
class TestEveryUse:
    @pytest.mark.parametrize("kind", ["U2", "bool"])
    def test_labels_of_another_kind(self, use, kind):
        with pytest.raises(ValueError, match="`y` must be integer class ids"):
            USES[use](make(), ROWS, LABELS.astype(kind))

    def test_ids_without_a_class(self, use):
        model = make(loss=losses.ArcFaceLoss(3))
        with pytest.raises(ValueError, match="num_classes=3: ids must run from 0 to 2"):
            USES[use](model, ROWS, LABELS)

    def test_a_batch_without_labels(self, use):
        with pytest.raises(ValueError, match=r"needs integer class ids: fit\(x, y\).*anchor"):
            USES[use](make(), ROWS)

    def test_no_items(self, use):
        with pytest.raises(ValueError, match=r"at least one item.*x.shape=\(0, 5\)"):
            USES[use](make(), ROWS[:0], LABELS[:0])


def test_predict_of_no_items():
    model = make()
    model.predict(ROWS, verbose=0)
    for network in (model, model.encoder):
        with pytest.raises(ValueError, match="at least one item"):
            network.predict(ROWS[:0], verbose=0)


@pytest.mark.parametrize("kind", [None, "category"])
def test_columns_of_strings(kind):
    pandas = pytest.importorskip("pandas")
    names = pandas.Series([f"class {label}" for label in LABELS], dtype=kind)
    with pytest.raises(ValueError, match="np.unique"):
        fit(make(), ROWS, names)


class TestWeights:
    """Keras ignores sample weights without a warning if there is no y."""

    @pytest.mark.parametrize(
        ("cls", "x"),
        [(TripletModel, TRIPLETS), (TripletModel, tuple(TRIPLETS.values()))],
        ids=["dict", "tuple"],
    )
    def test_of_tuples_need_a_y(self, cls, x):
        model = make(cls)
        for use in (fit, lambda m, x, **weight: m.train_on_batch(x, None, **weight)):
            with pytest.raises(ValueError, match=r"np.arange\(n\)"):
                use(model, x, sample_weight=WEIGHTS)
        with pytest.raises(ValueError, match="Received no y"):
            model.evaluate(x, sample_weight=WEIGHTS, verbose=0)
        with pytest.raises(ValueError, match="class ids as y"):
            fit(model, x, class_weight={0: 2.0})
        # The proposed code works: weights of 0 train nothing.
        model.predict(x, verbose=0)
        before = model.get_weights()
        fit(model, x, y=np.arange(8), sample_weight=WEIGHTS)
        check_same_weights(model.get_weights(), before)

    def test_of_two_towers_need_a_y(self):
        model = TwoTowerModel(keras.layers.Dense(4), keras.layers.Dense(4), embedding_dim=3)
        with pytest.raises(ValueError, match="`sample_weight` needs y"):
            fit(model, {"first": ROWS, "second": ROWS}, sample_weight=WEIGHTS)

    def test_that_are_lists(self):
        with pytest.raises(TypeError, match="`sample_weight` must be an array"):
            fit(make(), ROWS, LABELS, sample_weight=[1.0] * 8)
        with pytest.raises(TypeError, match=r"dict\(enumerate\(class_weight\)\)"):
            fit(make(), ROWS, LABELS, class_weight=[1.0] * 4)


def test_an_interrupted_run_leaves_no_reports():
    """The next run does not raise for invalid labels before the interruption."""
    model = make(loss=losses.ArcFaceLoss(4))
    # Only a compiled step continues after such labels on every backend.
    model.compile(keras.optimizers.SGD(0.1))

    def batches():
        yield ROWS, LABELS
        yield ROWS, LABELS + 2

    def interrupt(batch, logs):
        if batch == 1:
            raise KeyboardInterrupt

    stop = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, batches(), callbacks=[stop], shuffle=False)
    fit(model, ROWS, LABELS)
