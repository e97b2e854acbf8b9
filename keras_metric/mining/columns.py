"""Finding a column in each row of a matrix: the tools of the rules."""

from keras import ops


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
