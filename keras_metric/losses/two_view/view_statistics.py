"""Statistics over the batch of two views of the same items."""

from keras import ops

from keras_metric.losses.metric_loss import check_branches

# The losses compute fourth powers of embeddings, which overflow float32 beyond this.
MAX_COMPONENT = 1e7


def two_views(branches):
    """The first and the second view, (batch, dim) each, with components clipped to +-1e7."""
    check_branches(branches, 2, "first view, second view")
    return [ops.clip(view, -MAX_COMPONENT, MAX_COMPONENT) for view in branches]


def centred(view):
    """`view` minus its mean over the batch."""
    return view - ops.mean(view, axis=0)


def standardised(view, epsilon):
    """`view` with mean 0 and variance 1 over the batch in each dimension."""
    view = centred(view)
    return view * ops.rsqrt(ops.mean(ops.square(view), axis=0, keepdims=True) + epsilon)


def off_diagonal_squares(matrix):
    """Sum of the squares of the off-diagonal entries of a matrix (dim, dim)."""
    return ops.sum(ops.square(matrix * (1 - ops.eye(matrix.shape[0], dtype=matrix.dtype))))
