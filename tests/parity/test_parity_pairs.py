"""Losses on pairs live beside pytorch-metric-learning, on fresh random batches."""

import numpy as np
import pytest
from autodiff import value_and_gradient
from peers import TOLD, batch, compare, mean, plain, torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import regularizers as pml_regularizers

from keras_metric import losses
from keras_metric.layers import PairMiner

pytestmark = pytest.mark.parity


def plain_dot():
    return pml_distances.DotProductSimilarity(normalize_embeddings=False)


CASES = {
    "generalized lifted": (
        losses.GeneralizedLiftedStructureLoss(1.3, 0.1),
        lambda: pml_losses.GeneralizedLiftedStructureLoss(1.3, 0.1, distance=plain()),
    ),
    "generalized lifted, cosine": (
        # Some rows are 0. In a similarity the margins of the peer are similarities too.
        losses.GeneralizedLiftedStructureLoss(-0.5, 0.4, "cosine"),
        lambda: pml_losses.GeneralizedLiftedStructureLoss(
            1.5, 0.6, distance=pml_distances.CosineSimilarity()
        ),
    ),
    "multi-similarity": (
        losses.MultiSimilarityLoss(),
        pml_losses.MultiSimilarityLoss,
    ),
    "multi-similarity, Euclidean": (
        losses.MultiSimilarityLoss(1.5, 6, -4.0, "euclidean"),
        lambda: pml_losses.MultiSimilarityLoss(1.5, 6, 4.0, distance=plain()),
    ),
    "circle": (losses.CircleLoss(), pml_losses.CircleLoss),
    "circle, faces": (losses.CircleLoss(0.25, 256), lambda: pml_losses.CircleLoss(0.25, 256)),
    "NCA": (
        losses.NCALoss(0.2),
        lambda: pml_losses.NCALoss(0.2, distance=plain(2)),
    ),
    "NCA, cosine": (
        losses.NCALoss(7.0, "cosine"),
        lambda: pml_losses.NCALoss(7.0, distance=pml_distances.CosineSimilarity()),
    ),
    "margin": (
        losses.MarginLoss(beta=4.5),
        lambda: pml_losses.MarginLoss(beta=4.5, distance=plain()),
    ),
    "margin, classes of beta": (
        losses.MarginLoss(0.3, 4.0),
        lambda: pml_losses.MarginLoss(0.3, 0.1, 4.0, num_classes=9, distance=plain()),
    ),
}
ALONE = {
    "ranked list": (
        losses.RankedListLoss(0.4, 3, 0.3, 4.5, 0.5),
        lambda: pml_losses.RankedListLoss(0.4, 3, 0.3, 4.5, 0.5, distance=plain()),
    ),
    "ranked list, its own radius": (
        losses.RankedListLoss(6.0, 2),
        lambda: pml_losses.RankedListLoss(6.0, 2, distance=plain()),
    ),
    "N-pairs": (losses.NPairsLoss(), lambda: pml_losses.NPairsLoss(distance=plain_dot())),
    "N-pairs, Euclidean": (
        losses.NPairsLoss(distance="euclidean"),
        lambda: pml_losses.NPairsLoss(distance=plain()),
    ),
}


@pytest.mark.parametrize("case", [*CASES, *ALONE])
@pytest.mark.parametrize("extra", range(3))
def test_value_and_gradient(case, extra):
    ours, make = {**CASES, **ALONE}[case]
    compare(ours, make(), *batch(extra))


# The peer's ranked list, N-pairs and instance losses take no references.
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_against_references(case):
    ours, make = CASES[case]
    compare(ours, make(), *batch(0), references=batch(4))


@pytest.mark.parametrize("extra", range(3))
def test_other_settings(extra):
    rng = np.random.default_rng(extra)
    margin, beta, imbalance = rng.uniform(0.1, 1), rng.uniform(3, 6), rng.uniform()
    x, y = batch(10 + extra)
    compare(
        losses.MarginLoss(margin, beta=beta),
        pml_losses.MarginLoss(margin, beta=beta, distance=plain()),
        x,
        y,
    )
    compare(
        losses.RankedListLoss(margin, 1.0, imbalance, beta, 0.7),
        pml_losses.RankedListLoss(margin, 1.0, imbalance, beta, 0.7, distance=plain()),
        x,
        y,
    )


WITH_MINERS = {
    "generalized lifted": (
        losses.GeneralizedLiftedStructureLoss,
        pml_losses.GeneralizedLiftedStructureLoss,
        "euclidean",
    ),
    "multi-similarity": (losses.MultiSimilarityLoss, pml_losses.MultiSimilarityLoss, "cosine"),
    "circle": (losses.CircleLoss, pml_losses.CircleLoss, "cosine"),
    "margin": (losses.MarginLoss, pml_losses.MarginLoss, "euclidean"),
}


@pytest.mark.parametrize("case", WITH_MINERS)
@pytest.mark.parametrize("extra", range(3))
def test_with_the_multi_similarity_miner(case, extra):
    ours, theirs, metric = WITH_MINERS[case]
    # As the peer does, rows that a miner leaves nothing of stay in the mean of the first two.
    distance = plain() if metric == "euclidean" else pml_distances.CosineSimilarity()
    compare(
        ours(mining=PairMiner("multi-similarity", epsilon=0.1)),
        theirs(distance=distance),
        *batch(extra),
        miner=pml_miners.MultiSimilarityMiner(0.1, distance=distance),
    )


@pytest.mark.parametrize(
    ("strategy", "miner"),
    [
        ("hard", lambda: pml_miners.BatchHardMiner(distance=plain())),
        ("easy-positive", lambda: pml_miners.BatchEasyHardMiner(distance=plain())),
        ("semi-hard-all", lambda: pml_miners.TripletMarginMiner(0.2, "semihard", distance=plain())),
    ],
)
@pytest.mark.parametrize("extra", range(3))
def test_margin_loss_with_triplet_miners(strategy, miner, extra):
    compare(
        losses.MarginLoss(0.5, beta=4.0, mining=strategy),
        pml_losses.MarginLoss(0.5, beta=4.0, distance=plain()),
        *batch(extra),
        miner=miner(),
    )


def test_n_pairs_of_unit_vectors_and_squared_lengths():
    """The peer's default, with its regulariser: it takes the lengths of the whole batch."""
    x, y = batch(5)
    pairs = [np.flatnonzero(y == label)[:2] for label in np.unique(y) if (y == label).sum() > 1]
    lengths = np.mean([(x[a] ** 2).sum() + (x[p] ** 2).sum() for a, p in pairs])
    everything = pml_losses.NPairsLoss(
        distance=plain_dot(), embedding_regularizer=pml_regularizers.LpRegularizer(power=2)
    )(torch.tensor(x), torch.tensor(y)).item()
    entropy = everything - (x**2).sum(1).mean()
    ours = float(losses.NPairsLoss(l2=0.4)(y, x))
    np.testing.assert_allclose(ours, entropy + 0.1 * lengths, rtol=1e-4, err_msg=TOLD)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    theirs = pml_losses.NPairsLoss()(torch.tensor(x), torch.tensor(y)).item()
    np.testing.assert_allclose(losses.NPairsLoss()(y, unit), theirs, rtol=1e-4, err_msg=TOLD)


def test_instance_loss_where_every_item_has_its_own_column():
    """With other labels the peer takes a column of another class in general."""
    x, _ = batch(6)
    compare(losses.InstanceLoss(8), pml_losses.InstanceLoss(8), x, np.arange(len(x)))


def test_instance_loss_of_the_batch_by_hand():
    """The labels of a batch: each item of the class is as right as the other."""
    x, y = batch(7)
    cosines = torch.nn.functional.cosine_similarity
    tensor = torch.tensor(x, requires_grad=True)
    s = 8 * cosines(tensor[:, None], tensor[None], dim=-1)
    same = torch.tensor(y[:, None] == y[None]).float()
    expected = torch.nn.functional.cross_entropy(s, same / same.sum(1, keepdim=True))
    expected.backward()
    value, slope = value_and_gradient(lambda z: losses.InstanceLoss(8)(y, z), x)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4, err_msg=TOLD)
    np.testing.assert_allclose(slope, tensor.grad, rtol=1e-3, atol=1e-5, err_msg=TOLD)


def test_the_mean_of_all_terms_of_the_margin_loss():
    """A triplet is one term of the peer and two of ours."""
    x, y = batch(8)
    ours = losses.MarginLoss(beta=4.5, reduction="mean_valid")
    theirs = pml_losses.MarginLoss(beta=4.5, distance=plain(), reducer=mean())
    compare(lambda labels, z: 2 * ours(labels, z), theirs, x, y)
