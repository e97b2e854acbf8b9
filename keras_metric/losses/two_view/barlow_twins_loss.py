"""Barlow Twins loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.losses.two_view.view_statistics import (
    off_diagonal_squares,
    standardised,
    two_views,
)
from keras_metric.pairwise.anchor_rows import whole_batch


def barlow_twins(first, second, redundancy_weight, eps):
    """The loss of two views (batch, dim)."""
    first, second = standardised(first, eps), standardised(second, eps)
    # The diagonal of the correlation matrix, without indexing the matrix.
    same = ops.mean(first * second, axis=0)
    size = ops.cast(ops.shape(first)[0], first.dtype)
    correlation = ops.matmul(ops.transpose(first), second) / size
    return ops.sum(ops.square(1 - same)) + redundancy_weight * off_diagonal_squares(correlation)


@export
class BarlowTwinsLoss(MetricLoss):
    """Barlow Twins: makes the cross-correlation matrix of two views the identity.

    Use it without labels; it works with small batches and needs many dimensions, 1,000 and more.
    The same dimension of the two views should be equal over the batch, different dimensions
    uncorrelated. Embeddings have shape (batch, 2, dim); y is ignored. Each dimension is
    standardized, so set `EmbeddingModel(normalize=False)`.

        loss = sum_i (1 - C_ii)**2 + redundancy_weight * sum over i != j of C_ij**2

    with C_ij the correlation, over the batch, of dimension i of the first view with dimension j of
    the second.

    Args:
        redundancy_weight: lambda of the paper, at least 0. Default 0.0051, the paper's best value.
        eps: added to each variance, above 0. Default 1e-5, as in the authors' code. A constant
            dimension has correlation 0.
        name: name of the loss.
        dtype: dtype of the result; computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for a number out of range, or a number of views other than two.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> views = np.array([[[0.0, 1.0], [0.0, 0.0]], [[2.0, 0.0], [2.0, 1.0]]], "float32")
    >>> loss = keras_metric.losses.BarlowTwinsLoss()
    >>> round(float(loss(None, views)), 2)
    4.01

    Reference:
        Zbontar, Jing, Misra, LeCun and Deny, "Barlow Twins: Self-Supervised Learning via
        Redundancy Reduction", 2021, https://arxiv.org/abs/2103.03230
    """

    num_branches = (2,)
    is_one_number = True

    def __init__(self, redundancy_weight=0.0051, eps=1e-5, name="barlow_twins_loss", dtype=None):
        super().__init__("sum_over_batch_size", name, dtype)
        self.redundancy_weight = check_number("redundancy_weight", redundancy_weight, at_least=0)
        self.eps = check_number("eps", eps, above=0)

    def tuple_parts(self, reports, y_true, branches):
        first, second = two_views(branches)
        value = barlow_twins(first, second, self.redundancy_weight, self.eps)
        return whole_batch(value, ops.shape(first)[0])
