"""AngularLoss: the angle at a negative, in the triangle that it makes with a positive pair."""

import math

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss, among_references
from keras_metric.pairwise.anchor_rows import Rows
from keras_metric.pairwise.blockwise import incoming_gradient, untraced
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def angular_rows(cosine, among, partners, alpha):
    """Rows over the positive pairs of `cosine` (batch, references); `alpha` in radians.

    `among` (references, references): cosines of the references, of a batch alone the same again.
    A term pulls at the row of its positive too. Whose weight it carries is known only when the
    gradient comes in, so the backward pass runs the loop a second time.
    """
    spread = 4 * math.tan(alpha) ** 2
    nearness = 2 + 2 * math.tan(alpha) ** 2

    @ops.custom_gradient
    def run(cosine, among):
        cosine, among = untraced((cosine, among))
        of_anchor = ops.where(partners.negative, spread * cosine, -MASKED_DISTANCE)

        def exponent(column):
            """Of the positive's term, log(1 + exp(this)); and the share each negative has in it."""
            reach = of_anchor + spread * ops.take(among, column, axis=0)
            most = ops.max(reach, axis=-1)
            share = ops.exp(reach - most[:, None])
            total = ops.sum(share, axis=-1)
            near = ops.take_along_axis(cosine, column[:, None], axis=1)[:, 0]
            return most + ops.log(total) - nearness * near, share / total[:, None]

        def forward(rank, column, exists, total, active):
            value = ops.where(exists, ops.softplus(exponent(column)[0]), 0)
            return total + value, active + ops.cast(value > 0, value.dtype)

        zero = ops.zeros_like(cosine[:, 0])
        rows = ops.stack(partners.for_each_positive(forward, (zero, zero)))

        def grad(*args, upstream=None):
            factor = incoming_gradient(args, upstream)[0]

            def backward(rank, column, exists, slopes, among_slopes):
                power, share = exponent(column)
                weight = ops.where(exists, factor * ops.sigmoid(power), 0)[:, None]
                push = spread * weight * share
                here = ops.equal(partners.columns, column[:, None])
                slopes = slopes + ops.where(here, push - nearness * weight, push)
                moved = ops.segment_sum(push, column, ops.shape(among)[0])
                return slopes, among_slopes + moved

            start = (ops.zeros_like(cosine), ops.zeros_like(among))
            return tuple(partners.for_each_positive(backward, start))

        return rows, grad

    rows = run(cosine, among)
    valid = ops.cast(partners.num_positives, rows.dtype)
    return Rows(rows[0], ops.stop_gradient(rows[1]), valid)


@export
class AngularLoss(PairLoss):
    """Makes the angle small at which a negative sees a positive pair.

    Reach for it where the scale of distances differs from class to class: an angle has no scale,
    and all three sides of a triplet's triangle pull, not only those at the anchor.

        loss = mean over (a, p) of log(1 + sum_n exp(f(a, p, n)))
        f    = 4 tan(alpha)**2 (a + p).n - 2 (1 + tan(alpha)**2) a.p

    with a, p, n scaled to length 1 and n over the negatives of a. But for a constant, f is
    |a - p|**2 - 4 tan(alpha)**2 |n - c|**2, with c the middle of a and p: it falls as n leaves
    them, and as the angle falls at which n sees them.

    Args:
        alpha: angle in degrees, above 0 and at most 89. Default 40, as in
            pytorch-metric-learning; the paper does best with 36 to 55.
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: default "mean_valid", the mean over all positive pairs.
        name: name of the loss.
        dtype: dtype of the result. Cosines are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, an angle outside its range, or labels of another kind.

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
        check_number("alpha", alpha, above=0, at_most=89)
        self.alpha = alpha

    def batch_parts(self, reports, labels, embeddings, *references):
        distance, partners = self.chosen(reports, labels, embeddings, *references)
        among = among_references(distance, "cosine", *references)
        return [angular_rows(1 - distance, 1 - among, partners, math.radians(self.alpha))]
