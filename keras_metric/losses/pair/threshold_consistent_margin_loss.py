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
    cosines below `positive_margin` and negative pairs above `negative_margin`. For a labelled
    batch, or several views of each item.

        positive pair: positive_weight * max(positive_margin - cos, 0)
        negative pair: negative_weight * max(cos - negative_margin, 0)

    The mean over the positive terms greater than zero and that over the negative ones are added.

    Args:
        positive_weight: weight of the positive pairs, at least 0. Default 1.
        negative_weight: weight of the negative pairs, at least 0. Default 1.
        positive_margin: cosine above which a positive pair has no loss. Default 0.9.
        negative_margin: cosine below which a negative pair has no loss. Default 0.5.
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

    renamed_arguments = {
        "lambda_plus": "positive_weight",
        "lambda_minus": "negative_weight",
        "margin_plus": "positive_margin",
        "margin_minus": "negative_margin",
    }

    def __init__(
        self,
        positive_weight=1.0,
        negative_weight=1.0,
        positive_margin=0.9,
        negative_margin=0.5,
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_active",
        name="threshold_consistent_margin_loss",
        dtype=None,
    ):
        super().__init__("cosine", mining, labels, reduction, name, dtype, memory)
        self.positive_weight = check_number("positive_weight", positive_weight, at_least=0)
        self.negative_weight = check_number("negative_weight", negative_weight, at_least=0)
        self.positive_margin = check_number("positive_margin", positive_margin)
        self.negative_margin = check_number("negative_margin", negative_margin)

    def pair_parts(self, distance, pairs):
        cosine = 1 - distance
        near = self.positive_weight * ops.relu(self.positive_margin - cosine)
        far = self.negative_weight * ops.relu(cosine - self.negative_margin)
        return [masked_terms(near, pairs.positive), masked_terms(far, pairs.negative)]
