"""ThresholdConsistentMarginLoss: one threshold for all classes tells same from different."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import masked_terms


@export
class ThresholdConsistentMarginLoss(PairLoss):
    """Holds the cosines of positive pairs above one number, those of negative pairs below another.

    An addition to another loss, by `WeightedSum`, where the encoder will be used with one
    threshold for all classes (same person or not): only the pairs on the wrong side of the two
    numbers count. For a labelled batch, or several views of each item.

        positive pair: positive_weight * max(positive_margin - cos, 0)
        negative pair: negative_weight * max(cos - negative_margin, 0)

    The mean over the positive terms greater than zero and that over the negative ones are added.

    Args:
        positive_weight: weight of the positive pairs, at least 0. Default 1.
        negative_weight: weight of the negative pairs, at least 0. Default 1.
        positive_margin: cosine beyond which a positive pair is left alone. Default 0.9.
        negative_margin: cosine below which a negative pair is left alone. Default 0.5.
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: default "mean_active": the mean over the terms of a kind that are greater
            than zero.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a negative weight, or labels of another kind.

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
        check_number("positive_weight", positive_weight, at_least=0)
        check_number("negative_weight", negative_weight, at_least=0)
        check_number("positive_margin", positive_margin)
        check_number("negative_margin", negative_margin)
        self.positive_weight = positive_weight
        self.negative_weight = negative_weight
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin

    def pair_parts(self, distance, partners):
        cosine = 1 - distance
        pull = self.positive_weight * ops.relu(self.positive_margin - cosine)
        push = self.negative_weight * ops.relu(cosine - self.negative_margin)
        return [masked_terms(pull, partners.positive), masked_terms(push, partners.negative)]
