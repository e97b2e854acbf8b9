"""Who belongs together: the positives and negatives of each anchor row.

A loop over the rank of an anchor's positives meets each positive of every row without a tensor
of shape (batch, batch, batch), for labels in any order and classes of any size. `Pairs` come from
class ids: the columns are ordered by label once, and class mates stand side by side. `MaskedPairs`
hold two masks: of items that share one of several labels, or of pairs that a miner chose.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

# Stands for "no partner here" in a matrix of distances; sums of many stay inside float32.
FAR = 1e32


class Pairs(NamedTuple):
    """The partners of some anchors (rows) among references (columns).

    `labels`: class ids of the anchors, (rows,). `reference_labels`: of the columns, (columns,).
    `own`: (rows,), the anchor's own column, or -1 where the references are other items.
    `order`: column numbers sorted by label, (columns,).
    `start`, `own_rank`: (rows,), where an anchor's class begins in `order`, and how many places
    after that it stands itself (beyond all places if it is no reference).
    `num_positives`, `num_negatives`: (rows,).
    """

    labels: Any
    reference_labels: Any
    own: Any
    order: Any
    start: Any
    own_rank: Any
    num_positives: Any
    num_negatives: Any

    @property
    def size(self):
        """Number of columns, None if it is not known yet."""
        return self.reference_labels.shape[0]

    @property
    def columns(self):
        """Numbers of the columns, (1, columns)."""
        return ops.arange(ops.shape(self.order)[0], dtype="int32")[None, :]

    @property
    def positive(self):
        """Boolean (rows, columns): same class, and not the anchor itself."""
        same = ops.equal(self.labels[:, None], self.reference_labels[None, :])
        return ops.logical_and(same, ops.not_equal(self.columns, self.own[:, None]))

    @property
    def negative(self):
        """Boolean (rows, columns): another class."""
        return ops.not_equal(self.labels[:, None], self.reference_labels[None, :])

    @property
    def has_both(self):
        """Boolean (rows,): the anchor has a positive and a negative."""
        return ops.logical_and(self.num_positives > 0, self.num_negatives > 0)

    def column(self, rank):
        """Column of each anchor's positive number `rank`, and whether there is one: (rows,)."""
        place = self.start + rank + ops.cast(rank >= self.own_rank, "int32")
        place = ops.minimum(place, ops.shape(self.order)[0] - 1)
        return ops.take(self.order, place), rank < self.num_positives

    def for_each_positive(self, step, state):
        """Run `state = step(rank, column, exists, *state)` for each rank of a positive."""
        return _for_each_positive(self, step, state)

    def rows(self, place, inside):
        """The same for the anchors number `place`; those not `inside` get no positive."""
        names = ("labels", "own", "start", "own_rank", "num_positives", "num_negatives")
        return _rows(self, names, place, inside)


class MaskedPairs(NamedTuple):
    """The same as two masks, where no order of the columns puts partners side by side.

    `positive`, `negative`: boolean (rows, columns). `rank`: (rows, columns), the number of a
    positive among those of its row, from 1; 0 elsewhere. `num_positives`, `num_negatives`: (rows,).
    """

    positive: Any
    negative: Any
    rank: Any
    num_positives: Any
    num_negatives: Any

    @property
    def size(self):
        """Number of columns, None if it is not known yet."""
        return self.positive.shape[1]

    @property
    def columns(self):
        """Numbers of the columns, (1, columns)."""
        return ops.arange(ops.shape(self.positive)[1], dtype="int32")[None, :]

    @property
    def has_both(self):
        """Boolean (rows,): the anchor has a positive and a negative."""
        return ops.logical_and(self.num_positives > 0, self.num_negatives > 0)

    def column(self, rank):
        """Column of each anchor's positive number `rank`, and whether there is one: (rows,)."""
        last = ops.shape(self.positive)[1] - 1
        here = ops.where(ops.equal(self.rank, rank + 1), self.columns, last)
        return ops.min(here, axis=1), rank < self.num_positives

    def for_each_positive(self, step, state):
        """Run `state = step(rank, column, exists, *state)` for each rank of a positive."""
        return _for_each_positive(self, step, state)

    def rows(self, place, inside):
        """The same for the anchors number `place`; those not `inside` get no positive."""
        return _rows(self, self._fields, place, inside)


def _for_each_positive(partners, step, state):
    most = ops.max(partners.num_positives)

    def body(rank, *state):
        return (rank + 1, *step(rank, *partners.column(rank), *state))

    first = ops.zeros((), dtype="int32")
    return ops.while_loop(lambda rank, *_: rank < most, body, (first, *state))[1:]


def _rows(partners, names, place, inside):
    part = {name: ops.take(getattr(partners, name), place, axis=0) for name in names}
    part["num_positives"] = ops.where(inside, part["num_positives"], 0)
    return partners._replace(**part)


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


def from_multi_hot(labels, reference_labels=None, own=None):
    """`MaskedPairs` of items that share a label, of 0 and 1: `labels` (batch, classes)."""
    others = labels if reference_labels is None else reference_labels
    same = ops.matmul(ops.cast(labels, "float32"), ops.transpose(ops.cast(others, "float32"))) > 0
    negative = ops.logical_not(same)
    if reference_labels is None:
        own = ops.arange(ops.shape(labels)[0], dtype="int32")
    if own is not None:
        columns = ops.arange(ops.shape(others)[0], dtype="int32")
        other = ops.not_equal(own[:, None], columns[None, :])
        # An item without any label is no partner of itself either.
        same, negative = ops.logical_and(same, other), ops.logical_and(negative, other)
    return from_masks(same, negative)


class Placed(NamedTuple):
    """Labels of references among which the anchors stand themselves.

    `labels`: (references,), or (references, classes) of 0 and 1. `own`: (batch,), the column of
    each anchor.
    """

    labels: Any
    own: Any


class Remembered(NamedTuple):
    """Labels of the items of a queue, and which of them an anchor may be compared with.

    `labels`: (size,). `filled`: boolean (size,), False where nothing has been put yet. `own`:
    (batch,), where the items of the batch stand themselves, or -1.
    """

    labels: Any
    filled: Any
    own: Any


def from_remembered(labels, queue):
    """`MaskedPairs` of the items of a batch, `labels` (batch,), among those of a queue."""
    same = ops.equal(ops.cast(labels, queue.labels.dtype)[:, None], queue.labels[None, :])
    places = ops.arange(ops.shape(queue.labels)[0], dtype="int32")
    other = ops.not_equal(places[None, :], queue.own[:, None])
    return from_masks(
        ops.logical_and(ops.logical_and(same, other), queue.filled[None, :]),
        ops.logical_and(ops.logical_not(same), queue.filled[None, :]),
    )


def from_labels(labels, reference_labels=None, own=None):
    """Partners of the items of a batch among themselves or among references.

    Args:
        labels: integer class ids (batch,), or labels of 0 and 1 (batch, classes), of which a pair
            must share one.
        reference_labels: of the references, of the same kind; or `Placed`, or what a queue
            `Remembered`.
        own: (batch,): the columns where anchors stand themselves, if they are among the references.
    """
    if isinstance(reference_labels, Remembered):
        return from_remembered(labels, reference_labels)
    if isinstance(reference_labels, Placed):
        reference_labels, own = reference_labels
    if len(labels.shape) == 2:
        return from_multi_hot(labels, reference_labels, own)
    if reference_labels is None:
        reference_labels = labels
        own = ops.arange(ops.shape(labels)[0], dtype="int32")
    # Ids of a tensor may have 64 bits, those of NumPy have 32.
    dtype = keras.backend.result_type(labels.dtype, reference_labels.dtype)
    labels, reference_labels = ops.cast(labels, dtype), ops.cast(reference_labels, dtype)
    order = ops.cast(ops.argsort(reference_labels), "int32")
    ranked = ops.take(reference_labels, order)
    start = ops.cast(ops.searchsorted(ranked, labels, side="left"), "int32")
    mates = ops.cast(ops.searchsorted(ranked, labels, side="right"), "int32") - start
    num_references = ops.shape(reference_labels)[0]
    if own is None:
        own, own_rank = ops.zeros_like(start) - 1, ops.zeros_like(start) + num_references
        num_positives = mates
    else:
        own_rank = ops.take(ops.cast(ops.argsort(order), "int32"), own) - start
        num_positives = mates - 1
    return Pairs(
        labels=labels,
        reference_labels=reference_labels,
        own=own,
        order=order,
        start=start,
        own_rank=own_rank,
        num_positives=num_positives,
        num_negatives=num_references - mates,
    )
