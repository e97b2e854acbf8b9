"""Finding columns in each row of a matrix: the tools of the rules."""

import keras
from keras import ops

from keras_metric.pairwise.class_pairs import FAR


def among(distance, mask, otherwise):
    """`distance` where `mask`, elsewhere the number `otherwise`."""
    return ops.where(mask, distance, ops.cast(otherwise, distance.dtype))


def at(matrix, column):
    """Element of each row at `column` (batch,)."""
    return ops.take_along_axis(matrix, column[:, None], axis=1)[:, 0]


def first(hit, columns):
    """The lowest column of each row where `hit`; the last column where there is none.

    Several times as fast as argmax of a boolean matrix, or argmin of the values themselves:
    compilers turn a minimum into vector code, and a search for its place into single steps.
    """
    count = ops.shape(hit)[1]
    # Column numbers up to 2**24 are exact in float32, whose minimum is the fastest.
    place = ops.where(hit, ops.cast(columns, "float32"), float(2**24))
    return ops.cast(ops.minimum(ops.min(place, axis=-1), count - 1), "int32")


def argmin(values, columns):
    """Column and value of the smallest of each row; the lowest column among equals."""
    least = ops.min(values, axis=-1)
    return first(ops.equal(values, least[:, None]), columns), least


def argmax(values, columns):
    """Column and value of the largest of each row; the lowest column among equals."""
    most = ops.max(values, axis=-1)
    return first(ops.equal(values, most[:, None]), columns), most


def smallest(values, mask, count, whole=False):
    """Which elements in `mask` are the `count` smallest of their row; all, if there are fewer.

    Among equals those of the lowest columns, so that the number is exact. With `whole`, of the
    matrix and not of each row: `count` is one number then, in place of (rows, 1).
    """
    axis = None if whole else -1
    limit = _value_of_rank(values, mask, count, axis)
    nearer = ops.logical_and(mask, values < limit)
    equals = ops.logical_and(mask, ops.equal(values, limit))
    room = count - ops.sum(ops.cast(nearer, "int32"), axis=axis, keepdims=True)
    equals_counted = ops.cast(equals, "int32")
    place = ops.cumsum(equals_counted, axis=-1)
    if whole:
        of_rows = ops.sum(equals_counted, axis=-1, keepdims=True)
        place = place + ops.cumsum(of_rows, axis=0) - of_rows
    return ops.logical_or(nearer, ops.logical_and(equals, place <= room))


def _value_of_rank(values, mask, count, axis):
    """The `count`-th smallest of the values in `mask`, by halving the interval that it lies in.

    Some thirty passes over the matrix, which is a tenth of what sorting it costs.
    """

    def reached(limit):
        below = ops.logical_and(mask, values <= limit)
        return ops.sum(ops.cast(below, "int32"), axis=axis, keepdims=True) >= count

    def middle(low, high):
        return low + (high - low) / 2

    def is_open(low, high):
        # Between two neighbours among the floats there is no third: the search is exact.
        between = middle(low, high)
        return ops.any(ops.logical_and(low < between, between < high))

    def halve(low, high):
        between = middle(low, high)
        here = reached(between)
        return ops.where(here, low, between), ops.where(here, between, high)

    low = ops.min(among(values, mask, FAR), axis=axis, keepdims=True)
    high = ops.max(among(values, mask, -FAR), axis=axis, keepdims=True)
    return ops.while_loop(is_open, halve, (low, ops.where(reached(low), low, high)))[1]


def draw_noise(rows, columns, seed):
    """What the strategies that draw want: uniform numbers in (0, 1), one for each pair.

    A random number for each row and each column is drawn, and each pair gets a hash of its two.
    Drawing one for each pair takes XLA seconds on a processor.
    """
    drawn = keras.random.randint((rows + columns,), 0, 2**31 - 1, seed=seed)
    mixed = drawn[:rows, None] + drawn[None, rows:]
    # Two rounds of a multiplicative hash of 32 bits; what does not fit wraps around.
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32), (16, 1)):
        shifted = ops.bitwise_and(ops.right_shift(mixed, shift), 2 ** (32 - shift) - 1)
        mixed = ops.bitwise_xor(mixed, shifted) * factor
    # 23 bits: the middles of as many equal parts of (0, 1), where a logarithm is finite.
    return (ops.cast(ops.bitwise_and(mixed, 2**23 - 1), "float32") + 0.5) / 2**23
