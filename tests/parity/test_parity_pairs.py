"""Losses compared with pytorch-metric-learning on random batches: value and gradient."""

import numpy as np
import pytest
from autodiff import value_and_gradient
from peers import SEED, SEED_HINT, BothMeans, batch, compare, mean, plain, torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import regularizers as pml_regularizers

from keras_metric import distances, losses
from keras_metric.layers import PairMiner

pytestmark = [
    pytest.mark.parity,
    # The histogram loss of the peer indexes a matrix with a list.
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning"),
]


def plain_dot():
    return pml_distances.DotProductSimilarity(normalize_embeddings=False)


def snr(**settings):
    distance = pml_distances.SNRDistance(normalize_embeddings=False)
    return pml_losses.SignalToNoiseRatioContrastiveLoss(distance=distance, **settings)


def triplet(distance=None, **settings):
    return lambda: pml_losses.TripletMarginLoss(0.3, distance=distance or plain(), **settings)


def angular(alpha=40):
    """The angular loss of the peer, with the negatives normalised too, which it omits."""
    peer, unit = pml_losses.AngularLoss(alpha), torch.nn.functional.normalize

    def run(x, y, chosen, ref_emb=None, **labels):
        others = {} if ref_emb is None else {"ref_emb": unit(ref_emb), **labels}
        return peer(unit(x), y, chosen, **others)

    return run


def of_unit_vectors(loss):
    """The peer normalises inside the loss; ours does not."""
    return lambda y, x: loss(y, distances.unit(x))


def both(name, *arguments, distance=None, **settings):
    """Our loss, and the constructor of the loss of the same name and arguments of the peer."""

    def make():
        peer = {} if distance is None else {"distance": distance()}
        return getattr(pml_losses, name)(*arguments, **settings, **peer)

    return getattr(losses, name)(*arguments, **settings), make


# Name: (our loss, the constructor of the peer, and the constructor of a miner of the peer, if any).
CASES = {
    "generalized lifted": both("GeneralizedLiftedStructureLoss", 1.3, 0.1, distance=plain),
    "generalized lifted, cosine": (
        # Some rows are 0. With a similarity the margins of the peer are similarities too.
        losses.GeneralizedLiftedStructureLoss(-0.5, 0.4, "cosine"),
        lambda: pml_losses.GeneralizedLiftedStructureLoss(
            1.5, 0.6, distance=pml_distances.CosineSimilarity()
        ),
    ),
    "multi-similarity": (losses.MultiSimilarityLoss(), pml_losses.MultiSimilarityLoss),
    "multi-similarity, Euclidean": (
        losses.MultiSimilarityLoss(1.5, 6, -4.0, "euclidean"),
        lambda: pml_losses.MultiSimilarityLoss(1.5, 6, 4.0, distance=plain()),
    ),
    "circle": (losses.CircleLoss(), pml_losses.CircleLoss),
    "circle, faces": both("CircleLoss", 0.25, 256),
    "NCA": (losses.NCALoss(0.2), lambda: pml_losses.NCALoss(0.2, distance=plain(2))),
    "NCA, cosine": (
        losses.NCALoss(7.0, "cosine"),
        lambda: pml_losses.NCALoss(7.0, distance=pml_distances.CosineSimilarity()),
    ),
    "margin": both("MarginLoss", beta=4.5, distance=plain),
    "margin, classes of beta": (
        losses.MarginLoss(0.3, 4.0),
        lambda: pml_losses.MarginLoss(0.3, 0.1, 4.0, num_classes=9, distance=plain()),
    ),
    "angular": (losses.AngularLoss(), angular),
    "angular, wide": (losses.AngularLoss(65), lambda: angular(65)),
    "tuplet margin": (losses.TupletMarginLoss(), pml_losses.TupletMarginLoss),
    "tuplet margin, wide": both("TupletMarginLoss", 20, 8),
    "signal to noise": (
        losses.SignalToNoiseRatioLoss(2.0, 0.3),
        lambda: snr(pos_margin=0.3, neg_margin=2.0),
    ),
    "signal to noise, mean": (
        losses.SignalToNoiseRatioLoss(2.0, 0.3, reduction="mean_valid"),
        lambda: snr(pos_margin=0.3, neg_margin=2.0, reducer=BothMeans()),
    ),
    "signal to noise, mean of zero": (
        losses.SignalToNoiseRatioLoss(2.0, zero_mean_weight=0.01),
        lambda: snr(
            neg_margin=2.0,
            embedding_regularizer=pml_regularizers.ZeroMeanRegularizer(),
            embedding_reg_weight=0.01,
        ),
    ),
    "intra-pair variance": both("IntraPairVarianceLoss", 0.1, 0.3),
    "intra-pair variance, mined": (
        losses.IntraPairVarianceLoss(0.1, 0.3, mining=PairMiner("multi-similarity", epsilon=0.1)),
        lambda: pml_losses.IntraPairVarianceLoss(0.1, 0.3),
        lambda: pml_miners.MultiSimilarityMiner(0.1),
    ),
    "triplet all": (losses.TripletLoss(0.3, mining="all"), triplet()),
    "triplet all, mean": (
        losses.TripletLoss(0.3, mining="all", reduction="mean_valid"),
        triplet(reducer=mean()),
    ),
    "triplet squared": (losses.TripletLoss(0.3, "squared_euclidean", "all"), triplet(plain(2))),
    "triplet cosine": (
        losses.TripletLoss(0.3, "cosine", "all"),
        triplet(pml_distances.CosineSimilarity()),
    ),
    "triplet soft margin": (
        losses.TripletLoss(0.3, mining="all", form="soft_margin"),
        triplet(smooth_loss=True),
    ),
    "contrastive": (
        losses.ContrastiveLoss(4.0, 0.2),
        lambda: pml_losses.ContrastiveLoss(0.2, 4.0, distance=plain()),
    ),
    "contrastive, mean": (
        losses.ContrastiveLoss(4.0, 0.2, reduction="mean_valid"),
        lambda: pml_losses.ContrastiveLoss(0.2, 4.0, distance=plain(), reducer=BothMeans()),
    ),
    "NT-Xent": both("NTXentLoss", 0.3),
    "NT-Xent, Euclidean": (
        losses.NTXentLoss(0.3, "euclidean"),
        lambda: pml_losses.NTXentLoss(0.3, distance=plain()),
    ),
    "SupCon": both("SupConLoss", 0.3),
}
# The peer takes no references for these, or reads them in the batch itself: threshold-consistent,
# swapped triplets, lifted structure.
ALONE = {
    "triplet swap": (losses.TripletLoss(0.3, mining="all", swap=True), triplet(swap=True)),
    "lifted": both("LiftedStructureLoss", 1.3, 0.1, distance=plain),
    "threshold consistent": both("ThresholdConsistentMarginLoss", 0.7, 1.3, 0.6, 0.1),
    "threshold consistent, mined": (
        losses.ThresholdConsistentMarginLoss(mining=PairMiner("multi-similarity", epsilon=0.1)),
        lambda: pml_losses.ThresholdConsistentMarginLoss(),
        lambda: pml_miners.MultiSimilarityMiner(0.1),
    ),
    "FastAP": (of_unit_vectors(losses.FastAPLoss()), pml_losses.FastAPLoss),
    "FastAP, 23 bins": (of_unit_vectors(losses.FastAPLoss(23)), lambda: pml_losses.FastAPLoss(23)),
    "FastAP, Euclidean": (
        of_unit_vectors(losses.FastAPLoss(distance="euclidean")),
        lambda: pml_losses.FastAPLoss(distance=pml_distances.LpDistance()),
    ),
    "histogram": (losses.HistogramLoss(), pml_losses.HistogramLoss),
    "histogram, 8 bins": both("HistogramLoss", 8),
    "PNP": (losses.PNPLoss(), pml_losses.PNPLoss),
    **{
        f"PNP {variant}": (
            losses.PNPLoss(anneal=0.05, variant=variant, **read),
            lambda variant=variant: pml_losses.PNPLoss(3, 4, 0.05, variant),
        )
        for variant, read in {
            "O": {},
            "Ds": {},
            "Dq": {"alpha": 4},
            "Iu": {},
            "Ib": {"saturation": 3},
        }.items()
    },
    "ranked list": both("RankedListLoss", 0.4, 3, 0.3, 4.5, 0.5, distance=plain),
    "ranked list, its own radius": both("RankedListLoss", 6.0, 2, distance=plain),
    "N-pairs": (losses.NPairsLoss(), lambda: pml_losses.NPairsLoss(distance=plain_dot())),
    "N-pairs, Euclidean": (
        losses.NPairsLoss(distance="euclidean"),
        lambda: pml_losses.NPairsLoss(distance=plain()),
    ),
}


@pytest.mark.parametrize("case", [*CASES, *ALONE])
@pytest.mark.parametrize("extra", range(3))
def test_value_and_gradient(case, extra):
    ours, make, *miner = {**CASES, **ALONE}[case]
    compare(ours, make(), *batch(extra), miner=miner[0]() if miner else None)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_against_references(case):
    ours, make, *miner = CASES[case]
    sets = {"references": batch(4), "miner": miner[0]() if miner else None}
    compare(ours, make(), *batch(0), **sets)


@pytest.mark.parametrize("extra", range(3))
def test_other_settings(extra):
    rng = np.random.default_rng(extra)
    margin, beta, imbalance = rng.uniform(0.1, 1), rng.uniform(3, 6), rng.uniform()
    for ours, make in (
        both("MarginLoss", margin, beta=beta, distance=plain),
        both("RankedListLoss", margin, 1.0, imbalance, beta, 0.7, distance=plain),
    ):
        compare(ours, make(), *batch(10 + extra))


# As in the peer, rows without mined pairs stay in the mean of the first two losses.
@pytest.mark.parametrize(
    ("name", "distance"),
    [
        ("GeneralizedLiftedStructureLoss", plain()),
        ("MultiSimilarityLoss", pml_distances.CosineSimilarity()),
        ("CircleLoss", pml_distances.CosineSimilarity()),
        ("MarginLoss", plain()),
    ],
)
@pytest.mark.parametrize("extra", range(3))
def test_with_the_multi_similarity_miner(name, distance, extra):
    compare(
        getattr(losses, name)(mining=PairMiner("multi-similarity", epsilon=0.1)),
        getattr(pml_losses, name)(distance=distance),
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


def test_n_pairs_of_unit_vectors_and_squared_norms():
    """The default of the peer, with its regularizer of the norms of the whole batch."""
    x, y = batch(5)
    pairs = [np.flatnonzero(y == label)[:2] for label in np.unique(y) if (y == label).sum() > 1]
    norms = np.mean([(x[a] ** 2).sum() + (x[p] ** 2).sum() for a, p in pairs])
    everything = pml_losses.NPairsLoss(
        distance=plain_dot(), embedding_regularizer=pml_regularizers.LpRegularizer(power=2)
    )(torch.tensor(x), torch.tensor(y)).item()
    entropy = everything - (x**2).sum(1).mean()
    ours = float(losses.NPairsLoss(l2=0.4)(y, x))
    np.testing.assert_allclose(ours, entropy + 0.1 * norms, rtol=1e-4, err_msg=SEED_HINT)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    theirs = pml_losses.NPairsLoss()(torch.tensor(x), torch.tensor(y)).item()
    np.testing.assert_allclose(losses.NPairsLoss()(y, unit), theirs, rtol=1e-4, err_msg=SEED_HINT)


def test_instance_loss_where_every_item_has_its_own_column():
    """For other labels the target column of the peer is in general of another class."""
    x, _ = batch(6)
    compare(losses.InstanceLoss(8), pml_losses.InstanceLoss(8), x, np.arange(len(x)))


def test_the_mean_of_all_terms_of_the_margin_loss():
    """A triplet is one term of the peer and two terms of ours."""
    x, y = batch(8)
    ours = losses.MarginLoss(beta=4.5, reduction="mean_valid")
    theirs = pml_losses.MarginLoss(beta=4.5, distance=plain(), reducer=mean())
    compare(lambda labels, z: 2 * ours(labels, z), theirs, x, y)


# In its other losses the peer weights the anchors by their mined pairs; its angular loss uses all
# negatives and ignores the miner.
@pytest.mark.parametrize(
    ("ours", "make"),
    [
        (losses.TupletMarginLoss(mining="multi-similarity"), pml_losses.TupletMarginLoss),
        (losses.HistogramLoss(mining="multi-similarity"), pml_losses.HistogramLoss),
    ],
)
@pytest.mark.parametrize("extra", range(2))
def test_value_and_gradient_of_mined_pairs(ours, make, extra):
    compare(ours, make(), *batch(extra), miner=pml_miners.MultiSimilarityMiner())


@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_smooth_ap_where_the_peer_is_right(temperature):
    # It takes the number of classes for the number of items in each: as many of both, in order.
    x, _ = batch(0, size=36)
    compare(
        losses.SmoothAPLoss(temperature),
        pml_losses.SmoothAPLoss(temperature),
        x,
        np.repeat(np.arange(6), 6),
    )


def two_views(extra, scale=1.0):
    x, _ = batch(extra)
    other = x + 0.5 * np.random.default_rng([SEED, extra, 1]).normal(size=x.shape)
    return scale * np.stack([x, other], axis=1).astype("float32")


def compare_views(ours, theirs, x, y=None):
    """Compare with `theirs(first, second)`, a loss of two tensors."""
    value, gradient = value_and_gradient(lambda z: ours(y, z), x)
    first, second = (torch.tensor(x[:, i], requires_grad=True) for i in (0, 1))
    expected = theirs(first, second)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4, err_msg=SEED_HINT)
    grad = np.stack([first.grad.numpy(), second.grad.numpy()], axis=1)
    np.testing.assert_allclose(
        gradient, grad, rtol=1e-3, atol=1e-5 * abs(grad).max(), err_msg=SEED_HINT
    )


@pytest.mark.parametrize("extra", range(3))
@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_vicreg(extra, scale):
    settings = (3.0, 11.0, 2.0, 1e-3)
    theirs = pml_losses.VICRegLoss(*settings)
    compare_views(
        losses.VICRegLoss(*settings), lambda a, b: theirs(a, ref_emb=b), two_views(extra, scale)
    )


@pytest.mark.parametrize("extra", range(3))
@pytest.mark.parametrize(("ours", "make"), [CASES["NT-Xent"], CASES["SupCon"]])
def test_views_without_labels(ours, make, extra):
    theirs = pml_losses.SelfSupervisedLoss(make(), symmetric=True)
    compare_views(ours, theirs, two_views(extra), np.arange(40))


@pytest.mark.parametrize("extra", range(3))
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_manifold(extra, weight):
    """Both losses have the same proxies and the same assignment of items."""
    x, _ = batch(extra)
    meta = np.random.default_rng([SEED, extra, 2]).permutation(40) % 6
    theirs = pml_losses.ManifoldLoss(l=12, K=6, lambdaC=weight, alpha=0.7, margin=0.01)
    ours = losses.ManifoldLoss(
        12, 6, context_weight=weight, alpha=0.7, margin=0.01, meta_classes="labels"
    )
    ours.proxies.set_weights([theirs.proxies.detach().numpy()])
    compare(ours, lambda x, y, _: theirs(x, indices_tuple=torch.tensor(meta)), x, meta)


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
