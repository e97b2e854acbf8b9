"""few_shot_accuracy on data with a known result, and compared with scikit-learn."""

import numpy as np
import pytest

from keras_metric.evaluation import few_shot_accuracy


@pytest.fixture
def data(rng):
    labels = np.repeat(np.arange(12), 20)
    return labels[:, None] % 4 + rng.normal(size=(240, 6)), labels


def test_perfect_and_collapsed_encoders(rng):
    labels = np.repeat([f"c{i}" for i in range(9)], 20)
    far = 100.0 * np.repeat(np.eye(9), 20, axis=0) + rng.normal(size=(180, 9))
    for ways, shots in ((5, 1), (7, 5)):
        settings = dict(ways=ways, shots=shots, episodes=50)
        perfect = few_shot_accuracy(far, labels, **settings)
        assert perfect["class_mean_accuracy"] == perfect["nearest_neighbor_accuracy"] == 1.0
        assert perfect["class_mean_interval"] == 0.0 and perfect["num_classes"] == 9.0
        one_point = few_shot_accuracy(np.ones((180, 3)), labels, **settings)
        assert one_point["nearest_neighbor_accuracy"] == pytest.approx(1 / ways)


def test_all_items_of_all_classes_are_a_plain_classifier(rng):
    """All classes and all other items are in each episode: only the split is random."""
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

    labels = np.repeat(np.arange(4), 10)
    x = rng.normal(size=(40, 3)) + labels[:, None] / 2
    ours = few_shot_accuracy(x, labels, ways=4, shots=6, queries=4, episodes=1500)
    found = []
    for _ in range(600):
        examples = np.concatenate([c * 10 + rng.permutation(10)[:6] for c in range(4)])
        chosen = np.setdiff1d(np.arange(40), examples)
        parts = x[examples], labels[examples]
        found.append(
            [
                model.fit(*parts).score(x[chosen], labels[chosen])
                for model in (KNeighborsClassifier(1), NearestCentroid())
            ]
        )
    nearest, mean = np.mean(found, axis=0)
    spread = 5 * np.std(found, axis=0) / np.sqrt(600)
    assert ours["nearest_neighbor_accuracy"] == pytest.approx(nearest, abs=spread[0])
    assert ours["class_mean_accuracy"] == pytest.approx(mean, abs=spread[1])
    assert abs(nearest - mean) > spread.sum()
    expected = 1.96 * np.std(found, axis=0) / np.sqrt(1500)
    assert ours["class_mean_interval"] == pytest.approx(expected[1], rel=0.15)


def test_one_shot_has_one_rule_and_seeds_repeat(data):
    first, again, other = (few_shot_accuracy(*data, episodes=30, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert first["class_mean_accuracy"] == first["nearest_neighbor_accuracy"]


def test_cosine_ignores_lengths(data, rng):
    x, labels = data
    longer = x * rng.uniform(0.1, 10, size=(240, 1))
    settings = dict(shots=3, episodes=40, metric="cosine")
    ours = few_shot_accuracy(longer, labels, **settings)
    assert ours == pytest.approx(few_shot_accuracy(x, labels, **settings))
    assert few_shot_accuracy(longer, labels, shots=3, episodes=40) != ours


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("exponent", [-700, 700])
def test_scale_does_not_matter(metric, exponent, data):
    x, labels = data
    settings = dict(shots=3, episodes=40, metric=metric)
    expected = few_shot_accuracy(x, labels, **settings)
    assert few_shot_accuracy(np.ldexp(x, exponent), labels, **settings) == expected


def test_offset_does_not_matter(data):
    x, labels = np.round(64 * data[0]) / 64, data[1]
    expected = few_shot_accuracy(x, labels, shots=4, episodes=40)
    assert few_shot_accuracy(x + 2.0**30, labels, shots=4, episodes=40) == expected


def test_an_example_of_zeros_is_not_near():
    """The items of class 1 are 66 degrees apart; zeros have the cosine 0 to all items."""
    x = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.4, 0.9165]])
    found = few_shot_accuracy(
        *(x, [0, 0, 1, 1]), ways=2, episodes=50, queries=1, metric="cosine", seed=0
    )
    # Items of class 1 are always right; zeros have the same distance to both classes.
    assert min(found["nearest_neighbor_accuracy"], found["class_mean_accuracy"]) > 0.5


def test_small_classes_are_excluded(rng):
    labels = np.repeat(np.arange(6), [20, 20, 20, 5, 5, 1])
    ours = few_shot_accuracy(rng.normal(size=(71, 2)), labels, ways=3, episodes=5)
    assert ours["num_classes"] == 3.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(ways=13), "13 classes of at least"),
        (dict(queries=20), "shots \\+ queries = 21"),
        (dict(ways=1), "at least 2"),
        (dict(episodes=1), "at least 2"),
        (dict(metric="dot"), "one of"),
    ],
)
def test_errors(arguments, message, data):
    with pytest.raises(ValueError, match=message):
        few_shot_accuracy(*data, **arguments)
