"""Mahalanobis: the Euclidean distance after a trainable linear map."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_count, check_flag, check_one_input


@export
class Mahalanobis(keras.layers.Layer):
    """A trainable Mahalanobis distance, the classic form of metric learning.

    Use it where features are fixed (a table, a frozen backbone), with scales or correlations that
    do not reflect the classes. With L (dim, rank) and M = L L':

        d(a, b) = sqrt((a - b)' M (a - b)) = | L'a - L'b |

    M is positive semi-definite for every L, so d is symmetric and satisfies the triangle
    inequality. Training starts at M = I, the Euclidean distance; for a rank below dim at a random
    projection that preserves squared distances on average.

    As the last layer of a backbone, `call` maps x to L'x, and the Euclidean distances of the
    results are d. As the `distance` of a loss, the loss trains the distance and the encoder is not
    changed: `TripletLoss(distance=Mahalanobis())`.

    Args:
        rank: length of the mapped vectors, and upper limit of the rank of M. Default None: dim.
        squared: if True, distances are squared, as often in the literature. Default False.
        dtype: default None: float32, or the global policy if that is float64.
        name: name of the layer.

    Call arguments:
        inputs: float tensor `(..., dim)`.

    Returns:
        Tensor `(..., rank)`.

    Raises:
        ValueError: for a rank below 1.

    Example:
    >>> import numpy as np
    >>> from keras.ops import convert_to_numpy
    >>> from keras_metric.layers import Mahalanobis
    >>> metric = Mahalanobis()
    >>> points = np.array([[0.0, 0.0], [3.0, 4.0]], "float32")
    >>> convert_to_numpy(metric.pairwise(points)).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    >>> metric.set_weights([np.diag([2.0, 0.0])])
    >>> convert_to_numpy(metric.elementwise(points[0], points[1])).tolist()
    6.0

    Reference:
        Weinberger and Saul, "Distance Metric Learning for Large Margin Nearest Neighbor
        Classification", 2009, https://jmlr.org/papers/v10/weinberger09a.html. Low rank:
        Kulis, "Metric Learning: A Survey", 2013, https://doi.org/10.1561/2200000019
    """

    def __init__(self, rank=None, squared=False, dtype=None, name=None, **kwargs):
        # Distances are computed in float32, so a map in half precision has no benefit.
        if dtype is None and keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16"):
            dtype = "float32"
        super().__init__(dtype=dtype, name=name, **kwargs)
        if rank is not None:
            check_count("rank", rank)
        check_flag("squared", squared)
        self.rank = rank
        self.squared = bool(squared)

    @property
    def metric(self):
        """Name of the distance between mapped vectors, see `keras_metric.distances`."""
        return "squared_euclidean" if self.squared else "euclidean"

    @property
    def matrix(self):
        """M, `(dim, dim)`."""
        if not self.built:
            raise ValueError(f"{self.name!r} has no matrix yet: call it, or build((None, dim)).")
        factor = ops.convert_to_tensor(self.factor)
        return ops.matmul(factor, ops.transpose(factor))

    def pairwise(self, a, b=None):
        """Return the distances between all rows of `a` and `b`, see `distances.pairwise`."""
        return distances.pairwise(a, b, metric=self)

    def elementwise(self, a, b):
        """Return the distance of each vector of `a` to the vector of `b` in the same row."""
        return distances.elementwise(a, b, metric=self)

    def build(self, input_shape):
        check_one_input(input_shape)
        dim = input_shape[-1]
        rank = self.rank or dim
        if rank < dim:
            # Orthonormal columns multiply the mean squared length by rank / dim.
            start = keras.initializers.Orthogonal(gain=(dim / rank) ** 0.5)
        else:
            start = keras.initializers.Identity()
        self.factor = self.add_weight(name="factor", shape=(dim, rank), initializer=start)

    def call(self, inputs):
        return ops.matmul(inputs, ops.cast(self.factor, inputs.dtype))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.rank or input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "rank": self.rank, "squared": self.squared}
