"""PairBatches, TripletBatches, QuadrupletBatches: classes of the branches, ratio, anchors."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from keras_metric.data import (
    BalancedBatches,
    PairBatches,
    QuadrupletBatches,
    TripletBatches,
    ViewBatches,
)

CLASSES = {"pairs": PairBatches, "triplets": TripletBatches, "quadruplets": QuadrupletBatches}
SOURCES = {
    **CLASSES,
    "views": lambda x, y, size, **kw: ViewBatches(x, lambda x, rng: x + rng.random(), size, **kw),
    "balanced": lambda x, y, size, **kw: BalancedBatches(x, y, size, 3, **kw),
}


def data(rng, num_classes=7):
    """String labels of uneven classes, one of a single sample; x holds the row number."""
    counts = np.concatenate([[1, 2], rng.integers(2, 12, num_classes - 2)])
    y = rng.permutation(np.repeat([f"id{i}" for i in range(num_classes)], counts))
    return np.arange(len(y)).reshape(-1, 1), y


def epoch_of(batches):
    """Row numbers of each branch over the epoch."""
    parts = [batches[i][0] for i in range(len(batches))]
    return {name: np.concatenate([part[name][:, 0] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("trial", range(6))
@pytest.mark.parametrize("ratio", [(1, 1), (1, 3), (2, 1), (0, 1), (1, 0)])
def test_pairs(trial, ratio):
    x, y = data(np.random.default_rng(trial))
    size = 4 * sum(ratio)
    batches = PairBatches(x, y, batch_size=size, ratio=ratio, seed=trial)
    for i in range(len(batches)):
        parts, same = batches[i]
        assert list(parts) == ["first", "second"] and same.dtype == np.int32
        first, second = (part[:, 0] for part in parts.values())
        assert same.sum() == 4 * ratio[0] and len(same) == size
        assert ((y[first] == y[second]) == same).all()
        assert (first != second).all()
    usable = np.flatnonzero(y != "id0")  # id0 has one sample.
    assert set(epoch_of(batches)["first"]) == set(usable)


# For each kind: constructor, settings, branches of one class, pairs of branches of two classes, and
# the smallest class whose samples are anchors.
LAYOUTS = {
    "triplets": (TripletBatches, {}, "anchor positive", ["anchor negative"], 2),
    "second negative": (
        *(QuadrupletBatches, {"batches_per_epoch": 30}, "anchor positive"),
        ["anchor negative", "anchor second_negative", "negative second_negative"],
        None,
    ),
    "two anchors": (
        *(QuadrupletBatches, {"form": "two_anchors"}, "anchor second_anchor positive"),
        ["anchor negative"],
        3,
    ),
}


@pytest.mark.parametrize("trial", range(6))
@pytest.mark.parametrize("kind", LAYOUTS)
def test_branches_of_tuples(kind, trial):
    make, settings, alike, apart, smallest = LAYOUTS[kind]
    fewer = {"num_classes": 3 + trial} if smallest is None else {}
    x, y = data(np.random.default_rng(trial), **fewer)
    batches = make(x, y, batch_size=6, seed=trial, **settings)
    assert all(isinstance(batches[i], tuple) and len(batches[i]) == 1 for i in range(len(batches)))
    rows = epoch_of(batches)
    names = {name: None for pair in (alike, *apart) for name in pair.split()}
    assert list(rows) == list(names)
    for one, other in itertools.combinations(alike.split(), 2):
        assert (y[rows[one]] == y[rows[other]]).all() and (rows[one] != rows[other]).all()
    for one, other in map(str.split, apart):
        assert (y[rows[one]] != y[rows[other]]).all()
    if smallest is not None:
        classes, counts = np.unique(y, return_counts=True)
        usable = np.isin(y, classes[counts >= smallest])
        assert set(rows["anchor"]) == set(np.flatnonzero(usable))
        assert np.ptp(np.bincount(rows["anchor"])[usable]) <= 1


def test_positives_and_negatives_are_uniform():
    """All other samples are equally frequent: 4 positives, 6 + 3 negatives."""
    y = np.repeat([0, 1, 2], [5, 6, 3])
    x = np.arange(14).reshape(-1, 1)
    batches = TripletBatches(x, y, batch_size=1000, seed=0, batches_per_epoch=10)
    rows = epoch_of(batches)
    mine = rows["anchor"] == 2
    positives = np.bincount(rows["positive"][mine], minlength=14)
    negatives = np.bincount(rows["negative"][mine], minlength=14)
    total = mine.sum()
    assert total > 700
    expected = np.where(np.isin(np.arange(14), [0, 1, 3, 4]), total / 4, 0)
    np.testing.assert_allclose(positives, expected, atol=5 * np.sqrt(total / 4))
    np.testing.assert_allclose(negatives[5:], total / 9, atol=5 * np.sqrt(total / 9))
    four = QuadrupletBatches(x, y, batch_size=1000, seed=0, batches_per_epoch=10)
    rows = epoch_of(four)
    mine = (rows["anchor"] < 5) & (rows["negative"] >= 11)
    second = np.bincount(rows["second_negative"][mine], minlength=14)
    np.testing.assert_allclose(second[5:11], mine.sum() / 6, atol=5 * np.sqrt(mine.sum() / 6))


def test_short_epochs_continue_the_round_of_the_last():
    x, y = np.arange(40).reshape(-1, 1), np.repeat(np.arange(8), 5)
    batches = TripletBatches(x, y, batch_size=4, seed=0, batches_per_epoch=2)
    used = []
    for _ in range(5):
        used.append(epoch_of(batches)["anchor"])
        batches.on_epoch_end()
    assert sorted(np.concatenate(used)) == list(range(40))


@pytest.mark.filterwarnings("ignore:.*classes have fewer than samples_per_class")
@pytest.mark.parametrize("kind", SOURCES)
def test_a_function_of_seed_epoch_and_index(kind, rng):
    x, y = data(rng)
    one, other = (SOURCES[kind](x, y, 4, seed=3) for _ in range(2))
    still = SOURCES[kind](x, y, 4, seed=3, reshuffle=False)
    expected = [keras.tree.flatten(one[i]) for i in range(len(one))]
    order = np.random.default_rng(0).permutation(np.tile(np.arange(len(one)), 5))
    with ThreadPoolExecutor(8) as pool:
        for index, batch in zip(order, pool.map(other.__getitem__, order)):
            assert all(map(np.array_equal, keras.tree.flatten(batch), expected[index]))
    one.on_epoch_end()
    still.on_epoch_end()
    assert not np.array_equal(keras.tree.flatten(one[0])[0], expected[0][0])
    assert np.array_equal(keras.tree.flatten(still[0])[0], expected[0][0])


@pytest.mark.parametrize("labels", [np.int64(2) ** 40, np.uint64(2**63)])
def test_wide_labels_are_distinguished(labels):
    y = np.repeat(labels + np.arange(4).astype(labels.dtype), 5)
    batches = TripletBatches(np.arange(20).reshape(-1, 1), y, batch_size=5, seed=0)
    rows = epoch_of(batches)
    assert (y[rows["anchor"]] == y[rows["positive"]]).all()
    assert (y[rows["anchor"]] != y[rows["negative"]]).all()
    assert batches.classes.dtype == y.dtype


def test_dict_inputs_and_load_inside_branches():
    y = np.repeat(np.arange(3), 4)
    x = {"image": np.zeros((12, 2, 2, 1)), "row": np.arange(12)}
    ((parts),) = TripletBatches(x, y, batch_size=4, seed=0)[0]
    assert parts["negative"]["image"].shape == (4, 2, 2, 1)
    assert (parts["anchor"]["row"] // 4 == parts["positive"]["row"] // 4).all()
    pairs, _ = PairBatches([str(i) for i in range(12)], y, 4, seed=0, load=np.float32)[0]
    assert pairs["first"].shape == (4,)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("kind", CLASSES)
def test_fit(kind, workers, rng):
    x, y = data(rng)
    source = CLASSES[kind](x.astype("float32"), y, batch_size=4, seed=0, workers=workers)
    names = list(source[0][0])
    inputs = {name: keras.Input((1,), name=name) for name in names}
    encoder = keras.layers.Dense(2)
    joined = keras.layers.Concatenate()([encoder(part) for part in inputs.values()])
    model = keras.Model(inputs, keras.layers.Dense(1)(joined))
    if kind == "pairs":
        model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
        history = model.fit(source, epochs=2, verbose=0)
        assert len(history.history["loss"]) == 2
    else:
        assert model.predict(source, verbose=0).shape == (4 * len(source), 1)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (PairBatches, {"batch_size": 32, "ratio": (1, 2)}, r"batch_size=32, ratio=\(1, 2\)"),
        (PairBatches, {"ratio": 3}, "two integers"),
        (PairBatches, {"ratio": (0, 0)}, "multiple of the sum"),
        (PairBatches, {"ratio": (0.5, 0.5)}, "must be an integer"),
        (TripletBatches, {"batch_size": 0}, "`batch_size` must be at least 1"),
        (TripletBatches, {"y": np.zeros(12)}, "at least 2 classes"),
        (TripletBatches, {"y": np.arange(12)}, "at least 2 samples"),
        (TripletBatches, {"y": np.eye(12)}, r"argmax\(axis=-1\)"),
        (TripletBatches, {"y": np.arange(3).repeat(5)}, r"len\(x\)=12, len\(y\)=15"),
        (QuadrupletBatches, {"y": np.repeat([0, 1], 6)}, "at least 3 classes"),
        (QuadrupletBatches, {"form": "three"}, "`form` must be one of"),
        (QuadrupletBatches, {"form": "two_anchors", "y": np.arange(6).repeat(2)}, "3 samples"),
    ],
)
def test_errors(make, changes, message):
    arguments = {"x": np.zeros((12, 1)), "y": np.repeat(np.arange(3), 4), **changes}
    with pytest.raises((ValueError, TypeError), match=message):
        make(**arguments)
