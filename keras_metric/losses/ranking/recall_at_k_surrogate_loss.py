"""Recall@k surrogate loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_count, check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.ranking.list_rows import list_rows, smooth_steps


def recall_at_k_terms(distance, pairs, k, temperature, k_temperature):
    """1 - the mean recall of some anchors over all k, and its derivatives.

    `k_temperature` has one number, or one for each k.
    """
    either = ops.logical_or(pairs.positive, pairs.negative)
    step_at = smooth_steps(distance, either, temperature)
    lengths = ops.convert_to_tensor(k, dtype=distance.dtype)[None, :]
    widths = ops.convert_to_tensor(k_temperature, dtype=distance.dtype)[None, :]
    number = ops.cast(pairs.num_positives, distance.dtype)[:, None]
    most = ops.minimum(lengths, ops.maximum(number, 1))

    def inside(step):
        # The sum includes sigmoid(0) = 1/2 for the positive itself, and the first rank is 1.
        rank = 0.5 + ops.sum(step.before, -1, keepdims=True)
        return ops.sigmoid((lengths - rank) / widths)

    def count(rank, column, exists, found):
        return (found + ops.where(exists[:, None], inside(step_at(column)), 0),)

    (found,) = pairs.for_each_positive(count, (ops.zeros_like(most),))
    # Derivative of the mean recall by `found`; 0 where the recall is capped.
    gain = ops.where(found < most, 1 / (most * len(k)), 0)

    def add_gradient(rank, column, exists, gradient):
        step = step_at(column)
        near = inside(step)
        weight = ops.sum(gain * near * (1 - near) / widths, -1)
        return (step.added(gradient, ops.where(exists, weight, 0)[:, None]),)

    (gradient,) = pairs.for_each_positive(add_gradient, (ops.zeros_like(distance),))
    return 1 - ops.mean(ops.minimum(found, most) / most, axis=-1), gradient


@export
class RecallAtKSurrogateLoss(PairLoss):
    """Recall@k surrogate: a smooth recall@k, averaged over several k.

    Use it with very large batches (the paper: thousands, with the batch as the gallery) when the
    first few results matter.

        rank(p)   = 1 + sum over j of sigmoid((d(a, p) - d(a, j)) / temperature), j other than p
        recall(k) = min(k, sum over p of sigmoid((k - rank(p)) / k_temperature)) / min(k, |P(a)|)
        loss      = mean over a of 1 - (mean of recall(k) over all k)

    with p over the positives P(a) of a, and j over its positives and negatives. Recall is the
    fraction of the positives that are found; `evaluation.retrieval_metrics` counts whether any is
    found. In the authors' code the anchor is in its own list; here, as in the paper, it is not.

    Args:
        k: list lengths: an integer, or several. Default (1, 2, 4, 8, 16), as in the paper.
        temperature: width of the sigmoid over distances, in units of `distance`, above 0. Default
            0.01, as in the paper.
        k_temperature: width of the sigmoid over ranks, above 0: a number, or one for each k.
            Default 1, as in the paper; the authors' code uses k.
        distance: metric name, default "cosine".
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over anchors that have a positive.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a k below 1, a temperature of 0 or less, or labels of
            another kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]], "float32")
    >>> loss = keras_metric.losses.RecallAtKSurrogateLoss(k=1, k_temperature=0.1)
    >>> round(float(loss(np.array([0, 1, 0, 1]), points)), 3)
    1.0

    Reference:
        Patel, Tolias and Matas, "Recall@k Surrogate Loss with Large Batches and Similarity
        Mixup", 2022, https://arxiv.org/abs/2108.11179
    """

    def __init__(
        self,
        k=(1, 2, 4, 8, 16),
        temperature=0.01,
        k_temperature=1.0,
        distance="cosine",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="recall_at_k_surrogate_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.k = tuple(k) if isinstance(k, (list, tuple)) else (k,)
        for length in self.k:
            check_count("k", length)
        if not self.k:
            raise ValueError(f"`k` must have at least one length. Received: k={k!r}")
        self.temperature = check_number("temperature", temperature, above=0)
        several = isinstance(k_temperature, (list, tuple))
        self.k_temperature = tuple(k_temperature) if several else k_temperature
        for width in self.k_temperature if several else (k_temperature,):
            check_number("k_temperature", width, above=0)
        if several and len(k_temperature) != len(self.k):
            raise ValueError(
                "`k_temperature` must have one number, or one for each k. Received: "
                f"k={self.k}, k_temperature={self.k_temperature}"
            )

    def batch_parts(self, reports, labels, embeddings, *references, **blocks):
        batch = (reports, labels, embeddings, *references)
        return [list_rows(self, self._list_terms, *batch, **blocks)]

    def _list_terms(self, distance, pairs):
        widths = (
            self.k_temperature if isinstance(self.k_temperature, tuple) else [self.k_temperature]
        )
        return recall_at_k_terms(distance, pairs, self.k, self.temperature, widths)
