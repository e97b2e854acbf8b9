"""Losses on the order of a list, live beside pytorch-metric-learning on fresh random batches."""

import numpy as np
import pytest
from parity import SEED, TOLD, batch, compare, torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners

from keras_metric import losses

pytestmark = pytest.mark.parity


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# Of the losses that take vectors as they come the peer normalises inside, so that both see unit
# vectors only where these go in.
CASES = {
    "FastAP": (losses.FastAPLoss(), pml_losses.FastAPLoss),
    "FastAP, 23 bins": (losses.FastAPLoss(23), lambda: pml_losses.FastAPLoss(23)),
    "FastAP, Euclidean": (
        losses.FastAPLoss(distance="euclidean"),
        lambda: pml_losses.FastAPLoss(distance=pml_distances.LpDistance()),
    ),
    "tuplet margin": (losses.TupletMarginLoss(), pml_losses.TupletMarginLoss),
    "tuplet margin, wide": (
        losses.TupletMarginLoss(20, 8),
        lambda: pml_losses.TupletMarginLoss(20, 8),
    ),
    **{
        f"PNP {variant}": (
            losses.PNPLoss(b=3, alpha=4, anneal=0.05, variant=variant),
            lambda variant=variant: pml_losses.PNPLoss(3, 4, 0.05, variant),
        )
        for variant in ("O", "Ds", "Dq", "Iu", "Ib")
    },
    "PNP": (losses.PNPLoss(), pml_losses.PNPLoss),
}
