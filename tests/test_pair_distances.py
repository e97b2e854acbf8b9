"""pair_distances: all pairs, or an even draw of them."""

import itertools

import numpy as np
import pytest

from keras_metric.evaluation import pair_distances, verification_metrics


def test_all_pairs(rng):
    x, y = rng.normal(size=(15, 3)), rng.integers(0, 4, 15)
    scores, same = pair_distances(x, y)
    pairs = list(itertools.combinations(range(15), 2))
    wanted = [np.linalg.norm(x[i] - x[j]) for i, j in pairs]
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)
    assert same.tolist() == [y[i] == y[j] for i, j in pairs]


def test_a_draw_is_even_over_pairs(rng):
    """One large class has most of the pairs of one class: 45 of 49."""
    y = rng.permutation(np.repeat([0, 1, 2], [10, 4, 2]))
    k = np.arange(32)
    ruler = (74.0 * k + k**2 % 37)[:, None]  # Erdos and Turan: no two pairs are equally far apart
    x = ruler[:16]
    scores, same = pair_distances(x, y, max_pairs=60_000)
    assert len(scores) == 120  # all of them
    y = np.tile(y, 2)
    x = ruler
    counted = 40_000
    scores, same = pair_distances(x, y, max_pairs=400, seed=1)
    assert len(scores) == 400 and same.sum() == 200
    draws = [pair_distances(x, y, max_pairs=400, seed=seed) for seed in range(counted // 400)]
    scores, same = (np.concatenate(parts) for parts in zip(*draws))
    pairs = itertools.combinations(range(32), 2)
    kinds = {abs(x[i, 0] - x[j, 0]): y[i] == y[j] for i, j in pairs}
    for kind in (True, False):
        values, counts = np.unique(scores[same == kind], return_counts=True)
        wanted = sorted(value for value, which in kinds.items() if which == kind)
        np.testing.assert_allclose(values, wanted, rtol=1e-6)
        expected = counts.sum() / len(counts)
        assert ((counts - expected) ** 2 / expected).sum() < 1.5 * len(counts)


def test_few_pairs_of_one_class_all_count_no_more_than_there_are(rng):
    x, y = rng.normal(size=(60, 2)), np.concatenate([[0, 0], np.arange(1, 59)])
    scores, same = pair_distances(x, y, max_pairs=100)
    assert same.sum() == 1 and len(same) == 100
    assert 0 <= verification_metrics(scores, same)["auc"] <= 1


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_errors_name_the_way_out(labels):
    with pytest.raises(ValueError, match="two items of one class and two classes"):
        pair_distances([[0.0], [1.0], [2.0]], labels)
