"""Evaluation compared with AccuracyCalculator of pytorch-metric-learning on random data."""

import numpy as np
import pytest
from peers import SEED, SEED_HINT, torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from keras_metric.evaluation import clustering_metrics, retrieval_metrics

pytestmark = pytest.mark.parity

NAMES = {
    "precision_at_1": "precision_at_1",
    "r_precision": "r_precision",
    "map": "mean_average_precision",
    "map_at_r": "mean_average_precision_at_r",
    "mrr": "mean_reciprocal_rank",
}


def data(extra, size=400):
    """Unequal classes with singletons, and copies within and across classes."""
    rng = np.random.default_rng([SEED, extra])
    labels = rng.zipf(1.5, size) % 60
    x = rng.standard_normal((size, 16)) + 0.6 * rng.standard_normal((60, 16))[labels]
    x[:40] = x[40:80]
    labels[:20] = labels[40:60]
    return x.astype("float32"), labels


def theirs(*parts, **settings):
    calculator = AccuracyCalculator(device=torch.device("cpu"), **settings)
    return calculator.get_accuracy(*(torch.as_tensor(part) for part in parts))


@pytest.mark.parametrize("average", ["query", "class"])
@pytest.mark.parametrize("with_gallery", [False, True])
def test_retrieval(with_gallery, average):
    x, y = data(0)
    # The peer has no order of equal distances: exclude copies of gallery items from the queries.
    parts = (x[100:200], y[100:200], x[200:], y[200:]) if with_gallery else (x[40:], y[40:])
    expected = theirs(*parts, include=tuple(NAMES.values()), avg_of_avgs=average == "class")
    ours = retrieval_metrics(*parts, k=1, average=average)
    for mine, other in NAMES.items():
        assert ours[mine] == pytest.approx(expected[other], abs=2e-6), (mine, SEED_HINT)


def test_copies_whose_order_does_not_matter():
    """Pairs of copies of one class: the ranks do not depend on their order."""
    x, y = data(1)
    x, y = np.concatenate([x[100:250]] * 2), np.concatenate([y[100:250]] * 2)
    expected, ours = theirs(x, y, include=tuple(NAMES.values())), retrieval_metrics(x, y, k=1)
    for mine, other in NAMES.items():
        assert ours[mine] == pytest.approx(expected[other], abs=2e-6), (mine, SEED_HINT)


def test_per_class():
    x, y = data(2)
    x, y = x[40:], y[40:]
    names = ("precision_at_1", "mean_average_precision_at_r")
    expected = theirs(x, y, include=names, return_per_class=True)
    ours = retrieval_metrics(x, y, k=1, per_class=True)
    classes = [c for c in np.unique(y) if (y == c).sum() > 1]
    for mine, other in zip(("precision_at_1", "map_at_r"), names):
        mine = [ours[f"{c}/{mine}"] for c in classes]
        np.testing.assert_allclose(mine, expected[other], atol=2e-6, err_msg=SEED_HINT)


def test_clustering_with_the_same_clusters():
    from sklearn.cluster import KMeans

    x, y = data(3)

    def clusters(tensor, count):
        model = KMeans(count, n_init=1, max_iter=100, random_state=0)
        return torch.as_tensor(model.fit_predict(tensor.cpu().numpy()))

    expected = theirs(x, y, include=("NMI", "AMI"), kmeans_func=clusters)
    ours = clustering_metrics(x, y)
    assert ours["nmi"] == pytest.approx(expected["NMI"], abs=1e-9), SEED_HINT
    assert ours["ami"] == pytest.approx(expected["AMI"], abs=1e-9), SEED_HINT
