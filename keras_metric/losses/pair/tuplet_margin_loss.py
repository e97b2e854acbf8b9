"""Tuplet margin loss."""

import math

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import masked_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE

# Cosines beyond this get no gradient: the derivative of the angle is infinite at 1.
_MAX_COSINE = 1 - 1e-7


def tuplet_margin_rows(distance, pairs, margin, scale):
    """Rows over the positive pairs; `distance` is 1 - cosine, `margin` in radians."""
    negative = ops.where(pairs.negative, scale * (1 - distance), -MASKED_DISTANCE)
    others = ops.logsumexp(negative, axis=1, keepdims=True)
    cosine = ops.clip(1 - distance, -_MAX_COSINE, _MAX_COSINE)
    sine = ops.sqrt(1 - ops.square(cosine))
    eased = math.cos(margin) * cosine + math.sin(margin) * sine
    return masked_terms(ops.softplus(others - scale * eased), pairs.positive)


@export
class TupletMarginLoss(PairLoss):
    """Tuplet margin: softmax of each positive pair among the negatives, with an angular slack.

    Use it instead of `NTXentLoss` where classes have internal variation: the angle of a positive
    pair is reduced by a margin, so that a class is not compressed to a point.

        loss = mean over (a, p) of log(1 + sum_n exp(scale * (cos t_an - cos(t_ap - margin))))

    with t the angle of two embeddings and n over the negatives of a.

    Args:
        margin: angle in degrees subtracted from that of a positive pair. Default 5.73 (0.1
            radians), as in pytorch-metric-learning.
        scale: above 0; a higher scale weights the nearest negatives more. Default 64, as in the
            paper.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over all positive pairs.
        name: name of the loss.
        dtype: dtype of the result; angles are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a scale of 0 or less, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]], "float32")
    >>> loss = keras_metric.losses.TupletMarginLoss()
    >>> round(float(loss(np.array([0, 1, 0, 1]), points)), 3)
    13.0

    Reference:
        Yu and Tao, "Deep Metric Learning with Tuplet Margin Loss", 2019,
        https://doi.org/10.1109/ICCV.2019.00659
    """

    def __init__(
        self,
        margin=5.73,
        scale=64,
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="tuplet_margin_loss",
        dtype=None,
    ):
        super().__init__("cosine", mining, labels, reduction, name, dtype, memory)
        self.margin = check_number("margin", margin)
        self.scale = check_number("scale", scale, above=0)

    def pair_parts(self, distance, pairs):
        margin = math.radians(self.margin)
        return [tuplet_margin_rows(distance, pairs, margin, self.scale)]
