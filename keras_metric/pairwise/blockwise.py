"""Terms of a loss for blocks of some hundred anchors, with a hand-written gradient.

A block of distances is computed, used and released while it fits the cache. What remains is one
matrix (batch, references) of derivatives, from which two matrix products give the gradient of the
embeddings.
"""

import functools
import math

from keras import ops

# Entries of a block. 2**18 of float32 are 1 MB, which fits a core's cache together with their
# derivatives and one temporary.
BLOCK = 2**18

# Squared distances are bounded by this, so that a sum over a batch stays inside float32.
LARGEST_SQUARE = 1e30
# Components above this are scaled down before they are squared.
LARGEST_COMPONENT = 1e14
# Distances below this have no derivative: that of the square root is infinite at zero.
SMALLEST_DISTANCE = 1e-7


def untraced(tensors):
    """The same tensors for the inside of a custom gradient.

    Without this, a tape of eager TensorFlow stores every matrix of the forward pass.
    """
    return tuple(map(ops.stop_gradient, tensors))


def incoming_gradient(args, upstream):
    """The argument of a custom gradient: torch passes it by name, the others by position."""
    return args[0] if upstream is None else upstream


def rows_in_blocks(compute, distances, pairs, noise=None, block=BLOCK, size=None, with_sums=False):
    """Tensors (batch,) that `compute` returns for each anchor; the first is differentiable.

    Args:
        compute: function of (distances, pairs, noise) of a block of anchors. It returns tensors
            (rows,), and last the derivative of the first of them with respect to the distances.
            Autodiff does not trace it, so loops with a dynamic number of steps are allowed, and no
            step stores its matrices.
        distances: `(inputs, make)` of `distances.block_distances` or `of_matrix`: the tensors to
            differentiate, and a function of them that returns an object such as
            `EuclideanDistances`.
        pairs: `Pairs` of the whole batch.
        noise: (batch, references) or None.
        block: number of distances of a block, approximately.
        size: number of rows of a block, in place of `block`.
        with_sums: whether to append the sums of each row's distances to positives and negatives.

    Returns:
        List of the tensors of `compute` for the whole batch.
    """
    inputs, make = distances

    @ops.custom_gradient
    def run(*inputs):
        measured = make(*untraced(inputs))

        def of_block(anchors, pairs, noise):
            distance = measured.of(anchors)
            *rows, derivative = compute(distance, pairs, noise)
            if with_sums:
                for mask in (pairs.positive, pairs.negative):
                    rows.append(ops.sum(ops.where(mask, distance, 0), -1))
            return ops.stack(rows, axis=1), measured.weights(distance, derivative)

        batch, references = measured.anchors.shape[0], pairs.size
        # The number of references may be unknown while tracing; 1,024 stands for it.
        most = size or 2 ** round(math.log2(max(block / (references or 1024), 32)))
        if batch is not None and batch <= most:
            rows, weights = of_block(measured.anchors, pairs, noise)
        else:
            rows, weights = _mapped(of_block, measured.anchors, pairs, noise, most)

        def grad(*args, upstream=None):
            factor = incoming_gradient(args, upstream)[0][:, None]
            gradients = measured.backward(weights, factor)
            return gradients if len(gradients) > 1 else gradients[0]

        return ops.transpose(rows), grad

    stacked = run(*inputs)
    return [stacked[0], *ops.unstack(ops.stop_gradient(stacked[1:]))]


def _mapped(of_block, anchors, pairs, noise, size):
    """Results of `of_block` for blocks of `size` anchors, one after the other."""
    batch = ops.shape(anchors)[0]
    blocks = (batch + size - 1) // size

    def one(number):
        position = number * size + ops.arange(size, dtype="int32")
        inside = position < batch
        # Padding rows of the last block have no positives and contribute nothing.
        position = ops.minimum(position, batch - 1)
        some = None if noise is None else ops.take(noise, position, axis=0)
        return of_block(ops.take(anchors, position, axis=0), pairs.rows(position, inside), some)

    def joined(results):
        results = ops.reshape(results, (blocks * size, *ops.shape(results)[2:]))
        whole = isinstance(batch, int) and batch % size == 0
        return results if whole else results[:batch]

    results = ops.map(one, ops.arange(blocks, dtype="int32"))
    return tuple(joined(result) for result in results)


class EuclideanDistances:
    """Euclidean or squared Euclidean distances of blocks of `anchors` to all references.

    One matrix product forward and two backward, written by hand: autodiff stores four matrices,
    and its square root has an infinite derivative at zero.
    """

    def __init__(self, anchors, references, root):
        self.anchors, self.references, self.scale = _centred(anchors, references)
        self.transposed = ops.transpose(self.references)
        self.squares = ops.sum(ops.square(self.references), -1)[None, :]
        self.root = root

    def of(self, anchors):
        """Distances of some rows of `self.anchors` to all references."""
        squares = ops.sum(ops.square(anchors), -1)[:, None] + self.squares
        squared = ops.maximum(squares - 2 * ops.matmul(anchors, self.transposed), 0)
        if self.root:
            return ops.sqrt(squared) * self.scale
        # The bound is applied before scaling back: the square of the scale itself may overflow.
        bounded = ops.minimum(squared, LARGEST_SQUARE / self.scale / self.scale)
        return bounded * self.scale * self.scale

    def weights(self, distance, derivative):
        """The matrix that `backward` takes, from distances and the derivatives by them."""
        if self.root:
            apart = distance > SMALLEST_DISTANCE * self.scale
            return ops.where(apart, derivative * (self.scale / ops.where(apart, distance, 1)), 0)
        return ops.where(distance < 0.99 * LARGEST_SQUARE, 2 * derivative * self.scale, 0)

    def backward(self, weights, factor):
        """Gradients of anchors and references; `factor` (rows, 1) multiplies rows of `weights`."""
        a, b = self.anchors, self.references
        to_a = factor * (ops.sum(weights, 1)[:, None] * a - ops.matmul(weights, b))
        sums = ops.matmul(ops.transpose(weights), ops.concatenate([factor * a, factor], axis=1))
        return to_a, sums[:, -1:] * b - sums[:, :-1]


def _centred(a, b):
    """Subtract one centre from both sets and divide both by one scale.

    Distances do not depend on the centre. It is the mean of `b` if that has most of the squared
    length, as in nearly collapsed embeddings, whose distances then keep all their digits. Otherwise
    it is 0: a mean that one far vector determines would cost the others their digits. The scale is
    exactly 1 unless a component exceeds 1e14; then it prevents an overflow. A vector that is not
    finite affects only its own distances.
    """
    finite = ops.where(ops.isfinite(b), b, 0)
    largest = ops.maximum(
        ops.max(ops.where(ops.isfinite(a), ops.abs(a), 0)), ops.max(ops.abs(finite))
    )
    scale = ops.maximum(largest / LARGEST_COMPONENT, ops.ones_like(largest))
    a, b, finite = a / scale, b / scale, finite / scale
    centre = ops.mean(finite, axis=0, keepdims=True)
    near = ops.sum(ops.square(centre)) > 0.75 * ops.mean(ops.sum(ops.square(finite), axis=1))
    centre = ops.where(near, centre, 0)
    return a - centre, b - centre, scale


class DotDistances:
    """Distances `offset - a.b` of blocks of anchors, as `EuclideanDistances`."""

    def __init__(self, anchors, references, offset):
        self.anchors, self.references = anchors, references
        self.transposed = ops.transpose(references)
        self.offset = offset

    def of(self, anchors):
        return self.offset - ops.matmul(anchors, self.transposed)

    def weights(self, distance, derivative):
        return -derivative

    def backward(self, weights, factor):
        to_a = factor * ops.matmul(weights, self.references)
        return to_a, ops.matmul(ops.transpose(weights), factor * self.anchors)


class MatrixDistances:
    """Rows of a matrix of distances that was computed before, as `EuclideanDistances`."""

    def __init__(self, matrix):
        self.anchors = matrix

    def of(self, rows):
        return rows

    def weights(self, distance, derivative):
        return derivative

    def backward(self, weights, factor):
        return (factor * weights,)


def of_vectors(a, b, make, **settings):
    """`distances` of `rows_in_blocks` for the vectors of two sets and one of the classes above."""
    return (a, b), functools.partial(make, **settings)


def of_matrix(matrix):
    """`distances` of `rows_in_blocks` for a matrix of distances (rows, references)."""
    return (matrix,), MatrixDistances
