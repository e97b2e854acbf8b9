"""Mahalanobis: a Euclidean distance after a linear map that is learned."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_count, check_flag, check_one_input


@export
class Mahalanobis(keras.layers.Layer):
    """Learns which directions of a vector count, and how much: the classic metric learning.

    Reach for it where features are fixed (a table, a frozen backbone) and their scales or
    correlations are not those of the classes. With L (dim, rank) and M = L L':

        d(a, b) = sqrt((a - b)' M (a - b)) = | L'a - L'b |

    M is positive semi-definite whatever L is, so d is symmetric, and obeys the triangle
    inequality. Training starts at M = I, the Euclidean distance; with a rank below dim at a
    random projection that keeps squared distances on average.

    Use it in either of two ways. As the last layer of a backbone, `call` maps x to L'x, and
    Euclidean distances of these are d. As the `distance` of a loss, the encoder stays as it is,
    and the loss learns with it what is near: `TripletLoss(distance=Mahalanobis())`.

    Args:
        rank: length of the mapped vectors, and the most that the rank of M can be. Default
            None: dim.
        squared: if True, distances are squared, as in much of the literature. Default False.
        dtype: default None: float32, or the global policy if that is float64.
        name: name of the layer.

    Call arguments:
        inputs: float tensor `(..., dim)`.

    Returns:
        Tensor `(..., rank)`.

    Raises:
        TypeError: for an argument of another type.
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
        # Distances are taken in float32, so a map in half precision would save nothing.
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
        """Name of the distance of mapped vectors, see `keras_metric.distances`."""
        return "squared_euclidean" if self.squared else "euclidean"

    @property
    def matrix(self):
        """M, `(dim, dim)`."""
        self._check_built()
        factor = ops.convert_to_tensor(self.factor)
        return ops.matmul(factor, ops.transpose(factor))

    def pairwise(self, a, b=None):
        """Distances between every row of `a` and of `b`, see `distances.pairwise`."""
        return distances.pairwise(a, b, metric=self)

    def elementwise(self, a, b):
        """Distance of each vector of `a` to that of `b` at the same place."""
        return distances.elementwise(a, b, metric=self)

    def build(self, input_shape):
        check_one_input(input_shape)
        dim = input_shape[-1]
        rank = self.rank or dim
        if rank < dim:
            # Orthonormal columns shorten a vector by rank / dim, in the square and on average.
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

    def _check_built(self):
        if not self.built:
            raise ValueError(
                f"{self.name!r} has no matrix yet: call it, or `build((None, dim))`, first."
            )
