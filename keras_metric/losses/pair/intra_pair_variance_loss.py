"""IntraPairVarianceLoss: all positive pairs about equally alike, all negative ones too."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import masked_terms


def intra_pair_variance_rows(distance, partners, positive_epsilon, negative_epsilon):
    """Rows over the positive pairs, and rows over the negative ones."""
    cosine = 1 - distance
    pull = (1 - positive_epsilon) * _mean(cosine, partners.positive) - cosine
    push = cosine - (1 + negative_epsilon) * _mean(cosine, partners.negative)
    return [
        masked_terms(ops.square(ops.relu(pull)), partners.positive),
        masked_terms(ops.square(ops.relu(push)), partners.negative),
    ]


def _mean(values, mask):
    count = ops.sum(ops.cast(mask, values.dtype))
    return ops.sum(ops.where(mask, values, 0)) / ops.maximum(count, 1)


@export
class IntraPairVarianceLoss(PairLoss):
    """Keeps the cosines of positive pairs close to their mean, and those of negative pairs too.

    An addition to another loss, which keeps it from bending everything to a few hard pairs; by
    itself it teaches nothing of near and far. Add it to `TupletMarginLoss`, as the paper does,
    by `WeightedSum`. For a labelled batch, or several views of each item.

        positive pair: max((1 - positive_epsilon) * M_p - cos, 0)**2,   M_p the mean over all of them
        negative pair: max(cos - (1 + negative_epsilon) * M_n, 0)**2,   M_n the mean over all of them

    The mean over the positive pairs and the mean over the negative pairs are added.

    Args:
        positive_epsilon: share of the mean by which a positive pair may stay below it. Default 0.01.
        negative_epsilon: share of the mean by which a negative pair may exceed it. Default 0.01.
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: default "mean_valid": the mean over all pairs of a kind.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name or labels of another kind.

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

    renamed_arguments = {"pos_eps": "positive_epsilon", "neg_eps": "negative_epsilon"}
    # A pair is measured against the mean of all pairs of the batch.
    rows_depend_on = "batch"

    def __init__(
        self,
        positive_epsilon=0.01,
        negative_epsilon=0.01,
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="intra_pair_variance_loss",
        dtype=None,
    ):
        super().__init__("cosine", mining, labels, reduction, name, dtype, memory)
        check_number("positive_epsilon", positive_epsilon)
        check_number("negative_epsilon", negative_epsilon)
        self.positive_epsilon = positive_epsilon
        self.negative_epsilon = negative_epsilon

    def pair_parts(self, distance, partners):
        return intra_pair_variance_rows(
            distance, partners, self.positive_epsilon, self.negative_epsilon
        )
