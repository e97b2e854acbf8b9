"""The class vectors that the items of a batch are compared with: all, or a random sample."""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_metric._validation import check_number


class OwnClasses(NamedTuple):
    """Class of each item. `ids`: (batch,), inside [0, num_classes); `valid`: (batch,), Boolean.

    An item whose id is no class has the nearest id and is not valid.
    """

    ids: Any
    valid: Any


class ComparedClasses(NamedTuple):
    """Classes that the items of a batch are compared with.

    `vectors`: (classes * each, dim). `own`: (batch,), the position of each item's class in them; -1
    for none. `valid`: Boolean (classes,), the classes that count for other items; None for all.
    """

    vectors: Any
    own: Any
    valid: Any = None


def check_sample_rate(value):
    """Return `value`; raise unless it is a fraction above 0 and at most 1."""
    try:
        return check_number("sample_rate", value, above=0, at_most=1)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{error}. It is the fraction of the other classes in a training step: 0.1 for a tenth "
            "of them, 1.0 for all."
        ) from None


def number_sampled(num_classes, sample_rate):
    """Number of classes that are sampled at random; `num_classes` if all are compared."""
    return min(math.ceil(sample_rate * num_classes), num_classes)


def all_classes(vectors, own):
    """List of one `ComparedClasses`, of all classes."""
    return [ComparedClasses(vectors, ops.where(own.valid, own.ids, -1))]


def sampled_classes(vectors, own, num_classes, each, number, seed):
    """List of two disjoint `ComparedClasses`: `number` random classes, and those of the batch.

    The classes are divided into groups of neighbouring ids of nearly equal size, and one class of
    each group is chosen at random. The start of the first group is random too, so all classes have
    the same probability. This needs no sorting and no random number for each class.
    """
    starts = (np.arange(number + 1, dtype="int64") * num_classes // number).astype("int32")
    sizes = ops.convert_to_tensor(np.diff(starts))
    starts = ops.convert_to_tensor(starts)
    # One call of the generator; float32 also where Keras computes in float64.
    uniform = keras.random.uniform((number + 1,), dtype="float32", seed=seed)
    inside = ops.minimum(ops.cast(uniform[1:] * ops.cast(sizes, "float32"), "int32"), sizes - 1)
    shift = ops.minimum(ops.cast(uniform[0] * num_classes, "int32"), num_classes - 1)
    chosen = (starts[:-1] + inside + shift) % num_classes
    # Groups of the classes of the batch.
    unshifted = (own.ids - shift + num_classes) % num_classes
    group = ops.cast(ops.searchsorted(starts, unshifted, side="right"), "int32") - 1
    found = ops.equal(ops.take(chosen, group), own.ids)
    same = ops.equal(own.ids[:, None], own.ids[None, :])
    # ops.argmax of Booleans fails on PyTorch, and that of no columns on TensorFlow: a replica may
    # have no items.
    same = ops.pad(ops.cast(same, "int32"), ((0, 0), (0, 1)), constant_values=1)
    first = ops.cast(ops.argmax(same, axis=1), "int32")
    is_first = ops.equal(first, ops.arange(ops.shape(first)[0], dtype="int32"))
    of_batch = _rows(vectors, own.ids, each)
    return [
        ComparedClasses(_rows(vectors, chosen, each), ops.where(found, group, -1)),
        ComparedClasses(of_batch, first, ops.logical_and(is_first, ops.logical_not(found))),
    ]


def masks(compared):
    """The columns of all `ComparedClasses`, one after the other, as two Boolean tensors.

    The first, (batch, columns): the column of each item's class. The second, (columns,): the
    columns that count.
    """
    mine, counts = [], []
    for part in compared:
        number = ops.shape(part.vectors)[0]
        position = ops.arange(number, dtype="int32")
        valid = ops.ones_like(position, dtype="bool") if part.valid is None else part.valid
        own = ops.equal(part.own[:, None], position[None, :])
        counts.append(valid)
        mine.append(ops.logical_and(own, valid[None, :]))
    return ops.concatenate(mine, axis=1), ops.concatenate(counts)


def _rows(vectors, ids, each):
    """The vectors of the classes `ids`. One gathering: its gradient on TensorFlow is sparse."""
    rows = ids
    if each > 1:
        rows = ops.reshape(ids[:, None] * each + ops.arange(each, dtype="int32")[None, :], (-1,))
    return ops.take(vectors, rows, axis=0)
