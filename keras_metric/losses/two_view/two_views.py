"""Two views of the same items, for the losses that look at the dimensions of an embedding."""

from keras import ops

from keras_metric.losses.metric_loss import check_branches

# These losses take fourth powers of what they are given; beyond this those leave float32.
LARGEST = 1e7


def two_views(branches):
    """The first and the second view, (batch, dim) each, with components cut off at 1e7."""
    check_branches(branches, 2, "first view, second view")
    return [ops.clip(view, -LARGEST, LARGEST) for view in branches]


def centred(view):
    """`view` less its mean over the batch."""
    return view - ops.mean(view, axis=0)


def standardised(view, epsilon):
    """`view` with mean 0 and variance 1 over the batch in each dimension."""
    view = centred(view)
    return view * ops.rsqrt(ops.mean(ops.square(view), axis=0, keepdims=True) + epsilon)


def off_diagonal_squares(matrix):
    """Sum of the squares of a matrix (dim, dim) beside its diagonal."""
    return ops.sum(ops.square(matrix * (1 - ops.eye(matrix.shape[0], dtype=matrix.dtype))))
