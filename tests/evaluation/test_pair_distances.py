"""pair_distances: all pairs, or a uniform sample of them."""

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from keras_metric import distances
from keras_metric.evaluation import pair_distances, pair_samples, verification_metrics

pytestmark = pytest.mark.touches_keras


def test_all_pairs(rng):
    x, y = rng.normal(size=(15, 3)), rng.integers(0, 4, 15)
    scores, same = pair_distances(x, y)
    pairs = list(itertools.combinations(range(15), 2))
    expected = [np.linalg.norm(x[i] - x[j]) for i, j in pairs]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert same.tolist() == [y[i] == y[j] for i, j in pairs]


def test_sampling_is_uniform_over_pairs(rng):
    """One large class has most of the pairs of one class: 190 of 224."""
    y, k = rng.permutation(np.repeat([0, 1, 2], [20, 8, 4])), np.arange(32)
    x = (74.0 * k + k**2 % 37)[:, None]  # Erdos and Turan: all pairs have different distances
    samples = [pair_distances(x, y, max_pairs=400, seed=seed) for seed in range(100)]
    assert all(len(same) == 400 and same.sum() == 200 for _, same in samples)
    scores, same = (np.concatenate(parts) for parts in zip(*samples))
    pairs = itertools.combinations(range(32), 2)
    kinds = {abs(x[i, 0] - x[j, 0]): y[i] == y[j] for i, j in pairs}
    for kind in (True, False):
        values, counts = np.unique(scores[same == kind], return_counts=True)
        expected = sorted(value for value, which in kinds.items() if which == kind)
        np.testing.assert_allclose(values, expected, rtol=1e-6)
        expected = counts.sum() / len(counts)
        assert ((counts - expected) ** 2 / expected).sum() < 1.5 * len(counts)


def test_few_pairs_of_one_class(rng):
    x, y = rng.normal(size=(60, 2)), np.concatenate([[0, 0], np.arange(1, 59)])
    scores, same = pair_distances(x, y, max_pairs=100)
    assert same.sum() == 1 and len(same) == 100
    assert 0 <= verification_metrics(scores, same)["auc"] <= 1


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_errors(labels):
    with pytest.raises(ValueError, match="two items of one class and two classes"):
        pair_distances([[0.0], [1.0], [2.0]], labels)


PEERS = {
    "euclidean": "euclidean",
    "squared_euclidean": "sqeuclidean",
    "manhattan": "cityblock",
    "cosine": "cosine",
    "pearson": "correlation",
}


def peer_distances(x, first, second, metric):
    """Float64 distances of pairs, by SciPy or by the definition."""
    x = x.astype("float64")
    if metric == "dot":
        return -(x @ x.T)[first, second]
    if metric == "snr":
        return np.var(x[first] - x[second], axis=1) / np.var(x[first], axis=1)
    return cdist(x, x, PEERS[metric])[first, second]


# Angular metrics subtract from 1; those of centred rows subtract means.
ATOL = {"cosine": 2e-6, "pearson": 2e-6, "snr": 1e-9}


def near_copies(rng, offset=0.0):
    """Float32 vectors that include a copy, near copies, a scaled copy and an outlier."""
    x = rng.normal(size=(700, 48)).astype("float32")
    x[1], x[2:5] = x[0], x[0] + np.float32([[1e-3], [1e-4], [1e-6]]) * x[2:5]
    x[5], x[6] = 2 * x[0], 1000 * x[6]
    return x + np.float32(offset)


@pytest.mark.parametrize("metric", distances.METRICS)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_all_pairs_have_float32_accuracy(rng, metric, offset):
    x, y = near_copies(rng, offset), np.arange(700) % 9
    scores, same = pair_distances(x, y, metric=metric)
    first, second = np.triu_indices(700, 1)
    expected = peer_distances(x, first, second, metric)
    np.testing.assert_allclose(scores, expected, rtol=2e-5, atol=ATOL.get(metric, 0))
    assert scores[0] == 0 or metric in ("cosine", "dot", "pearson")
    assert same.tolist() == (y[first] == y[second]).tolist()


@pytest.mark.parametrize("metric", distances.METRICS)
@pytest.mark.parametrize("num_pairs", [1_000, 100_000])
def test_few_pairs_are_measured_one_by_one_and_many_by_products(rng, metric, num_pairs):
    x, pairs = near_copies(rng), rng.integers(0, 700, (2, num_pairs))
    scores = pair_samples.measure(x, pairs, metric)
    expected = peer_distances(x, *pairs, metric)
    np.testing.assert_allclose(scores, expected, rtol=2e-5, atol=max(2e-6, ATOL.get(metric, 0)))


def test_all_pairs_take_one_product_and_bounded_memory(rng, monkeypatch):
    """Pair by pair, 400 items of 4,000 numbers gather 79,800 pairs twice: 2.6 GB."""
    x, y = rng.normal(size=(400, 4000)).astype("float32"), np.arange(400) % 7
    measured = []
    plain = distances.elementwise

    def counted(a, b, metric):
        measured.append(len(a))
        return plain(a, b, metric)

    monkeypatch.setattr(distances, "elementwise", counted)
    tracemalloc.start()
    scores = pair_distances(x, y)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(measured) == 0
    assert peak < 60e6  # the items in float32 and float64, and blocks of 256 rows
    np.testing.assert_allclose(scores[:399], np.linalg.norm(x[1:] - x[0], axis=1), rtol=1e-5)


def test_progress_shows_a_bar(rng, capsys):
    x, y = rng.normal(size=(40, 8)).astype("float32"), np.arange(40) % 3
    pair_distances(x, y, progress=True)
    assert "pairs" in capsys.readouterr().err
    pair_distances(x, y, progress=False)
    assert not capsys.readouterr().err
    with pytest.raises(TypeError, match="`progress`"):
        pair_distances(x, y, progress="yes")
