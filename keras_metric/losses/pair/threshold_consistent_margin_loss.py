"""ThresholdConsistentMarginLoss: one threshold for all classes tells same from different."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.reductions import masked_terms


@export
class ThresholdConsistentMarginLoss(PairLoss):
    """Holds the cosines of positive pairs above one number, those of negative pairs below another.

    An addition to another loss, by `WeightedSum`, where the encoder will be used with one
    threshold for all classes (same person or not): only the pairs on the wrong side of the two
    numbers count. For a labelled batch, or several views of each item.

        positive pair: lambda_plus * max(margin_plus - cos, 0)
        negative pair: lambda_minus * max(cos - margin_minus, 0)

    The mean over the positive terms greater than zero and that over the negative ones are added.

    Args:
        lambda_plus: weight of the positive pairs, at least 0. Default 1.
        lambda_minus: weight of the negative pairs, at least 0. Default 1.
        margin_plus: cosine beyond which a positive pair is left alone. Default 0.9.
        margin_minus: cosine below which a negative pair is left alone. Default 0.5.
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
        check_number("lambda_plus", lambda_plus, at_least=0)
        check_number("lambda_minus", lambda_minus, at_least=0)
        check_number("margin_plus", margin_plus)
        check_number("margin_minus", margin_minus)
        self.lambda_plus = lambda_plus
        self.lambda_minus = lambda_minus
        self.margin_plus = margin_plus
        self.margin_minus = margin_minus

    def pair_parts(self, distance, partners):
        cosine = 1 - distance
        pull = self.lambda_plus * ops.relu(self.margin_plus - cosine)
        push = self.lambda_minus * ops.relu(cosine - self.margin_minus)
        return [masked_terms(pull, partners.positive), masked_terms(push, partners.negative)]
