"""Ranked list loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import single_terms

# pytorch-metric-learning adds this to the sums of weights, for each item of a batch.
_EPSILON = 1e-5


def ranked_list_rows(distance, pairs, margin, negative_scale, imbalance, alpha, positive_scale):
    """One term per anchor: weighted mean violations of its positives and its negatives."""
    epsilon = _EPSILON * ops.cast(ops.shape(distance)[0], distance.dtype)
    near = _mean_violation(distance - (alpha - margin), pairs.positive, positive_scale, epsilon)
    far = _mean_violation(alpha - distance, pairs.negative, negative_scale, epsilon)
    either = pairs.num_positives + pairs.num_negatives > 0
    return single_terms((1 - imbalance) * near + imbalance * far, either)


def _mean_violation(violation, mask, scale, epsilon):
    """Mean of the positive violations of each row, weighted by exp(scale * violation)."""
    mask = ops.logical_and(mask, violation > 0)
    violation = ops.where(mask, violation, 0)
    if scale == 0:
        weight = ops.cast(mask, violation.dtype)
    else:
        # Only ratios of weights matter; dividing by the largest weight avoids an overflow.
        most = ops.stop_gradient(ops.max(violation, axis=1, keepdims=True))
        weight = ops.where(mask, ops.exp(scale * (violation - most)), 0)
        epsilon = epsilon * ops.exp(-scale * most[:, 0])
    return ops.sum(weight * violation, axis=1) / (ops.sum(weight, axis=1) + epsilon)


@export
class RankedListLoss(PairLoss):
    """Ranked list: positives within one radius of the anchor, negatives beyond a larger one.

    Use it to preserve the structure within a class: positives inside the inner radius have no loss,
    so they are not pulled to a point. Pairs that satisfy their bound are left out, so no miner is
    needed.

        loss = mean over a of (1 - imbalance) * sum_p w_p * (d_ap - (alpha - margin)) / sum_p w_p
                              + imbalance * sum_n w_n * (alpha - d_an) / sum_n w_n
        w_p  = exp(positive_scale * (d_ap - (alpha - margin)))
        w_n  = exp(negative_scale * (alpha - d_an))

    with p over the positives of the anchor a farther than alpha - margin and n over its negatives
    nearer than alpha. The weights get a gradient too. As in pytorch-metric-learning, 1e-5 for each
    item of the batch is added to both sums of weights.

    Args:
        margin: difference of the two radii, in units of `distance`. Default 0.4, as in the paper.
        negative_scale: weight exponent of near negatives, 0 or more; T_n in the paper. Default 10,
            as in the paper; 0 weights all equally.
        imbalance: weight of the negatives, between 0 and 1. Default 0.5.
        alpha: radius that negatives should exceed, above 0. Default None: 1 + margin / 2, which is
            the paper's 1.2 for unit vectors.
        positive_scale: weight exponent of far positives, 0 or more; T_p in the paper. Default 0, as
            there.
        distance: metric name; default "euclidean", on unit vectors.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "sum_over_batch_size", the mean over all anchors, as in the paper.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a number out of range, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> loss = keras_metric.losses.RankedListLoss()
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.4

    Reference:
        Wang, Hua, Kodirov, Hu, Garnier and Robertson, "Ranked List Loss for Deep Metric
        Learning", 2019, https://arxiv.org/abs/1903.03238
    """

    renamed_arguments = {"Tn": "negative_scale", "Tp": "positive_scale"}

    def __init__(
        self,
        margin=0.4,
        negative_scale=10,
        imbalance=0.5,
        alpha=None,
        positive_scale=0,
        distance="euclidean",
        mining="all",
        labels="ids",
        memory=None,
        reduction="sum_over_batch_size",
        name="ranked_list_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.margin = check_number("margin", margin)
        self.negative_scale = check_number("negative_scale", negative_scale, at_least=0)
        self.imbalance = check_number("imbalance", imbalance, at_least=0, at_most=1)
        if alpha is not None:
            check_number("alpha", alpha, above=0)
        self.positive_scale = check_number("positive_scale", positive_scale, at_least=0)
        self.alpha = alpha

    def pair_parts(self, distance, pairs):
        alpha = 1 + self.margin / 2 if self.alpha is None else self.alpha
        settings = (self.margin, self.negative_scale, self.imbalance, alpha, self.positive_scale)
        return [ranked_list_rows(distance, pairs, *settings)]
