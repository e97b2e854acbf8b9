"""Live beside pytorch-metric-learning, on fresh random batches: value, gradient, choice."""

import numpy as np
import pytest
from peers import SEED, BothMeans, batch, compare, mean, plain, torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners

from keras_metric import distances, losses
from keras_metric.layers import TripletMiner

pytestmark = pytest.mark.parity


CASES = {
    "triplet all": (
        losses.TripletLoss(0.3, mining="all"),
        lambda: pml_losses.TripletMarginLoss(0.3, distance=plain()),
        None,
    ),
    "triplet all, mean": (
        losses.TripletLoss(0.3, mining="all", reduction="mean_valid"),
        lambda: pml_losses.TripletMarginLoss(0.3, distance=plain(), reducer=mean()),
        None,
    ),
    "triplet squared": (
        losses.TripletLoss(0.3, "squared_euclidean", "all"),
        lambda: pml_losses.TripletMarginLoss(0.3, distance=plain(2)),
        None,
    ),
    "triplet cosine": (
        losses.TripletLoss(0.3, "cosine", "all"),
        lambda: pml_losses.TripletMarginLoss(0.3, distance=pml_distances.CosineSimilarity()),
        None,
    ),
    "triplet swap": (
        losses.TripletLoss(0.3, mining="all", swap=True),
        lambda: pml_losses.TripletMarginLoss(0.3, swap=True, distance=plain()),
        None,
    ),
    "triplet soft margin": (
        losses.TripletLoss(0.3, mining="all", form="soft_margin"),
        lambda: pml_losses.TripletMarginLoss(0.3, smooth_loss=True, distance=plain()),
        None,
    ),
    "triplet semi-hard band": (
        losses.TripletLoss(0.3, mining="semi-hard-all"),
        lambda: pml_losses.TripletMarginLoss(0.3, distance=plain()),
        lambda: pml_miners.TripletMarginMiner(0.3, "semihard", distance=plain()),
    ),
    "triplet hard": (
        losses.TripletLoss(0.3, mining="hard"),
        lambda: pml_losses.TripletMarginLoss(0.3, distance=plain()),
        lambda: pml_miners.BatchHardMiner(distance=plain()),
    ),
    "triplet easy positive": (
        losses.TripletLoss(0.3, mining="easy-positive"),
        lambda: pml_losses.TripletMarginLoss(0.3, distance=plain()),
        lambda: pml_miners.BatchEasyHardMiner(distance=plain()),
    ),
    "contrastive": (
        losses.ContrastiveLoss(4.0, 0.2),
        lambda: pml_losses.ContrastiveLoss(0.2, 4.0, distance=plain()),
        None,
    ),
    "contrastive, mean": (
        losses.ContrastiveLoss(4.0, 0.2, reduction="mean_valid"),
        lambda: pml_losses.ContrastiveLoss(0.2, 4.0, distance=plain(), reducer=BothMeans()),
        None,
    ),
    "NT-Xent": (losses.NTXentLoss(0.3), lambda: pml_losses.NTXentLoss(0.3), None),
    "NT-Xent, Euclidean": (
        losses.NTXentLoss(0.3, "euclidean"),
        lambda: pml_losses.NTXentLoss(0.3, distance=plain()),
        None,
    ),
    "SupCon": (losses.SupConLoss(0.3), lambda: pml_losses.SupConLoss(0.3), None),
    "lifted": (
        losses.LiftedStructureLoss(1.3, 0.1),
        lambda: pml_losses.LiftedStructureLoss(1.3, 0.1, distance=plain()),
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("extra", range(3))
def test_value_and_gradient(case, extra):
    ours, make, make_miner = CASES[case]
    compare(ours, make(), *batch(extra), miner=make_miner and make_miner())


# With a reference set the peer's swap and lifted structure look up anchors by a reference's number.
@pytest.mark.parametrize("case", [case for case in CASES if case not in ("triplet swap", "lifted")])
def test_value_and_gradient_against_references(case):
    ours, make, make_miner = CASES[case]
    compare(ours, make(), *batch(0), references=batch(4), miner=make_miner and make_miner())


@pytest.mark.parametrize("extra", range(3))
@pytest.mark.parametrize("strategy", ["hard", "easy-positive"])
def test_the_choice(strategy, extra):
    x, y = batch(extra)
    theirs = {
        "hard": pml_miners.BatchHardMiner(distance=plain()),
        "easy-positive": pml_miners.BatchEasyHardMiner(distance=plain()),
    }[strategy](torch.tensor(x), torch.tensor(y))
    anchors, positives, negatives = theirs if len(theirs) == 3 else (*theirs[:2], theirs[3])
    expected = {(int(a), int(p), int(n)) for a, p, n in zip(anchors, positives, negatives)}
    negative, weight = (np.asarray(m) for m in TripletMiner(strategy)(x, y))
    assert {(i, j, int(negative[i, j])) for i, j in zip(*np.nonzero(weight))} == expected, SEED


@pytest.mark.parametrize(
    ("metric", "theirs"),
    [
        ("euclidean", plain()),
        ("squared_euclidean", plain(2)),
        ("cosine", pml_distances.CosineSimilarity()),
        ("dot", pml_distances.DotProductSimilarity(normalize_embeddings=False)),
        ("snr", pml_distances.SNRDistance(normalize_embeddings=False)),
    ],
)
def test_distances(metric, theirs):
    x, _ = batch(9)
    expected = theirs(torch.tensor(x), torch.tensor(x[:7])).numpy()
    if metric == "cosine":
        expected = 1 - expected
    elif metric == "dot":
        expected = -expected
    np.testing.assert_allclose(
        distances.pairwise(x, x[:7], metric=metric), expected, rtol=1e-4, atol=5e-3
    )
