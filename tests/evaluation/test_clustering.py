"""clustering_metrics compared with loops over pairs and with scikit-learn."""

import importlib.util
import itertools

import numpy as np
import pytest
from sklearn import metrics

from keras_metric.evaluation import clustering_metrics
from keras_metric.evaluation.clustering import compare_partitions

needs_faiss = pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="needs faiss-cpu")
engines = pytest.mark.parametrize(
    "engine", ["scikit-learn", pytest.param("faiss", marks=needs_faiss)]
)


def unequal(rng, size=120, classes=7):
    return rng.zipf(1.5, size) % classes


@pytest.mark.parametrize("seed", range(4))
def test_partitions_are_compared_pair_by_pair(seed):
    rng = np.random.default_rng(seed)
    labels, clusters = unequal(rng), unequal(rng, classes=11)
    found = compare_partitions(labels, clusters)
    pairs = list(itertools.combinations(range(len(labels)), 2))
    together = {(i, j) for i, j in pairs if clusters[i] == clusters[j]}
    alike = {(i, j) for i, j in pairs if labels[i] == labels[j]}
    precision, recall = (len(together & alike) / len(s) for s in (together, alike))
    assert found["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    joint = np.histogram2d(labels, clusters, (range(8), range(12)))[0] / len(labels)
    a, b = joint.sum(axis=1), joint.sum(axis=0)
    entropy = [-sum(p * np.log(p) for p in part if p > 0) for part in (a, b)]
    mutual = sum(
        joint[i, j] * np.log(joint[i, j] / a[i] / b[j])
        for i, j in itertools.product(range(7), range(11))
        if joint[i, j] > 0
    )
    assert found["nmi"] == pytest.approx(2 * mutual / sum(entropy))
    assert found["ami"] == pytest.approx(metrics.adjusted_mutual_info_score(labels, clusters))


@engines
def test_distant_classes_are_found(engine, rng):
    labels = unequal(rng)
    x = 100.0 * np.eye(7)[labels] + rng.normal(size=(120, 7))
    best = max(
        clustering_metrics(x, [f"class {c}" for c in labels], engine=engine, seed=seed)["ami"]
        for seed in range(5)
    )
    assert best > (0.99 if engine == "scikit-learn" else 0.8)


def test_the_clusters_are_those_of_k_means(rng):
    from sklearn.cluster import KMeans

    x, labels = rng.normal(size=(90, 4)), unequal(rng, 90)
    clusters = KMeans(5, n_init=1, max_iter=100, random_state=3).fit_predict(x)
    ours = clustering_metrics(x, labels, num_clusters=5, seed=3)
    assert ours["nmi"] == pytest.approx(metrics.normalized_mutual_info_score(labels, clusters))
    assert (ours["num_clusters"], ours["num_items"]) == (5.0, 90.0)


@engines
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scale_does_not_matter(engine, dtype, rng):
    """FAISS would abort the process if a square were infinite."""
    x, labels = rng.normal(size=(120, 4)).astype(dtype), unequal(rng)
    settings = dict(engine=engine, silhouette=True)
    expected = clustering_metrics(x, labels, **settings)
    for exponent in (-100, 100) if dtype == "float32" else (-700, 700):
        assert clustering_metrics(np.ldexp(x, exponent), labels, **settings) == expected


@engines
def test_offset_does_not_matter(engine, rng):
    """In float32 the offset would leave steps of 1."""
    x, labels = rng.integers(-64, 64, (120, 4)) / 64, unequal(rng)
    expected = clustering_metrics(x, labels, engine=engine)
    assert clustering_metrics(x + 2.0**24, labels, engine=engine) == expected


def test_silhouette_on_request(rng):
    x, labels = rng.normal(size=(60, 3)), unequal(rng, 60)
    assert "silhouette" not in clustering_metrics(x, labels)
    ours = clustering_metrics(x, labels, silhouette=True)["silhouette"]
    assert ours == pytest.approx(metrics.silhouette_score(x, labels))
    for labels in (np.zeros(60), np.arange(60)):
        assert np.isnan(clustering_metrics(x, labels, silhouette=True)["silhouette"])


def test_odd_sets(rng):
    """One point many times, one class, only singletons, one item."""
    assert clustering_metrics(np.ones((20, 3)), np.arange(20) % 4)["ami"] == pytest.approx(0)
    assert clustering_metrics(rng.normal(size=(9, 2)), np.zeros(9))["nmi"] == 1.0
    assert clustering_metrics(rng.normal(size=(9, 2)), np.arange(9))["f1"] == 1.0
    assert clustering_metrics([[1.0]], ["a"])["f1"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(engine="kmeans"), "one of"),
        (dict(num_clusters=5), "at least as many items"),
        (dict(num_clusters=0), "at least 1"),
        (dict(seed=2**32), "below 4294967296 for engine='scikit-learn'"),
        (dict(seed=2**31, engine="faiss"), "below 2147483648 for engine='faiss'"),
        (dict(labels=[0]), "one label for each"),
        (dict(embeddings=[[np.nan], [0.0]]), "row 0"),
        (dict(embeddings=np.zeros((0, 2)), labels=[]), "at least one item"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        clustering_metrics(**{"embeddings": [[0.0], [1.0]], "labels": [0, 1], **arguments})
