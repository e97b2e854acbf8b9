"""Distance matrices of tensorflow-addons, with the same rounding.

`keras_metric.distances.pairwise` subtracts the mean first, which is more accurate. This module
computes the products of tensorflow-addons, so that the same distances are equal and its strict
comparison of a negative with a positive has the same result.
"""

from keras import ops

from keras_metric._validation import check_matrix

# Components are clipped to this, so that sums of their squares do not overflow float32.
_LARGEST = 1e14
# Vectors with a smaller squared norm are not normalised.
_SHORT = 1e-12


def pairwise_distance(feature, squared=False):
    """Euclidean distances between all rows.

    Args:
        feature: float tensor `(batch, dim)`. Components are clipped to 1e14.
        squared: True for the squares of the distances. Default False.

    Returns:
        Tensor `(batch, batch)`, with a diagonal of zeros. Where two rows are equal, the distance
        is 0 and has no gradient.

    Raises:
        ValueError: for a wrong rank, or integers.

    Example:
    >>> import numpy as np
    >>> from keras_metric.addons.losses.metric_learning import pairwise_distance
    >>> points = np.array([[0.0, 0.0], [3.0, 4.0]], "float32")
    >>> np.asarray(pairwise_distance(points)).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    feature = ops.convert_to_tensor(feature)
    check_matrix("feature", feature)
    feature = ops.clip(feature, -_LARGEST, _LARGEST)
    across = ops.transpose(feature)
    norms = ops.sum(ops.square(feature), axis=1, keepdims=True)
    norms = norms + ops.sum(ops.square(across), axis=0, keepdims=True)
    distance = norms - 2.0 * ops.matmul(feature, across)
    position = ops.arange(ops.shape(feature)[0])
    apart = ops.logical_and(distance > 0, ops.not_equal(position[:, None], position[None, :]))
    if not squared:
        # The inner `where` keeps the unused branch finite, since autodiff evaluates both.
        distance = ops.sqrt(ops.where(apart, distance, 1))
    return ops.where(apart, distance, 0)


def angular_distance(feature):
    """One minus the cosine, between all rows.

    Args:
        feature: float tensor `(batch, dim)`. A row with a norm below 1e-6 is multiplied by
            1e6, so a zero vector has the distance 1 to every row.

    Returns:
        Tensor `(batch, batch)` of numbers from 0 to 2.

    Raises:
        ValueError: for a wrong rank, or integers.

    Example:
    >>> import numpy as np
    >>> from keras_metric.addons.losses.metric_learning import angular_distance
    >>> points = np.array([[2.0, 0.0], [0.0, 1.0]], "float32")
    >>> np.asarray(angular_distance(points)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    feature = ops.convert_to_tensor(feature)
    check_matrix("feature", feature)
    feature = ops.clip(feature, -_LARGEST, _LARGEST)
    squares = ops.sum(ops.square(feature), axis=1, keepdims=True)
    unit = feature * ops.rsqrt(ops.maximum(squares, _SHORT))
    return ops.relu(1 - ops.matmul(unit, ops.transpose(unit)))


METRICS = {
    "L2": pairwise_distance,
    "angular": angular_distance,
    "squared-L2": lambda feature: pairwise_distance(feature, squared=True),
}

__all__ = ["angular_distance", "pairwise_distance"]
