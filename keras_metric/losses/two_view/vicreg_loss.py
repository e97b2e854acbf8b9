"""VICReg loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.losses.two_view.view_statistics import centred, off_diagonal_squares, two_views
from keras_metric.pairwise.anchor_rows import whole_batch


def variance_and_covariance(view, eps):
    """The variance and the covariance term of one view (batch, dim)."""
    view, size = centred(view), ops.shape(view)[0]
    degrees = ops.cast(ops.maximum(size - 1, 1), view.dtype)
    deviation = ops.sqrt(ops.sum(ops.square(view), axis=0) / degrees + eps)
    covariance = ops.matmul(ops.transpose(view), view) / degrees
    variance = ops.mean(ops.relu(1 - deviation)) / 2
    return variance, off_diagonal_squares(covariance) / view.shape[1]


@export
class VICRegLoss(MetricLoss):
    """VICReg: variance, invariance and covariance regularization of two views, without labels.

    Use it without labels where batches are too small for `NTXentLoss`. It has no negatives: every
    dimension should vary over the batch, and dimensions should be uncorrelated. Embeddings have
    shape (batch, 2, dim); y is ignored. It depends on the norm of embeddings: set
    `EmbeddingModel(normalize=False)`.

        loss = lambda * mean((a - b)**2) + mu * (v(a) + v(b)) + nu * (c(a) + c(b))
        v(z) = mean over dimensions of max(1 - sqrt(var(z) + eps), 0) / 2
        c(z) = 1 / dim * sum of squares of the covariances between two dimensions

    with a and b the two views, and variances over the batch, divided by batch - 1. The halves in v
    and the mean over dimensions in the first term are those of the authors' code and of
    pytorch-metric-learning; they are not in the paper.

    Args:
        invariance_lambda: weight of the invariance term, at least 0. Default 25, as in the paper.
        variance_mu: weight of the variance term, at least 0. Default 25, as in the paper.
        covariance_v: weight of the covariance term, at least 0. Default 1, as in the paper.
        eps: added to each variance, above 0. Default 1e-4; bounds the derivative of the root
            for a constant dimension.
        name: name of the loss.
        dtype: dtype of the result; computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for a number out of range, or a number of views other than two.

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

    num_branches = (2,)
    is_one_number = True

    def __init__(
        self,
        invariance_lambda=25,
        variance_mu=25,
        covariance_v=1,
        eps=1e-4,
        name="vicreg_loss",
        dtype=None,
    ):
        super().__init__("sum_over_batch_size", name, dtype)
        self.invariance_lambda = check_number("invariance_lambda", invariance_lambda, at_least=0)
        self.variance_mu = check_number("variance_mu", variance_mu, at_least=0)
        self.covariance_v = check_number("covariance_v", covariance_v, at_least=0)
        self.eps = check_number("eps", eps, above=0)

    def tuple_parts(self, reports, y_true, branches):
        first, second = two_views(branches)
        invariance = ops.mean(ops.square(first - second))
        variances, covariances = zip(
            *(variance_and_covariance(view, self.eps) for view in (first, second))
        )
        value = (
            self.invariance_lambda * invariance
            + self.variance_mu * sum(variances)
            + self.covariance_v * sum(covariances)
        )
        return whole_batch(value, ops.shape(first)[0])
