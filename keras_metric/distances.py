"""How far two embeddings are apart. Smaller is closer in every metric.

| metric | formula | range |
| --- | --- | --- |
| `euclidean` | `sqrt(sum((a - b)**2))` | 0 and up; 0 to 2 for unit vectors |
| `squared_euclidean` | `sum((a - b)**2)` | 0 and up; 0 to 4 for unit vectors |
| `manhattan` | `sum(abs(a - b))` | 0 and up |
| `cosine` | `1 - a.b / (norm(a) * norm(b))` | 0 to 2 |
| `dot` | `-a.b` | all reals; -1 to 1 for unit vectors |
| `pearson` | `1 - r(a, b)`, r the correlation over the dimensions | 0 to 2 |
| `snr` | `var(a - b) / var(a)`, a the anchor: not symmetric | 0 and up |

In the losses on pairs and triplets, in `pairwise` and `elementwise`, a
`keras_metric.layers.Mahalanobis` may stand in place of a name: a metric that is learned.
Gradients are finite everywhere: two equal points, and a zero vector, get a zero gradient where
the formula has none.
"""

import keras
from keras import ops

from keras_metric._validation import as_tensor, check_choice, check_floating, check_matrix
from keras_metric.custom_gradients import incoming_gradient, unwatched

# Beyond this a squared distance no longer grows, so that a sum over a batch stays in float32.
_LARGEST = 1e30
# Components above this are scaled down before they are squared.
_SAFE = 1e14
# Distances below this have no slope: that of the square root is infinite at zero.
_TINY = 1e-7
_SMALLEST_VARIANCE = 1e-12


def pairwise(a, b=None, metric="euclidean"):
    """Distances between every row of `a` and every row of `b`, as one matrix.

    Memory is a few matrices of the size of the result: nothing of shape
    `(rows, columns, dim)` is ever built. Euclidean distances come from a matrix product, so a
    float32 distance below about 0.01 of the vectors' length is off by about 1e-3 of itself.

    Args:
        a: float tensor of shape `(rows, dim)`.
        b: float tensor of shape `(columns, dim)`. Without it, `a` against itself; the diagonal
            of a Euclidean or Manhattan matrix is then exactly 0.
        metric: one of the names in the table above, or a `layers.Mahalanobis`.

    Returns:
        Tensor of shape `(rows, columns)`, float64 or float32.

    Raises:
        ValueError: for an unknown metric, a rank other than 2, or unequal `dim`.

    Example:
    >>> import numpy as np
    >>> points = np.array([[0.0, 0.0], [3.0, 4.0]], "float32")
    >>> np.asarray(pairwise(points)).round(3).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    check_metric("metric", metric)
    a = as_tensor("a", a)
    check_matrix("a", a)
    own = b is None
    b = a if own else as_tensor("b", b)
    check_matrix("b", b)
    _check_dim(a, b)
    if not own:
        a, b = _of_one_dtype(a, b)
    a, b = _mapped(*_wide_enough(a, b), metric)
    if 0 in (a.shape[0], b.shape[0]):
        return ops.zeros((ops.shape(a)[0], ops.shape(b)[0]), dtype=a.dtype)
    return _PAIRWISE[name_of(metric)](a, b, own)


def elementwise(a, b, metric="euclidean"):
    """Distance of each vector of `a` to the vector of `b` at the same place.

    Args:
        a: float tensor of shape `(..., dim)`.
        b: float tensor that broadcasts against `a`; the last axis has the same length.
        metric: one of the names in the table above, or a `layers.Mahalanobis`.

    Returns:
        Tensor of the shape without its last axis, float64 or float32.

    Raises:
        ValueError: for an unknown metric or unequal `dim`.

    Example:
    >>> import numpy as np
    >>> a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
    >>> float(elementwise(a, b, metric="cosine")[0])
    1.0
    """
    check_metric("metric", metric)
    a, b = as_tensor("a", a), as_tensor("b", b)
    for name, vectors in (("a", a), ("b", b)):
        if len(vectors.shape) == 0 or vectors.shape[-1] == 0:
            raise ValueError(
                f"`{name}` must have shape (..., dim). Received: "
                f"{name}.shape={tuple(vectors.shape)}"
            )
        check_floating(name, vectors)
    _check_dim(a, b)
    _check_broadcasts(a, b)
    a, b = _wide_enough(*_of_one_dtype(a, b))
    return _ELEMENTWISE[name_of(metric)](*_mapped(a, b, metric))


def check_metric(argument, metric):
    """Raise unless `metric` is a name of the table, or a layer that maps vectors to such a one."""
    if not layers_of(metric):
        check_choice(argument, metric, METRICS)


def layers_of(metric):
    """The layers of a learned metric, none of a name."""
    return (metric,) if getattr(metric, "metric", None) in METRICS else ()


def name_of(metric):
    """The name in the table above of what `metric` measures once vectors are mapped."""
    return metric.metric if layers_of(metric) else metric


def _mapped(a, b, metric):
    for layer in layers_of(metric):
        a, b = (layer(a),) * 2 if a is b else (layer(a), layer(b))
    return a, b


def unit(x):
    """Return `x` scaled to length 1 along its last axis; a zero vector stays zero.

    Each vector is first divided by its largest component, so neither a huge nor a tiny one
    leaves the range of its dtype; a zero vector has a zero gradient.
    """
    largest = _largest(x)
    x = x / ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    some = squares > 0
    return x * ops.where(some, ops.rsqrt(ops.where(some, squares, 1)), 0)


def at_least_float32(dtype):
    """The dtype in which embeddings of `dtype` are measured: float32, for float64 itself."""
    return "float64" if dtype == "float64" else "float32"


def _largest(x):
    """The largest component of each vector, (..., 1), without a gradient."""
    # Keras finds no maximum of a batch of no rows. Its `initial` would help, but on PyTorch it
    # waits for the device, and fails where Keras only asks for shapes.
    sizes = ops.abs(x)
    most = ops.sum if 0 in sizes.shape else ops.max
    return ops.stop_gradient(most(sizes, axis=-1, keepdims=True))


def _wide_enough(a, b):
    """Both in float32 at least: squares of half-precision components overflow."""
    dtype = at_least_float32(keras.backend.standardize_dtype(a.dtype))
    wide = ops.cast(a, dtype)
    return wide, wide if a is b else ops.cast(b, dtype)


def dtype_of_weights():
    """The dtype of what losses and layers learn or remember: that of Keras, float32 at least."""
    return at_least_float32(keras.config.floatx())


def _of_one_dtype(a, b):
    """Both in the wider of their dtypes, as NumPy would have it."""
    dtype = keras.backend.result_type(a.dtype, b.dtype)
    return ops.cast(a, dtype), ops.cast(b, dtype)


def _check_broadcasts(a, b):
    sizes = list(zip(reversed(a.shape), reversed(b.shape)))[1:]
    if any(None not in pair and 1 not in pair and pair[0] != pair[1] for pair in sizes):
        raise ValueError(
            "`a` and `b` must have as many rows, or one of them one. Received: "
            f"a.shape={tuple(a.shape)}, b.shape={tuple(b.shape)}"
        )


def _check_dim(a, b):
    if a.shape[-1] is not None and b.shape[-1] is not None and a.shape[-1] != b.shape[-1]:
        raise ValueError(
            "`a` and `b` must have vectors of the same length. "
            f"Received: a.shape={tuple(a.shape)}, b.shape={tuple(b.shape)}"
        )


def _centred(x):
    return x - ops.mean(x, axis=-1, keepdims=True)


def _off_diagonal(x):
    """Boolean matrix of the shape of `x`, False where row and column have the same number."""
    rows, columns = ops.shape(x)[0], ops.shape(x)[1]
    return ops.not_equal(ops.arange(rows)[:, None], ops.arange(columns)[None, :])


def _together(a, b):
    """Shift and scale both sets alike, so that the matrix product neither overflows nor cancels.

    Distances do not change when the mean is taken away, and near a collapse of the embeddings
    that saves all the digits. Where one far vector makes the mean it would cost the others
    theirs, and nothing is taken away. The scale is exactly 1 unless a component exceeds 1e14.
    A vector that is not finite spoils its own distances alone.
    """
    sound = ops.where(ops.isfinite(b), b, 0)
    largest = ops.maximum(
        ops.max(ops.where(ops.isfinite(a), ops.abs(a), 0)), ops.max(ops.abs(sound))
    )
    scale = ops.maximum(largest / _SAFE, ops.ones_like(largest))
    a, b, sound = a / scale, b / scale, sound / scale
    centre = ops.mean(sound, axis=0, keepdims=True)
    most = ops.sum(ops.square(centre)) > 0.75 * ops.mean(ops.sum(ops.square(sound), axis=1))
    centre = ops.where(most, centre, 0)
    return a - centre, b - centre, scale


class _Differences:
    """Euclidean and squared Euclidean distances of some anchors at a time.

    One matrix product forward and two back, by hand: autodiff would keep four matrices, and its
    square root has an infinite slope at zero.
    """

    def __init__(self, anchors, references, root):
        self.anchors, self.references, self.scale = _together(anchors, references)
        self.transposed = ops.transpose(self.references)
        self.lengths = ops.sum(ops.square(self.references), -1)[None, :]
        self.root = root

    def measure(self, anchors):
        """Distances of some rows of `self.anchors` to all references."""
        lengths = ops.sum(ops.square(anchors), -1)[:, None] + self.lengths
        squared = ops.maximum(lengths - 2 * ops.matmul(anchors, self.transposed), 0)
        if self.root:
            return ops.sqrt(squared) * self.scale
        # The limit is applied before scaling back: the square of the scale itself may overflow.
        return ops.minimum(squared, _LARGEST / self.scale / self.scale) * self.scale * self.scale

    def weights(self, distance, slopes):
        """What `pull` wants, from distances and the derivatives with respect to them."""
        if self.root:
            far = distance > _TINY * self.scale
            return ops.where(far, slopes * (self.scale / ops.where(far, distance, 1)), 0)
        return ops.where(distance < 0.99 * _LARGEST, 2 * slopes * self.scale, 0)

    def pull(self, weights, factor):
        """Gradients of anchors and references, the rows of `weights` times `factor` (rows, 1)."""
        a, b = self.anchors, self.references
        to_a = factor * (ops.sum(weights, 1)[:, None] * a - ops.matmul(weights, b))
        sums = ops.matmul(ops.transpose(weights), ops.concatenate([factor * a, factor], axis=1))
        return to_a, sums[:, -1:] * b - sums[:, :-1]


class _Products:
    """Distances `offset - a.b`, some anchors at a time."""

    def __init__(self, anchors, references, offset):
        self.anchors, self.references = anchors, references
        self.transposed = ops.transpose(references)
        self.offset = offset

    def measure(self, anchors):
        return self.offset - ops.matmul(anchors, self.transposed)

    def weights(self, distance, slopes):
        return -slopes

    def pull(self, weights, factor):
        to_a = factor * ops.matmul(weights, self.references)
        return to_a, ops.matmul(ops.transpose(weights), factor * self.anchors)


class _Finished:
    """A matrix of distances that was worked out before."""

    def __init__(self, matrix):
        self.anchors = matrix

    def measure(self, rows):
        return rows

    def weights(self, distance, slopes):
        return slopes

    def pull(self, weights, factor):
        return (factor * weights,)


def some_rows_at_a_time(a, b, metric):
    """How a loss measures a block of anchors without ever holding the matrix of distances.

    Returns:
        `(inputs, ruler)`: the tensors to differentiate, and a function of them that returns an
        object with `anchors` (its rows are what to hand to `measure`), `measure`, `weights` and
        `pull`, see `_Differences`. Metrics that are no matrix product come as a whole matrix.
    """
    _check_dim(a, b)
    a, b = _mapped(a, b, metric)
    metric = name_of(metric)
    if metric in ("euclidean", "squared_euclidean"):
        return (a, b), lambda a, b: _Differences(a, b, root=metric == "euclidean")
    if metric in ("cosine", "pearson"):
        a, b = (unit(x if metric == "cosine" else _centred(x)) for x in (a, b))
        return (a, b), lambda a, b: _Products(a, b, offset=1)
    if metric == "dot":
        return (a, b), lambda a, b: _Products(a, b, offset=0)
    return finished(_PAIRWISE[metric](a, b, a is b))


def finished(matrix):
    """The same as `some_rows_at_a_time` for a `matrix` of distances (rows, columns)."""
    return (matrix,), _Finished


def _pairwise_differences(a, b, own, root):
    @ops.custom_gradient
    def run(a, b):
        ruler = _Differences(*unwatched((a, b)), root=root)
        distance = ruler.measure(ruler.anchors)
        if own:
            distance = ops.where(_off_diagonal(distance), distance, 0)

        def grad(*args, upstream=None):
            slopes = incoming_gradient(args, upstream)
            return ruler.pull(ruler.weights(distance, slopes), ops.ones_like(slopes[:, :1]))

        return distance, grad

    return run(a, b)


def _pairwise_euclidean(a, b, own):
    return _pairwise_differences(a, b, own, root=True)


def _pairwise_squared_euclidean(a, b, own):
    return _pairwise_differences(a, b, own, root=False)


def _pairwise_manhattan(a, b, own):
    # One matrix a dimension, added up in a loop: broadcasting would need (rows, columns, dim).
    dims = a.shape[-1]

    @ops.custom_gradient
    def run(a, b):
        a, b = unwatched((a, b))
        columns_a, columns_b = ops.transpose(a), ops.transpose(b)

        def gap(k):
            return ops.take(columns_a, k, axis=0)[:, None] - ops.take(columns_b, k, axis=0)[None, :]

        distance = ops.fori_loop(
            0, dims, lambda k, total: total + ops.abs(gap(k)), ops.zeros_like(gap(0))
        )

        def grad(*args, upstream=None):
            incoming = incoming_gradient(args, upstream)

            def side(k, state):
                to_a, to_b = state
                pull = incoming * ops.sign(gap(k))
                row_a, row_b = ops.sum(pull, 1)[None], -ops.sum(pull, 0)[None]
                return (
                    ops.slice_update(to_a, (k, 0), row_a),
                    ops.slice_update(to_b, (k, 0), row_b),
                )

            start = (ops.zeros_like(columns_a), ops.zeros_like(columns_b))
            to_a, to_b = ops.fori_loop(0, dims, side, start)
            return ops.transpose(to_a), ops.transpose(to_b)

        return distance, grad

    return run(a, b)


def _pairwise_cosine(a, b, own):
    return 1 - ops.matmul(unit(a), ops.transpose(unit(b)))


def _pairwise_dot(a, b, own):
    return -ops.matmul(a, ops.transpose(b))


def _pairwise_pearson(a, b, own):
    return _pairwise_cosine(_centred(a), _centred(b), own)


def _pairwise_snr(a, b, own):
    a, b = _centred(a), _centred(b)
    power = ops.maximum(ops.sum(ops.square(a), -1), _SMALLEST_VARIANCE)
    return _pairwise_squared_euclidean(a, b, own) / power[:, None]


def _elementwise_euclidean(a, b):
    difference = a - b
    largest = _largest(difference)
    scale = ops.maximum(largest / _SAFE, ops.ones_like(largest))
    squared = ops.sum(ops.square(difference / scale), axis=-1)
    far = squared > _TINY**2
    # The inner `where` keeps the unused branch finite: autodiff visits both.
    return ops.where(far, ops.sqrt(ops.where(far, squared, 1)), 0) * scale[..., 0]


def _elementwise_squared_euclidean(a, b):
    limit = _LARGEST**0.5
    difference = ops.clip(a - b, -limit, limit)
    return ops.minimum(ops.sum(ops.square(difference), axis=-1), _LARGEST)


def _elementwise_manhattan(a, b):
    return ops.sum(ops.abs(a - b), axis=-1)


def _elementwise_cosine(a, b):
    return 1 - ops.sum(unit(a) * unit(b), axis=-1)


def _elementwise_dot(a, b):
    return -ops.sum(a * b, axis=-1)


def _elementwise_pearson(a, b):
    return _elementwise_cosine(_centred(a), _centred(b))


def _elementwise_snr(a, b):
    power = ops.maximum(ops.sum(ops.square(_centred(a)), -1), _SMALLEST_VARIANCE)
    return _elementwise_squared_euclidean(_centred(a), _centred(b)) / power


_PAIRWISE = {
    "euclidean": _pairwise_euclidean,
    "squared_euclidean": _pairwise_squared_euclidean,
    "manhattan": _pairwise_manhattan,
    "cosine": _pairwise_cosine,
    "dot": _pairwise_dot,
    "pearson": _pairwise_pearson,
    "snr": _pairwise_snr,
}
_ELEMENTWISE = {
    "euclidean": _elementwise_euclidean,
    "squared_euclidean": _elementwise_squared_euclidean,
    "manhattan": _elementwise_manhattan,
    "cosine": _elementwise_cosine,
    "dot": _elementwise_dot,
    "pearson": _elementwise_pearson,
    "snr": _elementwise_snr,
}
METRICS = tuple(sorted(_PAIRWISE))

__all__ = ["elementwise", "pairwise"]
