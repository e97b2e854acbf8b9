"""Metrics inside `fit`, compared with loops over the same batches."""

import keras
import numpy as np
import pytest
from reference import matrix, negatives, positives

from keras_metric.metrics import NegativeDistance, PositiveDistance, TripletAccuracy
from keras_metric.models import EmbeddingModel, SiameseModel, TripletModel

METRICS = (TripletAccuracy, PositiveDistance, NegativeDistance)


def logged(make, metrics, x, y=None, **settings):
    """The metrics of an epoch of one batch, with the identity as encoder."""
    layer = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")
    model = make(layer, embedding_dim=None, normalize=False)
    model.compile(keras.optimizers.SGD(0.0), model.loss, metrics=metrics, **settings)
    history = model.fit(x, y, verbose=0).history
    return [history[metric.name][0] for metric in metrics]


def by_hand(batches, margin=0.0, metric="euclidean"):
    """Means over all anchors of all batches `(x, y, weights)`."""
    lists = {name: ([], []) for name in ("triplet", "positive", "negative")}
    for x, y, weights in batches:
        d = matrix(x, metric)
        for a in range(len(y)):
            P, N = positives(y, a), negatives(y, a)
            terms = {
                "positive": [d[a, p] for p in P],
                "negative": [d[a, n] for n in N],
                "triplet": [d[a, p] + margin < d[a, n] for p in P for n in N],
            }
            for name, values in terms.items():
                lists[name][0].extend(values)
                lists[name][1].extend([weights[a]] * len(values))
    return [float(np.average(values, weights=weights)) for values, weights in lists.values()]


def batches(rng, weighted=False):
    """Unequal classes, singletons, and batches of unequal size."""
    for size in (12, 7):
        y = rng.zipf(1.5, size) % 5
        x = (rng.normal(size=(size, 3)) + y[:, None]).astype("float32")
        yield x, y, rng.uniform(0.5, 2.0, size) if weighted else np.ones(size)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_equal_the_loops(distance, weighted, rng):
    given = list(batches(rng, weighted))
    metrics = [TripletAccuracy(distance, margin=0.2), *(m(distance) for m in METRICS[1:])]
    for x, y, weights in given:
        for metric in metrics:
            metric.update_state(y[:, None], x, weights if weighted else None)
    ours = [float(metric.result()) for metric in metrics]
    assert ours == pytest.approx(by_hand(given, 0.2, distance), rel=1e-4)
    for metric in metrics:
        metric.reset_state()
        assert float(metric.result()) == 0.0


def test_inside_compiled_fit(backend, rng):
    (x, y, _), *_ = batches(rng)
    metrics = [metric() for metric in METRICS]
    ours = logged(EmbeddingModel, metrics, x, y, jit_compile=backend != "torch")
    assert ours == pytest.approx(by_hand([(x, y, np.ones(len(x)))]), rel=1e-4)


def test_triplets_without_labels(rng):
    parts = {
        n: rng.normal(size=(6, 3)).astype("float32") for n in ("anchor", "positive", "negative")
    }
    metrics = [TripletAccuracy(margin=0.3), PositiveDistance(), NegativeDistance()]
    ours = logged(TripletModel, metrics, parts, run_eagerly=True)
    positive, negative = (
        np.linalg.norm(parts["anchor"] - parts[name], axis=1) for name in ("positive", "negative")
    )
    expected = [np.mean(positive + 0.3 < negative), positive.mean(), negative.mean()]
    assert ours == pytest.approx(expected, rel=1e-5)


def test_a_tie_is_not_satisfied():
    """Integers, so that 1 + 2 is exactly 3; one triplet is satisfied."""
    branches = np.array([[[0], [1], [3]], [[0], [1], [4]], [[0], [1], [2]]], "float32")
    metric = TripletAccuracy(margin=2)
    metric.update_state(np.zeros(3), branches)
    assert float(metric.result()) == pytest.approx(1 / 3)
    metric.reset_state()
    metric.update_state([7, 7, 8], branches[0])
    # Anchors 0 and 1 of class 7 are 3 and 2 away from the other, at a distance of 1.
    assert float(metric.result()) == 0.0


def test_pairs(rng):
    parts = {name: rng.normal(size=(6, 3)).astype("float32") for name in ("first", "second")}
    same = np.array([1, 0, 0, 1, 0, 0])
    metrics = [PositiveDistance(), NegativeDistance()]
    ours = logged(SiameseModel, metrics, parts, same, run_eagerly=True)
    d = np.linalg.norm(parts["first"] - parts["second"], axis=1)
    assert ours == pytest.approx([d[same == 1].mean(), d[same == 0].mean()], rel=1e-5)
    with pytest.raises(ValueError, match="needs class ids or triplets"):
        TripletAccuracy().update_state(same, np.zeros((6, 2, 3)))


@pytest.mark.parametrize("metric", [PositiveDistance, NegativeDistance])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1], "shape=\\(1,\\), y_pred"),
        (1, "y_true"),
        ([1, 0, 1, 0], "shape=\\(4,\\), y_pred"),
        (np.eye(2)[[0, 1, 0]], "shape=\\(3, 2\\), y_pred"),
        ([5, 6, 7], "two classes"),
        ([1, -1, 1], "two classes"),
        ([1, np.nan, 0], "two classes"),
        (["a", "b", "a"], "two classes"),
        (None, "two classes"),
    ],
)
def test_y_of_pairs_is_one_flag_each(metric, y, message):
    """One number for all pairs would count as one pair."""
    with pytest.raises(ValueError, match=message):
        metric().update_state(y, np.zeros((3, 2, 3), "float32"))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("y_pred", [np.zeros((3, 2)), np.zeros((3, 3, 2))])
def test_weights_are_one_each(metric, y_pred):
    y_pred = y_pred.astype("float32")
    for weight in (np.ones(2), np.ones((3, 2)), ["a", "b", "c"]):
        with pytest.raises(ValueError, match="`sample_weight` must be"):
            metric().update_state([0, 0, 1], y_pred, weight)
    one, column = metric(), metric()
    y_pred += np.arange(3).reshape(3, *[1] * (y_pred.ndim - 1))
    one.update_state([0, 0, 1], y_pred, 2.0)
    column.update_state([0, 0, 1], y_pred, np.full((3, 1), 2.0))
    assert float(one.result()) == float(column.result())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 3)])
def test_nan_stays_nan(metric, shape, rng):
    x = rng.normal(size=shape).astype("float32")
    x[1, 0] = np.nan
    mean = metric()
    mean.update_state([0, 0, 0, 1, 1, 1], x)
    assert np.isnan(float(mean.result()))


def test_counters_are_not_half_precision(rng):
    """512 items of 4 a class have 780,288 triplets: beyond float16; bfloat16 counts to 256."""
    y = np.arange(512) // 4
    x = rng.normal(size=(512, 8)).astype("float32")
    expected = TripletAccuracy()
    expected.update_state(y, x)
    floatx = keras.config.floatx()
    try:
        # On JAX Keras converts integers to floats if that default is bfloat16.
        for name in ("float16", "bfloat16")[: 1 if keras.backend.backend() == "jax" else 2]:
            keras.config.set_floatx(name)
            metric = TripletAccuracy()
            metric.update_state(y, x)
            assert float(metric.result()) == pytest.approx(float(expected.result()), rel=1e-5)
    finally:
        keras.config.set_floatx(floatx)


def test_half_precision_and_collapse():
    x = keras.ops.cast(np.full((4, 8), 60.0), "float16")
    for metric in (TripletAccuracy(), NegativeDistance()):
        metric.update_state([0, 0, 1, 1], x)
        assert float(metric.result()) == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_config(metric):
    made = metric("cosine", name="own")
    again = keras.metrics.deserialize(keras.metrics.serialize(made))
    assert type(again) is metric and again.get_config() == made.get_config()
    with pytest.raises(ValueError, match="one of"):
        metric("l2")
    with pytest.raises(ValueError, match="class ids"):
        metric().update_state(np.array([0.5]), np.ones((1, 2)))
    for shape in ((1,), (1, 1, 3)):
        with pytest.raises(ValueError, match="branches, dim"):
            metric().update_state([0], np.ones(shape, "float32"))
