"""Batches of hard neighbours and their search, compared with slow loops."""

import keras
import numpy as np
import pytest

from keras_metric.callbacks import HardExampleMining
from keras_metric.callbacks.hard_example_mining import nearest_of_others
from keras_metric.data import BalancedBatches
from keras_metric.models import EmbeddingModel

CLASSES, EACH, P, K = 20, 5, 6, 3
LABELS = np.repeat(np.arange(CLASSES), EACH)
ROWS = np.arange(len(LABELS), dtype="float32")[:, None]


def batches(**settings):
    return BalancedBatches(ROWS, LABELS, P, K, seed=0, **settings)


def neighbors_of_rows():
    """The next class and the one after it, row for row."""
    number = np.arange(len(LABELS))
    return np.stack([(number + EACH) % len(LABELS), (number + 2 * EACH) % len(LABELS)], axis=1)


def rows_and_labels(source, index):
    x, y = source[index]
    return x[:, 0].astype(int).reshape(P, K), y.reshape(P, K)


class TestHardNeighbors:
    def test_half_the_classes_are_neighbours_of_the_others(self):
        plain, changed = batches(), batches()
        changed.set_hard_neighbors(rows=neighbors_of_rows())
        for index in range(len(plain)):
            planned = set(rows_and_labels(plain, index)[1][:, 0])
            rows, y = rows_and_labels(changed, index)
            assert (y == y[:, :1]).all() and len(set(y[:, 0])) == P
            assert len(set(rows.ravel())) == P * K
            np.testing.assert_array_equal(LABELS[rows], y)
            kept, joined = y[: P // 2, 0], range(P // 2, P)
            assert set(kept) <= planned
            reach = set(neighbors_of_rows()[rows[: P // 2].ravel()].ravel())
            for row in joined:
                assert set(rows[row]) & reach, "no neighbour of an item in the batch"

    def test_hard_classes_follow_their_neighbours(self):
        source = batches()
        ring = (np.arange(CLASSES)[:, None] + [1]) % CLASSES
        source.set_hard_neighbors(classes=ring, fraction=0.8)
        _, y = rows_and_labels(source, 0)
        begin = y[0, 0]
        assert set(y[:, 0]) == {(begin + i) % CLASSES for i in range(P)}

    def test_batches_without_neighbours_are_as_planned(self):
        plain, changed = batches(), batches()
        changed.set_hard_neighbors(rows=np.full((len(LABELS), 2), -1))
        for index in range(len(plain)):
            a, b = (
                sorted(map(tuple, rows_and_labels(source, index)[0])) for source in (plain, changed)
            )
            assert a == b

    def test_a_batch_depends_on_seed_epoch_and_index(self):
        first, second = batches(), batches()
        for source in (first, second):
            source.set_hard_neighbors(rows=neighbors_of_rows())
        second[3]
        np.testing.assert_array_equal(first[1][0], second[1][0])
        assert not np.array_equal(first[1][0], first[2][0])
        before = first[1][0]
        first.set_hard_neighbors()
        np.testing.assert_array_equal(first[1][0], batches()[1][0])
        first.set_hard_neighbors(rows=neighbors_of_rows())
        first.on_epoch_end()
        assert not np.array_equal(first[1][0], before)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"rows": neighbors_of_rows(), "fraction": 1.0}, "fraction"),
            ({"rows": neighbors_of_rows()[1:]}, r"shape \(100, neighbors\)"),
            ({"classes": neighbors_of_rows()}, r"shape \(20, neighbors\)"),
            ({"rows": neighbors_of_rows() + 50}, "from 0 to 99"),
            ({"rows": neighbors_of_rows(), "classes": neighbors_of_rows()[:20]}, "both"),
            ({"rows": neighbors_of_rows().astype(float)}, "integers"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            batches().set_hard_neighbors(**arguments)


def test_neighbours_of_other_classes(rng):
    vectors = rng.normal(size=(60, 4)).astype("float32")
    ids = rng.integers(0, 7, 60)
    found, nearest = nearest_of_others(vectors, ids, 3)
    distance = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    for i in range(60):
        others = np.flatnonzero(ids != ids[i])
        expected = others[np.argsort(distance[i, others])[:3]]
        np.testing.assert_array_equal(found[i], expected)
    far = np.where(ids[:, None] == ids, np.inf, distance).min(axis=1)
    np.testing.assert_allclose(nearest, far, rtol=1e-4)


def test_neighbours_of_the_own_class_only(rng):
    vectors = np.concatenate([rng.normal(size=(200, 2)), rng.normal(100, size=(2, 2))])
    ids = np.array([0] * 200 + [1] * 2)
    found, nearest = nearest_of_others(vectors.astype("float32"), ids, 2)
    assert (found[:200] == -1).all() and (found[200:] >= 0).all()
    assert len(nearest) == 2


def test_tight_classes_of_a_hundred_have_neighbours(rng):
    ids = np.arange(500) % 5
    vectors = (np.eye(5)[ids] + 1e-3 * rng.normal(size=(500, 5))).astype("float32")
    found, nearest = nearest_of_others(vectors, ids, 3)
    assert (ids[found] != ids[:, None]).all() and len(nearest) == 500


def model_of_rows():
    """An identity encoder, so that the neighbours are those of x."""
    model = EmbeddingModel(keras.layers.Flatten(), None, normalize=False)
    model.compile("sgd")
    return model


def mining_of(source, model=None, **settings):
    mining = HardExampleMining(source, progress=False, **settings)
    mining.set_model(model or model_of_rows())
    return mining


class TestCallback:
    @pytest.mark.parametrize("rule", ["neighbors", "classes"])
    def test_finds_adjacent_classes(self, rule):
        """Rows are consecutive numbers, grouped by class: neighbours are the adjacent classes."""
        source = batches()
        mining = mining_of(source, rule=rule, neighbors=2)
        mining.on_epoch_end(0, {})
        assert mining.history["epoch"] == [1]
        expected = 5.0 if rule == "classes" else np.mean(np.tile([1, 2, 3, 2, 1], CLASSES))
        # The first and the last class have a neighbour on one side only.
        assert mining.history["nearest"][0] == pytest.approx(expected, abs=0.2)
        near = sum(
            np.abs(y[:, None] - y[None])[P // 2 :, : P // 2].min(axis=1).max() <= P
            for y in (rows_and_labels(source, i)[1][:, 0] for i in range(len(source)))
        )
        assert near == len(source)

    def test_epochs_of_the_search(self):
        mining = mining_of(batches(), every=2, start=3)
        for epoch in range(8):
            mining.on_epoch_end(epoch)
        assert mining.history["epoch"] == [3, 5, 7]

    def test_max_items(self):
        sizes, model = [], model_of_rows()
        embed = model.encoder.predict_on_batch
        model.encoder.predict_on_batch = lambda x: sizes.append(len(x)) or embed(x)
        mining_of(batches(), model, max_items=30, batch_size=8).on_epoch_end(0)
        assert sum(sizes) == 30 and max(sizes) == 8

    def test_in_fit(self):
        source = batches()
        mining = HardExampleMining(source, neighbors=2, progress=False)
        # The items lie on a line through the origin, where all of them have the same direction.
        model = EmbeddingModel(keras.layers.Dense(4), 2, normalize=False)
        model.compile(keras.optimizers.SGD(1e-6), jit_compile=False)
        model.fit(source, epochs=2, callbacks=[mining], verbose=0)
        assert mining.history["epoch"] == [1, 2]

    def test_an_encoder_of_nan_changes_nothing(self):
        source, model = batches(), model_of_rows()
        model.encoder.predict_on_batch = lambda x: np.full((len(x), 1), np.nan)
        with pytest.warns(UserWarning, match="NaN or infinity"):
            assert np.isnan(mining_of(source, model).mine())
        assert not source.has_hard_neighbors

    def test_another_model_starts_with_planned_batches(self):
        source = batches()
        mining = HardExampleMining(source, neighbors=2, start=2, progress=False)
        for _ in range(2):
            mining.set_model(model_of_rows())
            mining.on_train_begin()
            mining.on_epoch_begin(0)
            assert not source.has_hard_neighbors
            mining.on_epoch_end(1)
            assert source.has_hard_neighbors and mining.history["epoch"] == [2]
        mining.on_train_begin()
        assert source.has_hard_neighbors  # the same model continues

    def test_warns_without_neighbours(self):
        y = np.repeat([0, 1], 300)
        x = np.random.default_rng(0).normal(1000.0 * y[:, None], size=(600, 1)).astype("float32")
        with pytest.warns(UserWarning, match="600 of 600 items have no item of another class"):
            mining_of(BalancedBatches(x, y, 2, 2)).mine()

    @pytest.mark.parametrize(
        "arguments",
        [{"every": 0}, {"start": 0}, {"rule": "hard"}, {"fraction": 1.5}, {"neighbors": 0}],
    )
    def test_errors(self, arguments):
        with pytest.raises(ValueError):
            HardExampleMining(batches(), **arguments)

    def test_needs_a_model_and_balanced_batches(self):
        with pytest.raises(ValueError, match="set_model"):
            HardExampleMining(batches()).mine()
        with pytest.raises(TypeError, match="BalancedBatches"):
            HardExampleMining([(ROWS, LABELS)])
