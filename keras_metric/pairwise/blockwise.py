"""Terms of a loss for blocks of some hundred anchors, with a hand-written gradient.

A block of distances is computed, used and released while it fits the cache. What remains is one
matrix (batch, references) of derivatives, from which two matrix products give the gradient of the
embeddings. Of a large batch not even that remains: the backward pass computes each block again.
"""

import functools
import math

from keras import ops, tree

# Entries of a block. 2**18 of float32 are 1 MB, which fits a core's cache together with their
# derivatives and one temporary.
BLOCK = 2**18
# Entries of the matrix of derivatives above which it is not kept: 64 MB of float32.
KEPT = 2**24

# Settings of `rows_in_blocks` for terms of few and cheap passes over a block, as a softmax.
FEW_PASSES = {"block": 2**20, "cheap": True}

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


def rows_in_blocks(
    compute,
    distances,
    pairs,
    noise=None,
    block=BLOCK,
    size=None,
    kept=KEPT,
    cheap=False,
    with_sums=False,
):
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
        kept: number of distances up to which their derivatives are kept. Above it, the backward
            pass runs `compute` again.
        cheap: whether to run `compute` again also where the size is unknown while tracing.
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
        unknown = batch is None or references is None
        keep = not measured.makes_blocks or (not cheap if unknown else batch * references <= kept)
        blocks = None
        if unknown or batch > most:
            blocks = RowBlocks(ops.shape(measured.anchors)[0], most)

        def of_number(number):
            position, inside = blocks.at(number)
            some = None if noise is None else ops.take(noise, position, axis=0)
            anchors = ops.take(measured.anchors, position, axis=0)
            return anchors, inside, of_block(anchors, pairs.rows(position, inside), some)

        if blocks is None:
            rows, weights = of_block(measured.anchors, pairs, noise)
        elif keep:
            rows, weights = blocks.map(lambda number: of_number(number)[-1])
        else:
            rows = blocks.map(lambda number: of_number(number)[-1][0])

        def grad(*args, upstream=None):
            factor = incoming_gradient(args, upstream)[0][:, None]
            if blocks is None or keep:
                to_anchors, sums = measured.backward(measured.anchors, weights, factor)
                gradients = to_anchors, *measured.of_references(sums)
                return gradients if len(gradients) > 1 else gradients[0]

            def backward(sums, number):
                anchors, inside, (_, weights) = of_number(number)
                part = ops.take(factor, blocks.at(number)[0], axis=0)
                # The last block repeats the last row.
                part = ops.where(inside[:, None], part, 0)
                to_anchors, more = measured.backward(anchors, weights, part)
                return sums + more, to_anchors

            sums, to_anchors = blocks.loop(backward, measured.no_sums(), measured.anchors.shape[1])
            return to_anchors, *measured.of_references(sums)

        return ops.transpose(rows), grad

    stacked = run(*inputs)
    return [stacked[0], *ops.unstack(ops.stop_gradient(stacked[1:]))]


class RowBlocks:
    """The blocks of `size` rows that cover a batch, whose size may be unknown while tracing."""

    def __init__(self, batch, size):
        self.batch, self.size = batch, size
        self.number = (batch + size - 1) // size

    def at(self, number):
        """Positions of the rows of a block, and which of them are inside the batch.

        The last block is filled with copies of the last row.
        """
        position = number * self.size + ops.arange(self.size, dtype="int32")
        return ops.minimum(position, self.batch - 1), position < self.batch

    def map(self, function):
        """The rows that `function(number)` returns for all blocks, joined."""
        results = ops.map(function, ops.arange(self.number, dtype="int32"))
        return tree.map_structure(lambda rows: self._batch(self._joined(rows)), results)

    def loop(self, step, state, width):
        """Run `state, rows = step(state, number)` for all blocks; `rows` have shape (size, width).

        Returns the last state, and the joined rows (batch, width).
        """
        # Not `ops.scan`: on TensorFlow it requires rows of the shape of the state.
        rows = ops.zeros((self.number * self.size, width), dtype=state.dtype)

        def body(number, state, rows):
            state, new = step(state, number)
            return number + 1, state, ops.slice_update(rows, (number * self.size, 0), new)

        first = ops.zeros((), dtype="int32")
        _, state, rows = ops.while_loop(
            lambda number, *_: number < self.number, body, (first, state, rows)
        )
        return state, self._batch(rows)

    def _joined(self, rows):
        return ops.reshape(rows, (self.number * self.size, *ops.shape(rows)[2:]))

    def _batch(self, rows):
        whole = isinstance(self.batch, int) and self.batch % self.size == 0
        return rows if whole else rows[: self.batch]


class EuclideanDistances:
    """Euclidean or squared Euclidean distances of blocks of `anchors` to all references.

    One matrix product forward and two backward, written by hand: autodiff stores four matrices,
    and its square root has an infinite derivative at zero.
    """

    makes_blocks = True

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

    def backward(self, anchors, weights, factor):
        """The gradient of some anchors, and their part of the sums for `of_references`.

        `factor` (rows, 1) multiplies the rows of `weights`.
        """
        a, b = anchors, self.references
        to_a = factor * (ops.sum(weights, 1)[:, None] * a - ops.matmul(weights, b))
        both = ops.concatenate([factor * a, factor], axis=1)
        return to_a, ops.matmul(ops.transpose(weights), both)

    def no_sums(self):
        """The sums of no anchors."""
        return ops.zeros_like(ops.pad(self.references, [(0, 0), (0, 1)]))

    def of_references(self, sums):
        """The gradient of the references, in a tuple."""
        return (sums[:, -1:] * self.references - sums[:, :-1],)


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

    makes_blocks = True

    def __init__(self, anchors, references, offset):
        self.anchors, self.references = anchors, references
        self.transposed = ops.transpose(references)
        self.offset = offset

    def of(self, anchors):
        return self.offset - ops.matmul(anchors, self.transposed)

    def weights(self, distance, derivative):
        return -derivative

    def backward(self, anchors, weights, factor):
        to_a = factor * ops.matmul(weights, self.references)
        return to_a, ops.matmul(ops.transpose(weights), factor * anchors)

    def no_sums(self):
        return ops.zeros_like(self.references)

    def of_references(self, sums):
        return (sums,)


class MatrixDistances:
    """Rows of a matrix of distances that was computed before, as `EuclideanDistances`."""

    # The matrix is in memory, whatever the size of a block.
    makes_blocks = False

    def __init__(self, matrix):
        self.anchors = matrix

    def of(self, rows):
        return rows

    def weights(self, distance, derivative):
        return derivative

    def backward(self, rows, weights, factor):
        return factor * weights, None

    def of_references(self, sums):
        return ()


def of_vectors(a, b, make, **settings):
    """`distances` of `rows_in_blocks` for the vectors of two sets and one of the classes above."""
    return (a, b), functools.partial(make, **settings)


def of_matrix(matrix):
    """`distances` of `rows_in_blocks` for a matrix of distances (rows, references)."""
    return (matrix,), MatrixDistances
