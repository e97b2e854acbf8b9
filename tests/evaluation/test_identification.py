"""identification_metrics compared with a loop over probes and thresholds."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from keras_metric.evaluation import identification_metrics, retrieval_metrics

CUTS, FARS = (1, 2, 5), (0.0, 0.1, 0.4)


def by_hand(x, y, gallery, gallery_y, metric="euclidean"):
    d = -(x @ gallery.T) if metric == "dot" else cdist(x, gallery, metric)
    names = list(dict.fromkeys(gallery_y))
    table = np.array([[row[gallery_y == name].min() for name in names] for row in d])
    known = np.isin(y, names)
    rank = np.array(
        [
            1 + sum(other < row[names.index(label)] for other in row) if label in names else 0
            for row, label in zip(table, y)
        ]
    )
    nearest = table.min(axis=1)
    unknown = nearest[~known]
    result = {f"rank_{cut}": np.mean(rank[known] <= cut) for cut in CUTS}
    for far in FARS:
        allowed = [t for t in [-np.inf, *nearest] if np.mean(unknown <= t) <= far]
        result[f"threshold_at_far_{far:g}"] = max(allowed)
        result[f"dir_at_far_{far:g}"] = np.mean(
            (rank[known] == 1) & (nearest[known] <= max(allowed))
        )
    result |= {"num_known": known.sum(), "num_unknown": (~known).sum()}
    return result | {"num_identities": len(names)}


def make_data(rng, num_items=60, num_probes=150):
    """Enrolled 0..9 with unequal numbers of items, probes of 0..14, classes that overlap."""
    centres = 1.2 * rng.normal(size=(15, 5))
    gallery_y, y = rng.zipf(1.5, num_items) % 10, rng.integers(0, 15, num_probes)
    gallery = centres[gallery_y] + rng.normal(size=(num_items, 5))
    return centres[y] + rng.normal(size=(num_probes, 5)), y, gallery, gallery_y


@pytest.fixture
def data(rng):
    return make_data(rng)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("sizes", [(60, 150), (700, 1600)])
def test_equals_the_definitions(metric, sizes, rng):
    """1,600 probes of 700 items are more than one block."""
    data = make_data(rng, *sizes)
    ours = identification_metrics(*data, k=CUTS, far=FARS, metric=metric)
    assert ours == pytest.approx(by_hand(*data, metric=metric), rel=1e-6, abs=1e-6)
    assert ours["dir_at_far_0"] < ours["dir_at_far_0.4"] < ours["rank_1"] < ours["rank_5"]


@pytest.mark.parametrize("scale", [2.0**-660, 2.0**660])
def test_scale_does_not_matter(scale, data):
    """Squares of these numbers are beyond float64."""
    x, y, gallery, gallery_y = data
    expected = identification_metrics(*data)
    found = identification_metrics(scale * x, y, scale * gallery, gallery_y)
    for key in found:
        found[key] /= scale if key.startswith("threshold") else 1.0
    assert found == pytest.approx(expected)


def test_one_item_an_identity_is_cmc(data):
    x, y, gallery, gallery_y = data
    first = np.unique(gallery_y, return_index=True)[1]
    parts = x, y, gallery[first], gallery_y[first]
    ours, theirs = identification_metrics(*parts, k=CUTS), retrieval_metrics(*parts, k=CUTS)
    for cut in CUTS:
        assert ours[f"rank_{cut}"] == pytest.approx(theirs[f"cmc_at_{cut}"])


def test_ties_are_decided_by_the_index():
    """A collapsed encoder identifies every probe as the first item."""
    gallery_y = np.array(["b", "a", "b", "c"])
    ours = identification_metrics(
        np.ones((6, 2)), list("aabbbc"), np.ones((4, 2)), gallery_y, k=(1, 2, 3)
    )
    assert [ours[f"rank_{k}"] for k in (1, 2, 3)] == pytest.approx([3 / 6, 5 / 6, 1.0])


def test_only_known_or_only_unknown_probes():
    known = identification_metrics([[0.0]], [1], [[0.0], [1.0]], [1, 2], k=1, far=0.1)
    assert known["rank_1"] == 1.0 and np.isnan(known["dir_at_far_0.1"])
    unknown = identification_metrics([[0.0]], [9], [[0.0], [1.0]], [1, 2], k=1, far=0.1)
    assert np.isnan(unknown["rank_1"]) and np.isnan(unknown["dir_at_far_0.1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(metric="snr"), "one of"),
        (dict(k=0), "at least 1"),
        (dict(k=2**63), "at most"),
        (dict(far=-0.1), "at least 0"),
        (dict(far=(0.1, 0.10000001)), "first six digits"),
        (dict(gallery_embeddings=np.zeros((0, 1)), gallery_labels=[]), "probes and a gallery"),
        (dict(gallery_embeddings=None, gallery_labels=None), "probes and a gallery"),
        (dict(gallery_embeddings=[[0.0, 1.0]]), "same width"),
    ],
)
def test_errors(arguments, message):
    good = dict(embeddings=[[0.0]], labels=[0], gallery_embeddings=[[0.0]], gallery_labels=[0])
    with pytest.raises(ValueError, match=message):
        identification_metrics(**{**good, **arguments})
