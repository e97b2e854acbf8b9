"""Who belongs together: the positives and negatives of each anchor row.

The columns are ordered by label once. An anchor's class mates then stand side by side in that
order: a loop over their rank meets each positive of every row without a tensor of shape
(batch, batch, batch), for labels in any order and classes of any size.
"""

from typing import Any, NamedTuple

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
        most = ops.max(self.num_positives)

        def body(rank, *state):
            return (rank + 1, *step(rank, *self.column(rank), *state))

        first = ops.zeros((), dtype="int32")
        return ops.while_loop(lambda rank, *_: rank < most, body, (first, *state))[1:]

    def rows(self, place, inside):
        """The same for the anchors number `place`; those not `inside` get no positive."""
        part = {name: ops.take(getattr(self, name), place, axis=0) for name in _PER_ROW}
        part["num_positives"] = ops.where(inside, part["num_positives"], 0)
        return self._replace(**part)


_PER_ROW = ("labels", "own", "start", "own_rank", "num_positives", "num_negatives")


def from_labels(labels, reference_labels=None, own=None):
    """Pairs of integer `labels` (batch,) among themselves or among `reference_labels`.

    `own` (batch,): the columns where anchors stand themselves, if they are among the references.
    """
    if reference_labels is None:
        reference_labels = labels
        own = ops.arange(ops.shape(labels)[0], dtype="int32")
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
