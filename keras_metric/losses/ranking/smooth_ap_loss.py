"""SmoothAPLoss: average precision, with each place of a list a sum of sigmoids."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.ranking.list_rows import list_rows, smooth_steps


def smooth_ap_terms(distance, partners, temperature):
    """1 - AP of some anchors, and its derivatives with respect to the distances."""
    positive = partners.positive
    step_at = smooth_steps(distance, ops.logical_or(positive, partners.negative), temperature)
    number = ops.cast(ops.maximum(partners.num_positives, 1), distance.dtype)

    def body(rank, column, exists, precision, slopes):
        step = step_at(column)
        # The positive itself is one half in each sum, and the first place is number 1.
        among_all = 0.5 + ops.sum(step.before, -1)
        among_positives = 0.5 + ops.sum(ops.where(positive, step.before, 0), -1)
        share = ops.where(exists, 1 / (number * among_all), 0)
        precision = precision + share * among_positives
        weights = ops.where(positive, share[:, None], 0)
        weights = weights - (share * among_positives / among_all)[:, None]
        return precision, step.added(slopes, -weights)

    zero = ops.zeros_like(distance[:, 0])
    precision, slopes = partners.for_each_positive(body, (zero, ops.zeros_like(distance)))
    return 1 - precision, slopes


@export
class SmoothAPLoss(PairLoss):
    """Trains the average precision of each anchor's list, the number retrieval is judged by.

    Reach for it when the whole order of a result list counts, and batches are large: the batch
    stands for the gallery. Classes may have any sizes, in any order.

        AP(a) = 1/|P(a)| * sum over p of (1 + sum over P of s_pj) / (1 + sum over P and N of s_pj)
        s_pj  = sigmoid((d(a, p) - d(a, j)) / temperature), j other than p
        loss  = mean over a of 1 - AP(a)

    with P the positives of a, N its negatives. As in the authors' code an anchor is one of its
    own positives, in the first place of its list; but an anchor without another has no term.

    Args:
        temperature: width of the step from one place to the next, in units of `distance`, above
            0. Default 0.01, as in the paper. Wider gives more items a gradient, and a coarser AP.
        distance: metric name, default "cosine".
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: default "mean_valid", the mean over anchors that have a positive.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a temperature of 0 or less, or labels of another kind.

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
        check_number("temperature", temperature, above=0)
        self.temperature = temperature

    def batch_parts(self, reports, labels, embeddings, *references, size=None):
        batch = (reports, labels, embeddings, *references)
        return [list_rows(self, self._list_terms, *batch, with_own=True, size=size)]

    def _list_terms(self, distance, partners):
        return smooth_ap_terms(distance, partners, self.temperature)
