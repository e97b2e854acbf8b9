"""Rows of a loss, some hundred anchors at a time, with their gradient in the same pass.

A block of distances is measured, used and forgotten while it is in the processor's cache. What
stays is one matrix (batch, references): the derivatives, from which two matrix products make the
gradient of the embeddings.
"""

import math

from keras import ops

from keras_metric.custom_gradients import incoming_gradient, unwatched

# A block of 2**18 float32 is 1 MB: with its derivatives and a temporary it fits a core's cache.
BLOCK = 2**18


def rows_in_blocks(compute, measured, partners, noise=None, block=BLOCK):
    """Tensors (batch,) that `compute` works out for each anchor, differentiable in their first.

    Args:
        compute: function of (distances, partners, noise) of a block of anchors. It returns a
            list of tensors (rows,), and the derivative of the first of them with respect to the
            distances. Nothing inside is seen by autodiff, so loops with a dynamic number of
            steps are allowed, and no step keeps its matrices.
        measured: of `distances.some_rows_at_a_time` or `distances.finished`.
        partners: `Pairs` of the whole batch.
        noise: (batch, references) or None, handed over block by block.
        block: how many distances are measured at a time, about.

    Returns:
        One tensor: the list of `compute` for the whole batch, stacked.
    """
    inputs, ruler = measured

    @ops.custom_gradient
    def run(*inputs):
        table = ruler(*unwatched(inputs))

        def of_block(anchors, partners, noise):
            distance = table.measure(anchors)
            rows, slopes = compute(distance, partners, noise)
            return ops.stack(rows, axis=1), table.weights(distance, slopes)

        rows, weights = _each_block(of_block, table.anchors, partners, noise, block)

        def grad(*args, upstream=None):
            factor = incoming_gradient(args, upstream)[0][:, None]
            gradients = table.pull(weights, factor)
            return gradients if len(gradients) > 1 else gradients[0]

        return ops.transpose(rows), grad

    stacked = run(*inputs)
    return [stacked[0], *(ops.stop_gradient(row) for row in ops.unstack(stacked[1:]))]


def _each_block(compute, anchors, partners, noise, entries):
    size = _rows_of_a_block(partners.size, entries)
    if anchors.shape[0] is not None and anchors.shape[0] <= size:
        return compute(anchors, partners, noise)
    batch = ops.shape(anchors)[0]
    blocks = (batch + size - 1) // size

    def one(number):
        place = number * size + ops.arange(size, dtype="int32")
        inside = place < batch
        # What fills up the last block has no positives, hence no term.
        place = ops.minimum(place, batch - 1)
        some = None if noise is None else ops.take(noise, place, axis=0)
        return compute(ops.take(anchors, place, axis=0), partners.rows(place, inside), some)

    def joined(results):
        results = ops.reshape(results, (blocks * size, *ops.shape(results)[2:]))
        whole = isinstance(batch, int) and batch % size == 0
        return results if whole else results[:batch]

    results = ops.map(one, ops.arange(blocks, dtype="int32"))
    return tuple(joined(result) for result in results)


def _rows_of_a_block(references, entries):
    # Of an unknown number of references, 1,024 is a guess; the result is the same.
    return 2 ** round(math.log2(max(entries / (references or 1024), 32)))
