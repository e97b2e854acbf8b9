"""VICRegLoss: two views alike, every dimension alive, no two dimensions alike."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.losses.two_view.two_views import centred, off_diagonal_squares, two_views
from keras_metric.pairwise.anchor_rows import whole_batch


def spread_and_redundancy(view, epsilon):
    """The variance and the covariance term of one view (batch, dim)."""
    view, size = centred(view), ops.shape(view)[0]
    degrees = ops.cast(ops.maximum(size - 1, 1), view.dtype)
    deviation = ops.sqrt(ops.sum(ops.square(view), axis=0) / degrees + epsilon)
    covariance = ops.matmul(ops.transpose(view), view) / degrees
    spread = ops.mean(ops.relu(1 - deviation)) / 2
    return spread, off_diagonal_squares(covariance) / view.shape[1]


@export
class VICRegLoss(MetricLoss):
    """Learns from two views of each item without labels and without negatives.

    Reach for it where there are no labels and batches are too small for `NTXentLoss`. Nothing
    is pushed apart; instead every dimension has to vary over the batch, and no two dimensions
    may tell the same. Embeddings have shape (batch, 2, dim); y is not looked at. They need their
    length: take `EmbeddingModel(normalize=False)`.

        loss = lambda * mean((a - b)**2) + mu * (v(a) + v(b)) + nu * (c(a) + c(b))
        v(z) = mean over dimensions of max(1 - sqrt(var(z) + epsilon), 0) / 2
        c(z) = 1 / dim * sum of squares of the covariances between two dimensions

    with a and b the two views, and variances over the batch, divided by batch - 1. The halves in
    v and the mean over dimensions in the first term are those of the authors' code and of
    pytorch-metric-learning; the paper writes neither.

    Args:
        invariance_weight: lambda, at least 0. Default 25.
        variance_weight: mu, at least 0. Default 25.
        covariance_weight: nu, at least 0. Default 1. The defaults are those of the paper.
        epsilon: above 0. Default 1e-4; keeps the slope of the root finite in a dead dimension.
        name: name of the loss.
        dtype: dtype of the result. It is computed in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for a number out of range, or another number of views than two.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> views = np.array([[[0.0, 0.0], [0.0, 0.1]], [[2.0, 0.0], [2.0, 0.1]]], "float32")
    >>> loss = keras_metric.losses.VICRegLoss()
    >>> round(float(loss(None, views)), 3)
    12.5

    Reference:
        Bardes, Ponce and LeCun, "VICReg: Variance-Invariance-Covariance Regularization for
        Self-Supervised Learning", 2022, https://arxiv.org/abs/2105.04906
    """

    renamed_arguments = {
        "invariance_lambda": "invariance_weight",
        "variance_mu": "variance_weight",
        "covariance_v": "covariance_weight",
        "eps": "epsilon",
    }
    num_branches = (2,)
    is_one_number = True

    def __init__(
        self,
        invariance_weight=25,
        variance_weight=25,
        covariance_weight=1,
        epsilon=1e-4,
        name="vicreg_loss",
        dtype=None,
    ):
        super().__init__("sum_over_batch_size", name, dtype)
        check_number("invariance_weight", invariance_weight, at_least=0)
        check_number("variance_weight", variance_weight, at_least=0)
        check_number("covariance_weight", covariance_weight, at_least=0)
        check_number("epsilon", epsilon, above=0)
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.epsilon = epsilon

    def tuple_parts(self, reports, y_true, branches):
        first, second = two_views(branches)
        invariance = ops.mean(ops.square(first - second))
        spreads, redundancies = zip(
            *(spread_and_redundancy(view, self.epsilon) for view in (first, second))
        )
        value = (
            self.invariance_weight * invariance
            + self.variance_weight * sum(spreads)
            + self.covariance_weight * sum(redundancies)
        )
        return whole_batch(value, ops.shape(first)[0])
