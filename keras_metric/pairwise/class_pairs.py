"""Positive and negative pairs of a labelled batch.

`Pairs` come from class ids: the columns are sorted by label once, so that the items of a class are
adjacent. `MaskedPairs` hold two masks: of items with several labels, or of pairs that a miner
chose. `for_each_positive` of both loops over the rank of an anchor's positives. Each step handles
one positive of every row, so no tensor of shape (batch, batch, batch) is needed, for labels in any
order and classes of any size.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

# Distance of a pair that does not count. Sums of many such distances stay inside float32.
MASKED_DISTANCE = 1e32


def _for_each_positive(pairs, step, state):
    """Run `state = step(rank, column, exists, *state)` for each rank of a positive."""
    most = ops.max(pairs.num_positives)

    def body(rank, *state):
        return (rank + 1, *step(rank, *pairs.column(rank), *state))

    first = ops.zeros((), dtype="int32")
    return ops.while_loop(lambda rank, *_: rank < most, body, (first, *state))[1:]


def _has_both(pairs):
    """Boolean (rows,): the anchor has a positive and a negative."""
    return ops.logical_and(pairs.num_positives > 0, pairs.num_negatives > 0)


def _rows(pairs, names, position, inside):
    part = {name: ops.take(getattr(pairs, name), position, axis=0) for name in names}
    part["num_positives"] = ops.where(inside, part["num_positives"], 0)
    return pairs._replace(**part)


class Pairs(NamedTuple):
    """The positives and negatives of some anchors (rows) among references (columns).

    `labels`: class ids of the anchors, (rows,). `reference_labels`: of the columns, (columns,).
    `own`: (rows,), the anchor's own column, or -1 if the references are other items.
    `order`: column numbers sorted by label, (columns,).
    `start`: (rows,), the position in `order` at which an anchor's class begins.
    `own_rank`: (rows,), the anchor's own position relative to `start`; at least the number of
    columns if the anchor is no reference.
    `num_positives`, `num_negatives`: (rows,).
    `held`: boolean (columns,), False for columns that do not count, which `order` has last; None if
    all count.
    """

    labels: Any
    reference_labels: Any
    own: Any
    order: Any
    start: Any
    own_rank: Any
    num_positives: Any
    num_negatives: Any
    held: Any = None

    for_each_positive = _for_each_positive
    has_both = property(_has_both)

    @property
    def is_grouped(self):
        """Whether `order` groups all columns by class, and all columns count."""
        return self.held is None

    @property
    def size(self):
        """Number of columns, None if it is unknown while tracing."""
        return self.reference_labels.shape[0]

    @property
    def columns(self):
        """Numbers of the columns, (1, columns)."""
        return ops.arange(ops.shape(self.order)[0], dtype="int32")[None, :]

    @property
    def positive(self):
        """Boolean (rows, columns): same class, and not the anchor itself."""
        same = ops.equal(self.labels[:, None], self.reference_labels[None, :])
        return self._held(ops.logical_and(same, ops.not_equal(self.columns, self.own[:, None])))

    @property
    def negative(self):
        """Boolean (rows, columns): another class."""
        return self._held(ops.not_equal(self.labels[:, None], self.reference_labels[None, :]))

    def _held(self, mask):
        return mask if self.held is None else ops.logical_and(mask, self.held[None, :])

    def column(self, rank):
        """Column of each anchor's positive number `rank`, and whether there is one: (rows,)."""
        position = self.start + rank + ops.cast(rank >= self.own_rank, "int32")
        position = ops.minimum(position, ops.shape(self.order)[0] - 1)
        return ops.take(self.order, position), rank < self.num_positives

    def rows(self, position, inside):
        """The same for the anchors at `position`; those not `inside` get no positive."""
        names = ("labels", "own", "start", "own_rank", "num_positives", "num_negatives")
        return _rows(self, names, position, inside)


class MaskedPairs(NamedTuple):
    """The same from two masks, if no order of the columns makes the positives adjacent.

    `positive`, `negative`: boolean (rows, columns). `rank`: (rows, columns), the number of a
    positive among those of its row, from 1; 0 elsewhere. `num_positives`, `num_negatives`: (rows,).
    """

    positive: Any
    negative: Any
    rank: Any
    num_positives: Any
    num_negatives: Any

    for_each_positive = _for_each_positive
    has_both = property(_has_both)
    is_grouped = False

    @property
    def size(self):
        """Number of columns, None if it is unknown while tracing."""
        return self.positive.shape[1]

    @property
    def columns(self):
        """Numbers of the columns, (1, columns)."""
        return ops.arange(ops.shape(self.positive)[1], dtype="int32")[None, :]

    def column(self, rank):
        """Column of each anchor's positive number `rank`, and whether there is one: (rows,)."""
        last = ops.shape(self.positive)[1] - 1
        here = ops.where(ops.equal(self.rank, rank + 1), self.columns, last)
        return ops.min(here, axis=1), rank < self.num_positives

    def rows(self, position, inside):
        """The same for the anchors at `position`; those not `inside` get no positive."""
        return _rows(self, self._fields, position, inside)


class Placed(NamedTuple):
    """Labels of references that contain the anchors themselves.

    `labels`: (references,), or (references, classes) of 0 and 1. `own`: (batch,), the column of
    each anchor.
    """

    labels: Any
    own: Any


class Remembered(NamedTuple):
    """Labels of the items of a queue, and which of them an anchor may be compared with.

    `labels`: (size,). `filled`: boolean (size,), False for slots that hold no item yet. `own`:
    (batch,), the slots of the items of the batch, or -1.
    """

    labels: Any
    filled: Any
    own: Any


def from_labels(labels, reference_labels=None, own=None):
    """Positives and negatives of the items of a batch, among themselves or among references.

    Args:
        labels: integer class ids (batch,), or labels of 0 and 1 (batch, classes): two items are a
            positive pair if they share a label.
        reference_labels: labels of the references, of the same kind; or `Placed`, or the
            `Remembered` labels of a queue.
        own: (batch,): the columns of the anchors themselves, if they are among the references.
    """
    held = None
    if isinstance(reference_labels, Remembered):
        reference_labels, held, own = reference_labels
    elif isinstance(reference_labels, Placed):
        reference_labels, own = reference_labels
    if len(labels.shape) == 2:
        return _from_multi_hot(labels, reference_labels, own)
    if reference_labels is None:
        reference_labels = labels
        own = ops.arange(ops.shape(labels)[0], dtype="int32")
    # Ids of a tensor may have 64 bits, those of NumPy have 32.
    dtype = keras.backend.result_type(labels.dtype, reference_labels.dtype)
    labels, reference_labels = ops.cast(labels, dtype), ops.cast(reference_labels, dtype)
    order = ops.cast(ops.argsort(reference_labels), "int32")
    number = ops.shape(reference_labels)[0]
    ranked = ops.take(reference_labels, order)
    if held is not None:
        # Two stable sorts: the columns that count first, by label.
        number = ops.sum(ops.cast(held, "int32"))
        order = ops.take(order, ops.argsort(ops.logical_not(ops.take(held, order))))
        counts = ops.arange(ops.shape(order)[0], dtype="int32") < number
        last = ops.max(reference_labels)
        ranked = ops.where(counts, ops.take(reference_labels, order), last)
    start = ops.cast(ops.searchsorted(ranked, labels, side="left"), "int32")
    end = ops.cast(ops.searchsorted(ranked, labels, side="right"), "int32")
    same_class = ops.maximum(ops.minimum(end, number) - start, 0)
    if own is None:
        own = ops.zeros_like(start) - 1
    position = ops.take(ops.cast(ops.argsort(order), "int32"), ops.maximum(own, 0))
    own_rank = ops.where(own >= 0, position - start, ops.shape(order)[0])
    return Pairs(
        labels=labels,
        reference_labels=reference_labels,
        own=own,
        order=order,
        start=start,
        own_rank=own_rank,
        num_positives=same_class - ops.cast(own >= 0, "int32"),
        num_negatives=number - same_class,
        held=held,
    )


def from_masks(positive, negative):
    """`MaskedPairs` of two boolean matrices (rows, columns)."""
    counted = ops.cast(positive, "int32")
    return MaskedPairs(
        positive=positive,
        negative=negative,
        rank=ops.cumsum(counted, axis=1) * counted,
        num_positives=ops.sum(counted, axis=1),
        num_negatives=ops.sum(ops.cast(negative, "int32"), axis=1),
    )


def _from_multi_hot(labels, reference_labels, own):
    others = labels if reference_labels is None else reference_labels
    same = ops.matmul(ops.cast(labels, "float32"), ops.transpose(ops.cast(others, "float32"))) > 0
    negative = ops.logical_not(same)
    if reference_labels is None:
        own = ops.arange(ops.shape(labels)[0], dtype="int32")
    if own is not None:
        columns = ops.arange(ops.shape(others)[0], dtype="int32")
        other = ops.not_equal(own[:, None], columns[None, :])
        # An item without any label is not its own negative either.
        same, negative = ops.logical_and(same, other), ops.logical_and(negative, other)
    return from_masks(same, negative)


def with_anchor(pairs, own=None):
    """`pairs` with each anchor among its own positives.

    `own`: (batch,), the columns of the anchors, or -1; None for the diagonal.
    """
    if isinstance(pairs, MaskedPairs):
        own = ops.transpose(pairs.columns) if own is None else own[:, None]
        mine = ops.equal(pairs.columns, own)
        return from_masks(ops.logical_or(pairs.positive, mine), pairs.negative)
    nowhere = ops.zeros_like(pairs.own) - 1
    return pairs._replace(
        own=nowhere,
        own_rank=nowhere + 1 + ops.shape(pairs.order)[0],
        num_positives=pairs.num_positives + ops.cast(pairs.own >= 0, "int32"),
    )


def sums_over_positives(pairs, vectors):
    """The sum of the vectors (rows, dim) of each anchor's positives; anchors are the references.

    Anchors must be among their own positives: see `with_anchor`.
    """
    if isinstance(pairs, MaskedPairs):
        return ops.matmul(ops.cast(pairs.positive, vectors.dtype), vectors)
    # The position at which a class begins is a number of the class.
    sums = ops.segment_sum(vectors, pairs.start, num_segments=ops.shape(vectors)[0])
    return ops.take(sums, pairs.start, axis=0)


def at(matrix, column):
    """Element of each row at `column`, both (rows,)."""
    return ops.take_along_axis(matrix, column[:, None], axis=1)[:, 0]


def first(hit, columns):
    """The lowest column of each row where `hit`; the last column if there is none.

    Several times as fast as an argmax of a boolean matrix, or an argmin of the values themselves:
    compilers vectorize a minimum, but not the search for its position.
    """
    count = ops.shape(hit)[1]
    # Column numbers up to 2**24 are exact in float32, whose minimum is the fastest.
    position = ops.where(hit, ops.cast(columns, "float32"), float(2**24))
    return ops.cast(ops.minimum(ops.min(position, axis=-1), count - 1), "int32")


def argmin(values, columns):
    """Column and value of the smallest of each row; the lowest column among equals."""
    least = ops.min(values, axis=-1)
    return first(ops.equal(values, least[:, None]), columns), least


def argmax(values, columns):
    """Column and value of the largest of each row; the lowest column among equals."""
    most = ops.max(values, axis=-1)
    return first(ops.equal(values, most[:, None]), columns), most
