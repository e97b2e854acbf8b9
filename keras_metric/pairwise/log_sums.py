"""Logarithms of sums of exponentials of a matrix of products, without the whole matrix.

The backward pass computes each block of products again, so memory is O(rows * dim) and one block:
Cheng et al., "Breaking the Memory Barrier: Near Infinite Batch Size Scaling for Contrastive Loss",
2024, https://arxiv.org/abs/2410.17243
"""

from keras import ops

from keras_metric.pairwise.blockwise import RowBlocks, incoming_gradient, untraced

# Products of a block, 8 MB of float32, and its fewest rows. Smaller blocks take more time.
BLOCK, FEWEST_ROWS = 2**21, 64


def log_sums(a, b, size=None):
    """The logarithm of the sum of exp(a b') over each row, and over each column.

    Args:
        a: (rows, dim).
        b: (rows, dim).
        size: number of rows of a block. Default None: blocks of about `BLOCK` products.

    Returns:
        Tensor (2, rows): of the rows, and of the columns.
    """

    @ops.custom_gradient
    def run(a, b):
        a, b = untraced((a, b))
        transposed, batch = ops.transpose(b), a.shape[0]
        # The number of rows may be unknown while tracing; 4,096 stands for it.
        most = size or max(BLOCK // (batch or 4096), FEWEST_ROWS)
        blocks = None
        if batch is None or batch > most:
            blocks = RowBlocks(ops.shape(a)[0], most)

        def products(number):
            position, inside = blocks.at(number)
            logits = ops.matmul(ops.take(a, position, axis=0), transposed)
            return position, inside[:, None], ops.where(inside[:, None], logits, -1e30)

        if blocks is None:
            logits = ops.matmul(a, transposed)
            sums = ops.stack([_log_sum(logits, axis) for axis in (1, 0)])
        else:
            sums = _of_blocks(blocks, products, ops.zeros_like(b[:, 0]))

        def grad(*args, upstream=None):
            factors = incoming_gradient(args, upstream)
            to_columns, of_columns = factors[1][None, :], sums[1][None, :]

            def weights(logits, factor, of_rows):
                return factor * ops.exp(logits - of_rows) + to_columns * ops.exp(
                    logits - of_columns
                )

            if blocks is None:
                both = weights(logits, factors[0][:, None], sums[0][:, None])
                return ops.matmul(both, b), ops.matmul(ops.transpose(both), a)

            def backward(to_b, number):
                position, inside, logits = products(number)
                factor, of_rows = (ops.take(x[0], position)[:, None] for x in (factors, sums))
                both = weights(logits, ops.where(inside, factor, 0), of_rows)
                part = ops.take(a, position, axis=0)
                return to_b + ops.matmul(ops.transpose(both), part), ops.matmul(both, b)

            to_b, to_a = blocks.loop(backward, ops.zeros_like(b), b.shape[1])
            return to_a, to_b

        return sums, grad

    return run(a, b)


def _log_sum(logits, axis):
    most = ops.max(logits, axis=axis, keepdims=True)
    return ops.squeeze(most, axis) + ops.log(ops.sum(ops.exp(logits - most), axis=axis))


def _of_blocks(blocks, products, nothing):
    """`log_sums` from blocks; the state of the loop are maximum and sum of each column."""

    def step(state, number):
        *_, logits = products(number)
        highest = ops.maximum(state[0], ops.max(logits, axis=0))
        total = state[1] * ops.exp(state[0] - highest)
        total = total + ops.sum(ops.exp(logits - highest[None, :]), axis=0)
        return ops.stack([highest, total]), _log_sum(logits, 1)[:, None]

    state, of_rows = blocks.loop(step, ops.stack([nothing - 1e30, nothing]), 1)
    return ops.stack([of_rows[:, 0], state[0] + ops.log(state[1])])
