"""Live beside pytorch-metric-learning, on fresh random batches: losses of views and of pairs."""

import numpy as np
import pytest
from autodiff import value_and_gradient
from peers import SEED, TOLD, BothMeans, batch, compare, torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import regularizers as pml_regularizers

from keras_metric import losses
from keras_metric.layers import PairMiner

pytestmark = pytest.mark.parity


def snr():
    return pml_distances.SNRDistance(normalize_embeddings=False)


CASES = {
    "signal to noise": (
        losses.SignalToNoiseRatioLoss(2.0, 0.3),
        lambda: pml_losses.SignalToNoiseRatioContrastiveLoss(
            pos_margin=0.3, neg_margin=2.0, distance=snr()
        ),
        None,
    ),
    "signal to noise, mean": (
        losses.SignalToNoiseRatioLoss(2.0, 0.3, reduction="mean_valid"),
        lambda: pml_losses.SignalToNoiseRatioContrastiveLoss(
            pos_margin=0.3, neg_margin=2.0, distance=snr(), reducer=BothMeans()
        ),
        None,
    ),
    "signal to noise, mean of zero": (
        losses.SignalToNoiseRatioLoss(2.0, zero_mean_weight=0.01),
        lambda: pml_losses.SignalToNoiseRatioContrastiveLoss(
            neg_margin=2.0,
            distance=snr(),
            embedding_regularizer=pml_regularizers.ZeroMeanRegularizer(),
            embedding_reg_weight=0.01,
        ),
        None,
    ),
    "intra-pair variance": (
        losses.IntraPairVarianceLoss(0.1, 0.3),
        lambda: pml_losses.IntraPairVarianceLoss(0.1, 0.3),
        None,
    ),
    "intra-pair variance, mined": (
        losses.IntraPairVarianceLoss(0.1, 0.3, mining=PairMiner("multi-similarity", epsilon=0.1)),
        lambda: pml_losses.IntraPairVarianceLoss(0.1, 0.3),
        lambda: pml_miners.MultiSimilarityMiner(0.1),
    ),
    "threshold consistent": (
        losses.ThresholdConsistentMarginLoss(0.7, 1.3, 0.6, 0.1),
        lambda: pml_losses.ThresholdConsistentMarginLoss(0.7, 1.3, 0.6, 0.1),
        None,
    ),
    "threshold consistent, mined": (
        losses.ThresholdConsistentMarginLoss(mining=PairMiner("multi-similarity", epsilon=0.1)),
        lambda: pml_losses.ThresholdConsistentMarginLoss(),
        lambda: pml_miners.MultiSimilarityMiner(0.1),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("extra", range(3))
def test_value_and_gradient(case, extra):
    ours, make, make_miner = CASES[case]
    compare(ours, make(), *batch(extra), miner=make_miner and make_miner())


# The peer's threshold-consistent loss looks up references in the batch itself, so what it gives
# against them is no peer; tests/losses/test_losses_views.py has a loop.
@pytest.mark.parametrize("case", [case for case in CASES if "threshold" not in case])
def test_value_and_gradient_against_references(case):
    ours, make, make_miner = CASES[case]
    compare(ours, make(), *batch(5), references=batch(6), miner=make_miner and make_miner())


def two_views(extra, scale=1.0):
    x, _ = batch(extra)
    other = x + 0.5 * np.random.default_rng([SEED, extra, 1]).normal(size=x.shape)
    return scale * np.stack([x, other], axis=1).astype("float32")


def compare_views(ours, theirs, x, y=None):
    """`theirs` takes the two views as two tensors."""
    value, slope = value_and_gradient(lambda z: ours(y, z), x)
    first, second = (torch.tensor(x[:, i], requires_grad=True) for i in (0, 1))
    expected = theirs(first, second)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4, err_msg=TOLD)
    grad = np.stack([first.grad.numpy(), second.grad.numpy()], axis=1)
    np.testing.assert_allclose(slope, grad, rtol=1e-3, atol=1e-5 * abs(grad).max(), err_msg=TOLD)


@pytest.mark.parametrize("extra", range(3))
@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_vicreg(extra, scale):
    settings = (3.0, 11.0, 2.0, 1e-3)
    theirs = pml_losses.VICRegLoss(*settings)
    compare_views(
        losses.VICRegLoss(*settings),
        lambda a, b: theirs(a, ref_emb=b),
        two_views(extra, scale),
    )


@pytest.mark.parametrize("extra", range(3))
@pytest.mark.parametrize(
    ("ours", "make"),
    [
        (losses.NTXentLoss(0.3), lambda: pml_losses.NTXentLoss(0.3)),
        (losses.SupConLoss(0.3), lambda: pml_losses.SupConLoss(0.3)),
    ],
)
def test_views_without_labels(ours, make, extra):
    theirs = pml_losses.SelfSupervisedLoss(make(), symmetric=True)
    compare_views(ours, theirs, two_views(extra), np.arange(40))


@pytest.mark.parametrize("extra", range(3))
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_manifold(extra, weight):
    """The same proxies, and the same one of them for each item."""
    x, labels = batch(extra)
    meta = np.random.default_rng([SEED, extra, 2]).permutation(40) % 6
    theirs = pml_losses.ManifoldLoss(l=12, K=6, lambdaC=weight, alpha=0.7, margin=0.01)
    ours = losses.ManifoldLoss(
        12, 6, context_weight=weight, alpha=0.7, margin=0.01, meta_classes="labels"
    )
    ours.proxies.set_weights([theirs.proxies.detach().numpy()])
    value, slope = value_and_gradient(lambda z: ours(meta, z), x)
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor, indices_tuple=torch.tensor(meta))
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4, err_msg=TOLD)
    grad = tensor.grad.numpy()
    np.testing.assert_allclose(slope, grad, rtol=1e-3, atol=1e-5 * abs(grad).max(), err_msg=TOLD)
