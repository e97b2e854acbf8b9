"""RankedListLoss: positives inside a sphere around the anchor, negatives beyond a wider one."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import single_terms

# What pytorch-metric-learning adds to the weights, for each item of a batch.
_SLACK = 1e-5


def ranked_list_rows(distance, partners, margin, negative_scale, imbalance, alpha, positive_scale):
    """One term an anchor: weighted mean offences of its positives and of its negatives."""
    slack = _SLACK * ops.cast(ops.shape(distance)[0], distance.dtype)
    pull = _mean_offence(distance - (alpha - margin), partners.positive, positive_scale, slack)
    push = _mean_offence(alpha - distance, partners.negative, negative_scale, slack)
    either = partners.num_positives + partners.num_negatives > 0
    return single_terms((1 - imbalance) * pull + imbalance * push, either)


def _mean_offence(offence, mask, temperature, slack):
    """Mean of the offences above 0 of each row, weighed by exp(temperature * offence)."""
    mask = ops.logical_and(mask, offence > 0)
    offence = ops.where(mask, offence, 0)
    if temperature == 0:
        weight = ops.cast(mask, offence.dtype)
    else:
        # Only ratios of weights count: taken from the largest, none of them overflows.
        most = ops.stop_gradient(ops.max(offence, axis=1, keepdims=True))
        weight = ops.where(mask, ops.exp(temperature * (offence - most)), 0)
        slack = slack * ops.exp(-temperature * most[:, 0])
    return ops.sum(weight * offence, axis=1) / (ops.sum(weight, axis=1) + slack)


@export
class RankedListLoss(PairLoss):
    """Draws the positives of an anchor into a sphere, and its negatives out of a wider one.

    Reach for it where classes have a shape of their own: positives inside the sphere are left
    where they are, not drawn to a point. Pairs that obey are left out, so no miner is needed.

        loss = mean over a of (1 - imbalance) * sum_p w_p * (d_ap - (alpha - margin)) / sum_p w_p
                              + imbalance * sum_n w_n * (alpha - d_an) / sum_n w_n
        w_p  = exp(positive_scale * (d_ap - (alpha - margin))),  w_n = exp(negative_scale * (alpha - d_an))

    with p over the positives of the anchor a farther than alpha - margin and n over its
    negatives nearer than alpha. The weights get a gradient too. As in pytorch-metric-learning,
    1e-5 for each item of the batch is added to both sums of weights.

    Args:
        margin: gap between the two spheres, in units of `distance`. Default 0.4, as in the
            paper.
        negative_scale: how much nearer negatives outweigh others, 0 or more. Default 10, as in the paper;
            0 weighs all alike.
        imbalance: weight of the negatives, between 0 and 1. Default 0.5.
        alpha: radius of the sphere around the anchor that negatives are to leave, above 0.
            Default None: 1 + margin / 2, which is the paper's 1.2 for unit vectors.
        positive_scale: how much farther positives outweigh others, 0 or more. Default 0, as in the paper.
        distance: metric name; default "euclidean", on unit vectors.
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: default "sum_over_batch_size", the mean over all anchors.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a number out of its range, or labels of another kind.

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
        check_number("margin", margin)
        check_number("negative_scale", negative_scale, at_least=0)
        check_number("imbalance", imbalance, at_least=0, at_most=1)
        if alpha is not None:
            check_number("alpha", alpha, above=0)
        check_number("positive_scale", positive_scale, at_least=0)
        self.margin = margin
        self.negative_scale = negative_scale
        self.imbalance = imbalance
        self.alpha = alpha
        self.positive_scale = positive_scale

    def pair_parts(self, distance, partners):
        alpha = 1 + self.margin / 2 if self.alpha is None else self.alpha
        settings = (self.margin, self.negative_scale, self.imbalance, alpha, self.positive_scale)
        return [ranked_list_rows(distance, partners, *settings)]
