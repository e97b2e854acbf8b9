"""geometry_metrics compared with all pairs and triplets."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import skew

from keras_metric.evaluation import geometry_metrics


def by_hand(x, y, k, alpha, t):
    d = cdist(x, x)
    off_diagonal = ~np.eye(len(x), dtype=bool)
    same = y[:, None] == y
    intra, inter = d[same & off_diagonal], d[~same]
    # Ties are decided by the index: compare positions in the sorted row.
    order = np.argsort(d.astype("float32") + np.where(off_diagonal, 0, -1), axis=1, kind="stable")
    rank = np.argsort(order, axis=1)
    right = total = 0
    for a in range(len(x)):
        positives = rank[a, same[a] & off_diagonal[a]]
        satisfied = positives[:, None] < rank[a, ~same[a]]
        right, total = right + satisfied.sum(), total + satisfied.size
    counts = np.bincount(order[:, 1 : k + 1].ravel(), minlength=len(x))
    return {
        "triplet_accuracy": right / total,
        "intra_distance": np.mean(intra),
        "inter_distance": np.mean(inter),
        "intra_inter_ratio": np.mean(intra) / np.mean(inter),
        "alignment": np.mean(np.power(intra, alpha)),
        "uniformity": np.log(np.mean(np.exp(-t * d[off_diagonal] ** 2))),
        f"hubness_at_{k}": skew(counts),
        f"antihubs_at_{k}": np.mean(counts == 0),
        "num_items": len(x),
    }


@pytest.mark.parametrize("items", [40, 1100])
@pytest.mark.parametrize("kind", ["sphere", "grid"])
def test_equals_the_definitions(kind, items, rng):
    """1,100 items are more than one block."""
    y = rng.zipf(1.5, items) % 6
    x = rng.normal(size=(items, 3)) + y[:, None] / 3
    x = np.round(x) if kind == "grid" else x / np.linalg.norm(x, axis=1, keepdims=True)
    ours = geometry_metrics(x, y, k=4, alpha=1.5, t=0.7)
    assert ours == pytest.approx(by_hand(x, y, 4, 1.5, 0.7), rel=1e-6)


def test_published_code(rng):
    """Wang and Isola's two functions, from the appendix of their paper."""
    torch = pytest.importorskip("torch")
    x = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(30, 4))), dim=1)
    y = np.repeat(np.arange(15), 2)
    align = (x[::2] - x[1::2]).norm(p=2, dim=1).pow(2).mean()
    uniform = torch.pdist(x, p=2).pow(2).mul(-2).exp().mean().log()
    ours = geometry_metrics(x.numpy(), y)
    assert ours["alignment"] == pytest.approx(align.item(), rel=1e-6)
    assert ours["uniformity"] == pytest.approx(uniform.item(), rel=1e-6)


def test_large_distances_do_not_underflow():
    ours = geometry_metrics([[0.0], [100.0], [300.0]], [0, 0, 1], k=1)
    assert ours["uniformity"] == pytest.approx(-20000 - np.log(3), rel=1e-6)


def test_overflow_and_underflow(rng):
    """A power beyond float64 is infinite; distances whose square underflows are exact."""
    x, labels = rng.normal(size=(20, 3)), np.arange(20) // 5
    expected = geometry_metrics(x, labels, k=3)
    assert geometry_metrics(x, labels, k=3, alpha=1e4)["alignment"] == np.inf
    tiny = geometry_metrics(2.0**-660 * x, labels, k=3)
    for key in ("intra_distance", "inter_distance"):
        assert 2.0**660 * tiny[key] == pytest.approx(expected[key])
    for key in ("intra_inter_ratio", "triplet_accuracy", "hubness_at_3"):
        assert tiny[key] == pytest.approx(expected[key])


def test_collapsed_encoder(rng):
    ours = geometry_metrics(np.ones((60, 3)), np.arange(60) // 6, k=3)
    assert ours["triplet_accuracy"] == pytest.approx(0.5)
    assert ours["uniformity"] == 0.0 and np.isnan(ours["intra_inter_ratio"])
    assert ours["antihubs_at_3"] > 0.9


def test_missing_pairs_give_nan():
    single = geometry_metrics([[0.0], [1.0]], [0, 1], k=1)
    assert np.isnan(single["alignment"]) and np.isnan(single["triplet_accuracy"])
    assert single["inter_distance"] == 1.0
    one_class = geometry_metrics([[0.0], [1.0]], [0, 0], k=2)
    assert np.isnan(one_class["inter_distance"]) and np.isnan(one_class["hubness_at_2"])
    assert np.isnan(geometry_metrics([[0.0]], [0])["uniformity"])


def test_errors():
    with pytest.raises(ValueError, match="greater than 0"):
        geometry_metrics([[0.0]], [0], t=0)
    with pytest.raises(ValueError, match="at least 1"):
        geometry_metrics([[0.0]], [0], k=0)
