"""Log-sum-exp over the classes of a batch in blocks of classes, with a hand-written gradient.

Autodiff of a softmax over a million classes stores several matrices (batch, classes). Here a block
of logits is computed, used and released, and the backward pass computes it again. What remains are
the gradient of the class vectors and numbers of each item.
"""

import math
from typing import Any, NamedTuple

from keras import ops

from keras_metric.pairwise.blockwise import incoming_gradient, untraced

# Logits of a block, 4 MB in float32: with its temporaries it fits the cache of a core.
BLOCK = 2**20
# Up to this number of logits one block has all classes, and its softmax is kept for the backward
# pass: 16 MB in float32, which the processor reads faster than it computes them again.
KEPT = 2**22
# The number of items may be unknown while tracing; this number stands for it.
_USUAL_BATCH = 256
# Logits are bounded by this: rounding errors of larger ones, which depend on the compiler, exceed
# the range of an exponential.
LARGEST_LOGIT = 1e9
# Logits below this need no shift by their maximum: exp(64) times 1e10 classes is a float32.
_NO_SHIFT = 64
# The logit of a column that is left out.
_NONE = -1e30


class Form(NamedTuple):
    """How logits are computed from products of embeddings and class vectors.

    `limit`: what no logit exceeds in size; infinity if it is unknown. `each`: number of vectors of
    a class. `unit`: whether the vectors are scaled to length 1.
    `pool`: function of the products (classes, each, batch) that returns logits (classes, batch) and
    their derivatives (classes, each, batch); None if the products are the logits.
    `logit_of_zero`: logit of a class whose vector is 0.
    """

    limit: float = math.inf
    each: int = 1
    unit: bool = True
    pool: Any = None
    logit_of_zero: float = 0.0


class Block:
    """Logits of the classes of some rows of the matrix of class vectors, and their gradients."""

    def __init__(self, left, vectors, form):
        self.left, self.form = left, form
        if not form.unit:
            self.right = vectors
        else:
            # Unlike `distances.unit`, without a step for vectors whose squares are no float32: it
            # takes a tenth of the time.
            squares = ops.sum(ops.square(vectors), axis=1, keepdims=True)
            self.some = squares > 0
            self.inverse = ops.where(self.some, ops.rsqrt(ops.where(self.some, squares, 1)), 0)
            self.right = vectors * self.inverse
        products = ops.matmul(self.right, ops.transpose(left))
        self.derivative = None
        if form.pool is not None:
            products = ops.reshape(products, (-1, form.each, ops.shape(left)[0]))
            products, self.derivative = form.pool(products)
        if form.logit_of_zero:
            products = ops.where(self.some, products, form.logit_of_zero)
        self.logits = products
        if form.limit > LARGEST_LOGIT:
            self.logits = ops.clip(products, -LARGEST_LOGIT, LARGEST_LOGIT)
            self.inside = ops.abs(products) < LARGEST_LOGIT

    def backward(self, gradient):
        """Gradients of `left` and of the vectors, from that of the logits (classes, batch)."""
        form = self.form
        if form.limit > LARGEST_LOGIT:
            gradient = ops.where(self.inside, gradient, 0)
        if form.pool is not None:
            gradient = self.derivative * gradient[:, None]
            gradient = ops.reshape(gradient, (-1, ops.shape(self.left)[0]))
        to_left = ops.matmul(ops.transpose(gradient), self.right)
        to_right = ops.matmul(gradient, self.left)
        if form.unit:
            along = ops.sum(to_right * self.right, axis=1, keepdims=True)
            to_right = (to_right - along * self.right) * self.inverse
        return to_left, to_right


def log_sums(left, vectors, own, form=None, valid=None, with_sums=False, size=None):
    """Log-sum-exp of each item's logits with the other classes, and the logit with its own class.

    Args:
        left: `(batch, dim)`. Its products with the class vectors are the logits, see `Form`.
        vectors: `(classes * each, dim)`.
        own: `(batch,)`, the position of each item's class in `vectors`; -1 if it is not there.
        form: a `Form`. Default: cosines, with one vector for each class.
        valid: Boolean `(classes,)`, the classes that count as others. Default: all.
        with_sums: whether to return the sums of the logits with the other classes too, and the
            numbers of these classes. They have no gradient.
        size: number of classes of a block. Default: chosen by the number of logits.

    Returns:
        List of two or four tensors `(batch,)`.
    """
    form = form or Form()
    rows = vectors.shape[0]
    classes = None if rows is None else rows // form.each
    size = block_size(left.shape[0], classes, form.each) if size is None else size
    one_block = classes is None or size >= classes

    def masks(start, number):
        position = start + ops.arange(number, dtype="int32")
        mine = ops.equal(position[:, None], own[None, :])
        if valid is None:
            return mine, None
        return mine, (valid if one_block else ops.slice(valid, (start,), (number,)))[:, None]

    def of_logits(logits, mine, counts):
        left_out = mine if counts is None else ops.logical_or(mine, ops.logical_not(counts))
        others = ops.where(left_out, _NONE, logits)
        if form.limit <= _NO_SHIFT:
            total = ops.sum(ops.exp(others), axis=0)
            some = total > 0
            result = [ops.where(some, ops.log(ops.where(some, total, 1)), _NONE)]
        else:
            top = ops.max(others, axis=0)
            result = [top + ops.log(ops.sum(ops.exp(others - top), axis=0))]
        if with_sums:
            result.append(ops.sum(ops.where(left_out, 0, logits), axis=0))
            result.append(ops.sum(ops.where(left_out, 0, ops.ones_like(logits)), axis=0))
        return ops.stack(result)

    def gradient_of(logits, mine, counts, sums, upstream):
        if form.limit <= _NO_SHIFT:
            some = sums[0] > _NONE
            inverse = ops.where(some, ops.exp(-ops.where(some, sums[0], 0)), 0)
            weights = ops.exp(logits) * (upstream[1] * inverse)
        else:
            weights = ops.exp(ops.minimum(logits - sums[0], 0)) * upstream[1]
        if counts is not None:
            weights = ops.where(counts, weights, 0)
        return ops.where(mine, upstream[0], weights)

    @ops.custom_gradient
    def run(left, vectors):
        left, vectors = untraced((left, vectors))

        def block(start, number):
            return Block(left, _rows(vectors, start, number, form.each), form)

        if one_block:
            number = ops.shape(vectors)[0] // form.each
            whole, mask = Block(left, vectors, form), masks(0, number)
            sums = of_logits(whole.logits, *mask)
            logit = ops.sum(ops.where(mask[0], whole.logits, 0), axis=0)

            def grad(*args, upstream=None):
                upstream = incoming_gradient(args, upstream)
                return whole.backward(gradient_of(whole.logits, *mask, sums, upstream))

            return ops.concatenate([logit[None], sums]), grad

        def forward(start, number):
            return of_logits(block(start, number).logits, *masks(start, number))

        sums = _joined(_in_blocks(forward, classes, size))
        # The vectors of the items' own classes, which take less time than a mask in each block.
        rows = ops.maximum(own, 0)[:, None] * form.each + ops.arange(form.each, dtype="int32")
        mine = Block(left, ops.take(vectors, ops.reshape(rows, (-1,)), axis=0), form)
        logit = ops.where(own >= 0, ops.diagonal(mine.logits), 0)

        def grad(*args, upstream=None):
            upstream = incoming_gradient(args, upstream)

            def one(start, number):
                part = block(start, number)
                return part.backward(
                    gradient_of(part.logits, *masks(start, number), sums, upstream)
                )

            parts = _in_blocks(one, classes, size)
            to_left = sum(ops.sum(part[0], axis=0) for part in parts)
            to_vectors = [ops.reshape(part[1], (-1, vectors.shape[1])) for part in parts]
            return to_left, to_vectors[0] if len(parts) == 1 else ops.concatenate(to_vectors)

        return ops.concatenate([logit[None], sums]), grad

    logit, others, *found = ops.unstack(run(left, vectors), 4 if with_sums else 2)
    return [others, logit, *map(ops.stop_gradient, found)]


def block_size(batch, classes, each):
    """Number of classes of a block: all of them if their logits may be kept."""
    batch = batch or _USUAL_BATCH
    if classes is None or classes * each * batch <= KEPT:
        return classes
    most = min(max(BLOCK // (batch * each), 64), classes)
    # With a divisor of the number of classes, the last block needs no separate code and no copy.
    return next((size for size in range(most, most // 4, -1) if classes % size == 0), most)


def _rows(vectors, start, number, each):
    return ops.slice(vectors, (start * each, 0), (number * each, vectors.shape[1]))


def _in_blocks(compute, classes, size):
    """Results of `compute(start, number)` for blocks of classes, each stacked along a new axis.

    A list of one part for the blocks of `size` classes, and one for the rest.
    """
    number, rest = divmod(classes, size)
    starts = ops.arange(number, dtype="int32") * size
    parts = [ops.map(lambda start: compute(start, size), starts)]
    if rest:
        last = compute(number * size, rest)
        last = last if isinstance(last, tuple) else (last,)
        last = tuple(tensor[None] for tensor in last)
        parts.append(last if isinstance(parts[0], tuple) else last[0])
    return parts


def _joined(parts):
    """Results of `of_logits` for all classes, from those of blocks (blocks, 1 or 3, batch)."""
    parts = parts[0] if len(parts) == 1 else ops.concatenate(parts)
    return ops.concatenate(
        [ops.logsumexp(parts[:, 0], axis=0)[None], ops.sum(parts[:, 1:], axis=0)]
    )
