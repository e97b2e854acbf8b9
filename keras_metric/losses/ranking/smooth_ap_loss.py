"""Smooth-AP loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.ranking.list_rows import list_rows, smooth_steps


def smooth_ap_terms(distance, pairs, temperature):
    """1 - AP of some anchors, and its derivatives with respect to the distances."""
    positive = pairs.positive
    step_at = smooth_steps(distance, ops.logical_or(positive, pairs.negative), temperature)
    number = ops.cast(ops.maximum(pairs.num_positives, 1), distance.dtype)

    def body(rank, column, exists, precision, gradient):
        step = step_at(column)
        # The sums include sigmoid(0) = 1/2 for the positive itself, and the first rank is 1.
        among_all = 0.5 + ops.sum(step.before, -1)
        among_positives = 0.5 + ops.sum(ops.where(positive, step.before, 0), -1)
        weight = ops.where(exists, 1 / (number * among_all), 0)
        precision = precision + weight * among_positives
        weights = ops.where(positive, weight[:, None], 0)
        weights = weights - (weight * among_positives / among_all)[:, None]
        return precision, step.added(gradient, -weights)

    zero = ops.zeros_like(distance[:, 0])
    precision, gradient = pairs.for_each_positive(body, (zero, ops.zeros_like(distance)))
    return 1 - precision, gradient


@export
class SmoothAPLoss(PairLoss):
    """Smooth-AP: average precision of each anchor's ranked list, with ranks as sums of sigmoids.

    Use it where the order of the whole result list matters and batches are large: the batch is the
    gallery. Classes may have any sizes, in any order.

        AP(a) = 1/|P(a)| * sum over p of (1 + sum over P of s_pj) / (1 + sum over P and N of s_pj)
        s_pj  = sigmoid((d(a, p) - d(a, j)) / temperature), j other than p
        loss  = mean over a of 1 - AP(a)

    with P the positives of a, N its negatives. As in the authors' code an anchor is one of its own
    positives, at rank 1 of its list, but an anchor without another positive has no term.

    Args:
        temperature: width of the sigmoid, in units of `distance`, above 0. Default 0.01, as in the
            paper. A larger width has a gradient for more items and approximates AP less well.
        distance: metric name, default "cosine".
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over anchors that have a positive.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a temperature of 0 or less, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]], "float32")
    >>> loss = keras_metric.losses.SmoothAPLoss()
    >>> round(float(loss(np.array([0, 1, 0, 1]), points)), 3)
    0.213

    Reference:
        Brown, Xie, Kalogeiton and Zisserman, "Smooth-AP: Smoothing the Path Towards Large-Scale
        Image Retrieval", 2020, https://arxiv.org/abs/2007.12163
    """

    def __init__(
        self,
        temperature=0.01,
        distance="cosine",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="smooth_ap_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.temperature = check_number("temperature", temperature, above=0)

    def batch_parts(self, reports, labels, embeddings, *references, **blocks):
        batch = (reports, labels, embeddings, *references)
        return [list_rows(self, self._list_terms, *batch, with_own=True, **blocks)]

    def _list_terms(self, distance, pairs):
        return smooth_ap_terms(distance, pairs, self.temperature)
