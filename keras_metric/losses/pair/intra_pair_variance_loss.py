"""Intra-pair variance loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import masked_terms


def intra_pair_variance_rows(distance, pairs, pos_eps, neg_eps):
    """Rows over the positive pairs, and rows over the negative ones."""
    cosine = 1 - distance
    near = (1 - pos_eps) * _mean(cosine, pairs.positive) - cosine
    far = cosine - (1 + neg_eps) * _mean(cosine, pairs.negative)
    return [
        masked_terms(ops.square(ops.relu(near)), pairs.positive),
        masked_terms(ops.square(ops.relu(far)), pairs.negative),
    ]


def _mean(values, mask):
    count = ops.sum(ops.cast(mask, values.dtype))
    return ops.sum(ops.where(mask, values, 0)) / ops.maximum(count, 1)


@export
class IntraPairVarianceLoss(PairLoss):
    """Intra-pair variance: keeps the cosines of positive and of negative pairs near their mean.

    Add it to another loss with `WeightedSum`, as the paper does with `TupletMarginLoss`: it reduces
    the influence of a few hard pairs. It has no gradient that separates classes, so do not use it
    independently. For a labelled batch, or several views of each item.

        positive pair: max((1 - pos_eps) * M_p - cos, 0)**2
        negative pair: max(cos - (1 + neg_eps) * M_n, 0)**2

    with M_p and M_n the mean cosines of all positive and all negative pairs. The mean over the
    positive pairs and the mean over the negative pairs are added.

    Args:
        pos_eps: fraction of M_p by which a positive pair may be below it. Default 0.01.
        neg_eps: fraction of M_n by which a negative pair may be above it. Default 0.01.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over all pairs of a kind.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> from keras_metric import losses
    >>> points = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 1.0]], "float32")
    >>> loss = losses.IntraPairVarianceLoss()
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.097
    >>> both = losses.WeightedSum([(1, losses.TripletLoss()), (0.5, loss)])

    Reference:
        Yu and Tao, "Deep Metric Learning With Tuplet Margin Loss", 2019,
        https://doi.org/10.1109/ICCV.2019.00659
    """

    # The means are over all pairs of the batch.
    rows_depend_on = "batch"

    def __init__(
        self,
        pos_eps=0.01,
        neg_eps=0.01,
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="intra_pair_variance_loss",
        dtype=None,
    ):
        super().__init__("cosine", mining, labels, reduction, name, dtype, memory)
        self.pos_eps = check_number("pos_eps", pos_eps)
        self.neg_eps = check_number("neg_eps", neg_eps)

    def pair_parts(self, distance, pairs):
        return intra_pair_variance_rows(distance, pairs, self.pos_eps, self.neg_eps)
