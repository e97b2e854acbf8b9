"""Threshold-consistent margin loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import masked_terms


@export
class ThresholdConsistentMarginLoss(PairLoss):
    """Threshold-consistent margin: one cosine threshold for all classes, for verification.

    Add it to another loss with `WeightedSum`, where one threshold will be applied to all classes
    (same person or not). Only pairs on the wrong side of a margin have a loss: positive pairs with
    cosines below `margin_plus` and negative pairs above `margin_minus`. For a labelled
    batch, or several views of each item.

        positive pair: lambda_plus * max(margin_plus - cos, 0)
        negative pair: lambda_minus * max(cos - margin_minus, 0)

    The mean over the positive terms greater than zero and that over the negative ones are added.

    Args:
        lambda_plus: weight of the positive pairs, at least 0. Default 1.
        lambda_minus: weight of the negative pairs, at least 0. Default 1.
        margin_plus: cosine above which a positive pair has no loss. Default 0.9.
        margin_minus: cosine below which a negative pair has no loss. Default 0.5.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_active", the mean over the terms of a kind that are greater than
            zero, as in the paper.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a negative weight, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> from keras_metric import losses
    >>> points = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 1.0]], "float32")
    >>> loss = losses.ThresholdConsistentMarginLoss()
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.6
    >>> both = losses.WeightedSum([(1, losses.TripletLoss()), (1, loss)])

    Reference:
        Zhang et al., "Threshold-Consistent Margin Loss for Open-World Deep Metric Learning",
        2024, https://arxiv.org/abs/2307.04047
    """

    def __init__(
        self,
        lambda_plus=1.0,
        lambda_minus=1.0,
        margin_plus=0.9,
        margin_minus=0.5,
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_active",
        name="threshold_consistent_margin_loss",
        dtype=None,
    ):
        super().__init__("cosine", mining, labels, reduction, name, dtype, memory)
        self.lambda_plus = check_number("lambda_plus", lambda_plus, at_least=0)
        self.lambda_minus = check_number("lambda_minus", lambda_minus, at_least=0)
        self.margin_plus = check_number("margin_plus", margin_plus)
        self.margin_minus = check_number("margin_minus", margin_minus)

    def pair_parts(self, distance, pairs):
        cosine = 1 - distance
        near = self.lambda_plus * ops.relu(self.margin_plus - cosine)
        far = self.lambda_minus * ops.relu(cosine - self.margin_minus)
        return [masked_terms(near, pairs.positive), masked_terms(far, pairs.negative)]
