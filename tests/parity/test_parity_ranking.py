"""Losses on the order of a list, live beside pytorch-metric-learning on fresh random batches."""

import numpy as np
import pytest
from peers import batch, compare, torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners

from keras_metric import distances, losses

pytestmark = [
    pytest.mark.parity,
    # The peer's histogram loss indexes a matrix by a list.
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning"),
]


def angular(alpha=40):
    """The peer's angular loss, with the negatives scaled to length 1 as well: it forgets them."""
    peer, unit = pml_losses.AngularLoss(alpha), torch.nn.functional.normalize

    def run(x, y, chosen, ref_emb=None, **labels):
        others = {} if ref_emb is None else {"ref_emb": unit(ref_emb), **labels}
        return peer(unit(x), y, chosen, **others)

    return run


def of_unit_vectors(loss):
    """Ours takes vectors as they come; the peer's scales them to length 1 inside."""
    return lambda y, x: loss(y, distances.unit(x))


CASES = {
    "angular": (losses.AngularLoss(), angular),
    "angular, wide": (losses.AngularLoss(65), lambda: angular(65)),
    "FastAP": (of_unit_vectors(losses.FastAPLoss()), pml_losses.FastAPLoss),
    "FastAP, 23 bins": (of_unit_vectors(losses.FastAPLoss(23)), lambda: pml_losses.FastAPLoss(23)),
    "FastAP, Euclidean": (
        of_unit_vectors(losses.FastAPLoss(distance="euclidean")),
        lambda: pml_losses.FastAPLoss(distance=pml_distances.LpDistance()),
    ),
    "histogram": (losses.HistogramLoss(), pml_losses.HistogramLoss),
    "histogram, 8 bins": (losses.HistogramLoss(8), lambda: pml_losses.HistogramLoss(8)),
    "PNP": (losses.PNPLoss(), pml_losses.PNPLoss),
    **{
        f"PNP {variant}": (
            losses.PNPLoss(temperature=0.05, variant=variant, **read),
            lambda variant=variant: pml_losses.PNPLoss(3, 4, 0.05, variant),
        )
        for variant, read in {
            "O": {},
            "Ds": {},
            "Dq": {"exponent": 4},
            "Iu": {},
            "Ib": {"saturation": 3},
        }.items()
    },
    "tuplet margin": (losses.TupletMarginLoss(), pml_losses.TupletMarginLoss),
    "tuplet margin, wide": (
        losses.TupletMarginLoss(20, 8),
        lambda: pml_losses.TupletMarginLoss(20, 8),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("extra", range(2))
def test_value_and_gradient(case, extra):
    ours, make = CASES[case]
    compare(ours, make(), *batch(extra))


# The peer's other losses take no reference set.
@pytest.mark.parametrize("case", [name for name in CASES if name.startswith(("angular", "tuplet"))])
def test_value_and_gradient_against_references(case):
    ours, make = CASES[case]
    compare(ours, make(), *batch(0), references=batch(4))


# Elsewhere the peer makes weights of the anchors from the pairs that a miner chooses; its angular
# loss takes all negatives, whatever the miner says.
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
