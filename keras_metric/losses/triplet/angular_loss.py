"""Angular loss."""

import math

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss, among_references
from keras_metric.pairwise.anchor_rows import Rows
from keras_metric.pairwise.blockwise import incoming_gradient, untraced
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def angular_rows(cosine, among, pairs, alpha):
    """Rows over the positive pairs of `cosine` (batch, references); `alpha` in radians.

    `among` (references, references): cosines between the references, equal to `cosine` without a
    reference set. A term has a gradient in the row of its positive too. That gradient depends on
    the upstream gradient of the row, so the backward pass runs the loop a second time.
    """
    spread = 4 * math.tan(alpha) ** 2
    nearness = 2 + 2 * math.tan(alpha) ** 2

    @ops.custom_gradient
    def run(cosine, among):
        cosine, among = untraced((cosine, among))
        of_anchor = ops.where(pairs.negative, spread * cosine, -MASKED_DISTANCE)

        def exponent(column):
            """Exponent x of the term log(1 + exp(x)), and the softmax weights of the negatives."""
            reach = of_anchor + spread * ops.take(among, column, axis=0)
            most = ops.max(reach, axis=-1)
            weights = ops.exp(reach - most[:, None])
            total = ops.sum(weights, axis=-1)
            near = ops.take_along_axis(cosine, column[:, None], axis=1)[:, 0]
            return most + ops.log(total) - nearness * near, weights / total[:, None]

        def forward(rank, column, exists, total, active):
            value = ops.where(exists, ops.softplus(exponent(column)[0]), 0)
            return total + value, active + ops.cast(value > 0, value.dtype)

        zero = ops.zeros_like(cosine[:, 0])
        rows = ops.stack(pairs.for_each_positive(forward, (zero, zero)))

        def grad(*args, upstream=None):
            factor = incoming_gradient(args, upstream)[0]

            def backward(rank, column, exists, gradient, among_gradient):
                power, weights = exponent(column)
                weight = ops.where(exists, factor * ops.sigmoid(power), 0)[:, None]
                push = spread * weight * weights
                here = ops.equal(pairs.columns, column[:, None])
                gradient = gradient + ops.where(here, push - nearness * weight, push)
                moved = ops.segment_sum(push, column, ops.shape(among)[0])
                return gradient, among_gradient + moved

            start = (ops.zeros_like(cosine), ops.zeros_like(among))
            return tuple(pairs.for_each_positive(backward, start))

        return rows, grad

    rows = run(cosine, among)
    valid = ops.cast(pairs.num_positives, rows.dtype)
    return Rows(rows[0], ops.stop_gradient(rows[1]), valid)


@export
class AngularLoss(PairLoss):
    """Angular loss: bounds the angle at the negative of the triangle formed by a triplet.

    Use it where the scale of distances differs between classes: an angle is invariant to scale, and
    all three sides of the triangle have a gradient.

        loss = mean over (a, p) of log(1 + sum_n exp(f(a, p, n)))
        f    = 4 tan(alpha)**2 (a + p).n - 2 (1 + tan(alpha)**2) a.p

    with a, p, n normalised to norm 1 and n over the negatives of a. Up to a constant, f is
    |a - p|**2 - 4 tan(alpha)**2 |n - c|**2, with c the midpoint of a and p.

    Args:
        alpha: angle in degrees, above 0 and at most 89. Default 40, as in pytorch-metric-learning;
            the paper has its best results with 36 to 55.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over all positive pairs.
        name: name of the loss.
        dtype: dtype of the result; cosines are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, an angle outside its range, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]], "float32")
    >>> loss = keras_metric.losses.AngularLoss()
    >>> round(float(loss(np.array([0, 1, 0, 1]), points)), 3)
    3.026

    Reference:
        Wang, Zhou, Wen, Liu and Lin, "Deep Metric Learning with Angular Loss", 2017,
        https://arxiv.org/abs/1708.01682
    """

    def __init__(
        self,
        alpha=40,
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="angular_loss",
        dtype=None,
    ):
        super().__init__("cosine", mining, labels, reduction, name, dtype, memory)
        self.alpha = check_number("alpha", alpha, above=0, at_most=89)

    def batch_parts(self, reports, labels, embeddings, *references):
        distance, pairs = self.chosen(reports, labels, embeddings, *references)
        among = among_references(distance, "cosine", *references)
        return [angular_rows(1 - distance, 1 - among, pairs, math.radians(self.alpha))]
