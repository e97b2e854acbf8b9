"""Distances between embeddings. Smaller is closer in every metric.

| metric | formula | range |
| --- | --- | --- |
| `euclidean` | `sqrt(sum((a - b)**2))` | 0 and up; 0 to 2 for unit vectors |
| `squared_euclidean` | `sum((a - b)**2)` | 0 and up; 0 to 4 for unit vectors |
| `manhattan` | `sum(abs(a - b))` | 0 and up |
| `cosine` | `1 - a.b / (norm(a) * norm(b))` | 0 to 2 |
| `dot` | `-a.b` | all reals; -1 to 1 for unit vectors |
| `pearson` | `1 - r(a, b)`, r the correlation over the dimensions | 0 to 2 |
| `snr` | `var(a - b) / var(a)`, a the anchor: not symmetric | 0 and up |

The losses on pairs and triplets, `pairwise` and `elementwise` also accept a learned metric, a
`keras_metric.layers.Mahalanobis`, in place of a name. Gradients are finite everywhere: two equal
points, and a zero vector, get a zero gradient where the formula has none.
"""

import functools

import keras
from keras import ops

from keras_metric._validation import (
    as_tensor,
    at_least_float32,
    check_choice,
    check_floating,
    check_matrix,
)
from keras_metric.pairwise import blockwise
from keras_metric.pairwise.blockwise import (
    LARGEST_COMPONENT,
    LARGEST_SQUARE,
    SMALLEST_DISTANCE,
    EuclideanDistances,
    incoming_gradient,
    untraced,
)

_SMALLEST_VARIANCE = 1e-12


def pairwise(a, b=None, metric="euclidean"):
    """Distances between every row of `a` and every row of `b`, as one matrix.

    Memory is a few matrices of the size of the result; no tensor of shape `(rows, columns, dim)`
    is built. Euclidean distances come from a matrix product, so a float32 distance below about 0.01
    of the vectors' length has a relative error of about 1e-3.

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
    check_dim(a, b)
    if not own:
        a, b = _of_one_dtype(a, b)
    a, b = _mapped(*_wide_enough(a, b), metric)
    if 0 in (a.shape[0], b.shape[0]):
        return ops.zeros((ops.shape(a)[0], ops.shape(b)[0]), dtype=a.dtype)
    return _PAIRWISE[name_of(metric)](a, b, own)


def elementwise(a, b, metric="euclidean"):
    """Distance of each vector of `a` to the vector of `b` at the same position.

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
    check_dim(a, b)
    _check_broadcasts(a, b)
    a, b = _wide_enough(*_of_one_dtype(a, b))
    return _ELEMENTWISE[name_of(metric)](*_mapped(a, b, metric))


def check_metric(argument, metric):
    """Raise unless `metric` is a name of the table, or a layer that maps vectors for a name."""
    if not layers_of(metric):
        check_choice(argument, metric, METRICS)


def layers_of(metric):
    """The layers of a learned metric, none of a name."""
    return (metric,) if getattr(metric, "metric", None) in METRICS else ()


def name_of(metric):
    """The name of `metric`; of a learned metric, the name that applies to the mapped vectors."""
    return metric.metric if layers_of(metric) else metric


def _mapped(a, b, metric):
    for layer in layers_of(metric):
        a, b = (layer(a),) * 2 if a is b else (layer(a), layer(b))
    return a, b


def unit(x):
    """Return `x` scaled to length 1 along its last axis; a zero vector stays zero.

    Each vector is first divided by its largest component, so that neither a huge nor a tiny vector
    leaves the range of its dtype. A zero vector has a zero gradient.
    """
    largest = _largest(x)
    x = x / ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    some = squares > 0
    return x * ops.where(some, ops.rsqrt(ops.where(some, squares, 1)), 0)


def _largest(x):
    """The largest component of each vector, (..., 1), without a gradient."""
    # ops.max raises for a batch without rows. Its `initial` avoids that, but on PyTorch it waits
    # for the device, and fails while Keras infers shapes.
    sizes = ops.abs(x)
    most = ops.sum if 0 in sizes.shape else ops.max
    return ops.stop_gradient(most(sizes, axis=-1, keepdims=True))


def _wide_enough(a, b):
    """Both in float32 at least: squares of half-precision components overflow."""
    dtype = at_least_float32(keras.backend.standardize_dtype(a.dtype))
    wide = ops.cast(a, dtype)
    return wide, wide if a is b else ops.cast(b, dtype)


def dtype_of_weights():
    """The dtype of the weights and states of losses and layers: that of Keras, at least float32."""
    return at_least_float32(keras.config.floatx())


def _of_one_dtype(a, b):
    """Both in the wider of their dtypes, as in NumPy."""
    dtype = keras.backend.result_type(a.dtype, b.dtype)
    return ops.cast(a, dtype), ops.cast(b, dtype)


def _check_broadcasts(a, b):
    sizes = list(zip(reversed(a.shape), reversed(b.shape)))[1:]
    if any(None not in pair and 1 not in pair and pair[0] != pair[1] for pair in sizes):
        raise ValueError(
            "`a` and `b` must have as many rows, or one of them one. Received: "
            f"a.shape={tuple(a.shape)}, b.shape={tuple(b.shape)}"
        )


def check_dim(a, b):
    """Raise if the vectors of `a` and `b` have different lengths."""
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


def _pairwise_differences(a, b, own, root):
    @ops.custom_gradient
    def run(a, b):
        measured = EuclideanDistances(*untraced((a, b)), root=root)
        distance = measured.of(measured.anchors)
        if own:
            distance = ops.where(_off_diagonal(distance), distance, 0)

        def grad(*args, upstream=None):
            incoming = incoming_gradient(args, upstream)
            weights = measured.weights(distance, incoming)
            to_a, sums = measured.backward(
                measured.anchors, weights, ops.ones_like(incoming[:, :1])
            )
            return to_a, *measured.of_references(sums)

        return distance, grad

    return run(a, b)


def _pairwise_manhattan(a, b, own):
    # The loop adds one matrix for each dimension; broadcasting needs (rows, columns, dim).
    dims = a.shape[-1]

    @ops.custom_gradient
    def run(a, b):
        a, b = untraced((a, b))
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
                to_gap = incoming * ops.sign(gap(k))
                row_a, row_b = ops.sum(to_gap, 1)[None], -ops.sum(to_gap, 0)[None]
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
    return _pairwise_differences(a, b, own, root=False) / power[:, None]


def _elementwise_euclidean(a, b):
    difference = a - b
    largest = _largest(difference)
    scale = ops.maximum(largest / LARGEST_COMPONENT, ops.ones_like(largest))
    squared = ops.sum(ops.square(difference / scale), axis=-1)
    apart = squared > SMALLEST_DISTANCE**2
    # The inner `where` makes the unused branch finite, since autodiff evaluates both.
    return ops.where(apart, ops.sqrt(ops.where(apart, squared, 1)), 0) * scale[..., 0]


def _elementwise_squared_euclidean(a, b):
    limit = LARGEST_SQUARE**0.5
    difference = ops.clip(a - b, -limit, limit)
    return ops.minimum(ops.sum(ops.square(difference), axis=-1), LARGEST_SQUARE)


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
    "euclidean": functools.partial(_pairwise_differences, root=True),
    "squared_euclidean": functools.partial(_pairwise_differences, root=False),
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

# Metrics that a matrix product computes, by the function of (a, b) for `rows_in_blocks`.
_IN_BLOCKS = {
    "euclidean": functools.partial(blockwise.of_vectors, make=EuclideanDistances, root=True),
    "squared_euclidean": functools.partial(
        blockwise.of_vectors, make=EuclideanDistances, root=False
    ),
    "dot": functools.partial(blockwise.of_vectors, make=blockwise.DotDistances, offset=0),
}


def in_blocks(metric):
    """A function of anchors (rows, dim) and references (columns, dim) for `rows_in_blocks`.

    It returns the tensors to differentiate, and a function of them that computes the distances of
    a block of anchors, so that a loss needs no matrix of distances. Metrics that are no matrix
    product come as a whole matrix.
    """
    return _IN_BLOCKS.get(metric) or functools.partial(_in_blocks, metric=metric)


def _in_blocks(a, b, metric):
    a, b = _mapped(a, b, metric)
    metric = name_of(metric)
    if metric in _IN_BLOCKS:
        return _IN_BLOCKS[metric](a, b)
    if metric in ("cosine", "pearson"):
        a, b = (unit(x if metric == "cosine" else _centred(x)) for x in (a, b))
        return blockwise.of_vectors(a, b, blockwise.DotDistances, offset=1)
    return blockwise.of_matrix(_PAIRWISE[metric](a, b, a is b))


__all__ = ["elementwise", "pairwise"]
