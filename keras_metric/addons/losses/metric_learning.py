"""The distance matrices of tensorflow-addons, rounding and all.

`keras_metric.distances.pairwise` moves the points to their mean first, which saves digits; here
the products are taken of the points as they come. What ties in tensorflow-addons then ties here,
and its strict comparison of a negative with a positive goes the same way.
"""

from keras import ops

from keras_metric._validation import check_matrix

# Larger components count as this large: the squares of a batch of them stay in float32.
_LARGEST = 1e14
# Vectors shorter than the root of this are not brought to length 1.
_SHORT = 1e-12


def pairwise_distance(feature, squared=False):
    """Euclidean distances of all rows among themselves.

    Args:
        feature: float tensor `(batch, dim)`. Components beyond 1e14 count as 1e14.
        squared: True for the squares of the distances. Default False.

    Returns:
        Tensor `(batch, batch)`, with a diagonal of zeros. Where two rows are equal, the distance
        is 0 and has no gradient.

    Raises:
        ValueError: for another rank, or integers.

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
    lengths = ops.sum(ops.square(feature), axis=1, keepdims=True)
    lengths = lengths + ops.sum(ops.square(across), axis=0, keepdims=True)
    distance = lengths - 2.0 * ops.matmul(feature, across)
    place = ops.arange(ops.shape(feature)[0])
    apart = ops.logical_and(distance > 0, ops.not_equal(place[:, None], place[None, :]))
    if not squared:
        # The inner `where` keeps the unused branch finite: autodiff visits both.
        distance = ops.sqrt(ops.where(apart, distance, 1))
    return ops.where(apart, distance, 0)


def angular_distance(feature):
    """One minus the cosine, for all rows among themselves.

    Args:
        feature: float tensor `(batch, dim)`. A row shorter than 1e-6 is only scaled up by 1e6, so a
            zero vector has the distance 1 to everything, itself included.

    Returns:
        Tensor `(batch, batch)` of numbers from 0 to 2.

    Raises:
        ValueError: for another rank, or integers.

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
