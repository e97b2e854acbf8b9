"""geometry_metrics beside loops over pairs and triplets."""

import itertools

import numpy as np
import pytest
from scipy.stats import skew

from keras_metric.evaluation import _neighbors, geometry_metrics


def by_hand(x, y, k, alpha, t):
    d = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    items = range(len(x))
    pairs = list(itertools.permutations(items, 2))
    intra = [d[i, j] for i, j in pairs if y[i] == y[j]]
    inter = [d[i, j] for i, j in pairs if y[i] != y[j]]
    triplets = [
        (d[a, p], p) < (d[a, n], n) for a, p in pairs if y[a] == y[p] for n in items if y[n] != y[a]
    ]
    counts = np.zeros(len(x))
    for i in items:
        for j in sorted((j for j in items if j != i), key=lambda j: (d[i, j], j))[:k]:
            counts[j] += 1
    return {
        "triplet_accuracy": np.mean(triplets),
        "intra_distance": np.mean(intra),
        "inter_distance": np.mean(inter),
        "intra_inter_ratio": np.mean(intra) / np.mean(inter),
        "alignment": np.mean(np.power(intra, alpha)),
        "uniformity": np.log(np.mean([np.exp(-t * d[i, j] ** 2) for i, j in pairs])),
        f"hubness_at_{k}": skew(counts),
        f"antihubs_at_{k}": np.mean(counts == 0),
        "num_items": len(x),
    }


@pytest.mark.parametrize("block", [1 << 20, 150])
@pytest.mark.parametrize("kind", ["sphere", "grid"])
def test_equals_the_definitions(kind, block, rng, monkeypatch):
    monkeypatch.setattr(_neighbors, "_MOST", block)
    y = rng.zipf(1.5, 40) % 6
    x = rng.normal(size=(40, 3)) + y[:, None] / 3
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


def test_far_apart_does_not_underflow():
    ours = geometry_metrics([[0.0], [100.0], [300.0]], [0, 0, 1], k=1)
    assert ours["uniformity"] == pytest.approx(-20000 - np.log(3), rel=1e-6)


def test_the_ends_of_the_numbers(rng):
    """A power beyond float64 is infinite; distances whose square is 0 are none the less exact."""
    x, labels = rng.normal(size=(20, 3)), np.arange(20) // 5
    wanted = geometry_metrics(x, labels, k=3)
    assert geometry_metrics(x, labels, k=3, alpha=1e4)["alignment"] == np.inf
    tiny = geometry_metrics(2.0**-660 * x, labels, k=3)
    for key in ("intra_distance", "inter_distance"):
        assert 2.0**660 * tiny[key] == pytest.approx(wanted[key])
    for key in ("intra_inter_ratio", "triplet_accuracy", "hubness_at_3"):
        assert tiny[key] == pytest.approx(wanted[key])


def test_collapsed_encoder(rng):
    ours = geometry_metrics(np.ones((60, 3)), np.arange(60) // 6, k=3)
    assert ours["triplet_accuracy"] == pytest.approx(0.5)
    assert ours["uniformity"] == 0.0 and np.isnan(ours["intra_inter_ratio"])
    assert ours["antihubs_at_3"] > 0.9


def test_what_there_is_not_is_nan():
    single = geometry_metrics([[0.0], [1.0]], [0, 1], k=1)
    assert np.isnan(single["alignment"]) and np.isnan(single["triplet_accuracy"])
    assert single["inter_distance"] == 1.0
    one_class = geometry_metrics([[0.0], [1.0]], [0, 0], k=2)
    assert np.isnan(one_class["inter_distance"]) and np.isnan(one_class["hubness_at_2"])
    assert np.isnan(geometry_metrics([[0.0]], [0])["uniformity"])


def test_errors_name_the_way_out():
    with pytest.raises(ValueError, match="greater than 0"):
        geometry_metrics([[0.0]], [0], t=0)
    with pytest.raises(ValueError, match="at least 1"):
        geometry_metrics([[0.0]], [0], k=0)
