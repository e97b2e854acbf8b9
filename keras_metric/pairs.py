"""Who belongs together: the positives and negatives of each anchor row.

The columns are sorted by label once. An anchor's candidates for a positive then stand side by
side, from `start` on, `count` of them: a loop over their rank meets each positive of every row
without a tensor of shape (batch, batch, batch).
"""

from typing import Any, NamedTuple

from keras import ops

# Stands for "no partner here" in a matrix of distances; sums of many stay inside float32.
FAR = 1e32


class Pairs(NamedTuple):
    """The partners of `batch` anchors among `references` columns.

    `positive`, `negative`: boolean, (batch, references); an anchor is not its own positive.
    `order`: column numbers sorted by label, (references,).
    `start`, `count`: (batch,), where an anchor's class stands in `order`, itself included.
    `own`: (batch,), the anchor's own column, or -1 where the references are other items.
    """

    positive: Any
    negative: Any
    order: Any
    start: Any
    count: Any
    own: Any

    def column(self, rank):
        """Column of each anchor's positive number `rank`, and whether there is one: (batch,)."""
        place = ops.minimum(self.start + rank, ops.shape(self.order)[0] - 1)
        column = ops.take(self.order, place)
        exists = ops.logical_and(rank < self.count, ops.not_equal(column, self.own))
        return column, exists

    def for_each_positive(self, step, state):
        """Run `state = step(rank, column, exists, *state)` for each rank of a positive."""
        most = ops.max(self.count)

        def body(rank, *state):
            return (rank + 1, *step(rank, *self.column(rank), *state))

        first = ops.zeros((), dtype="int32")
        return ops.while_loop(lambda rank, *_: rank < most, body, (first, *state))[1:]

    @property
    def num_positives(self):
        """Number of positives of each anchor, int32 (batch,)."""
        return self.count - ops.cast(self.own >= 0, "int32")

    @property
    def num_negatives(self):
        """Number of negatives of each anchor, int32 (batch,)."""
        return ops.shape(self.order)[0] - self.count


def from_labels(labels, reference_labels=None):
    """Pairs of integer `labels` (batch,) among themselves or among `reference_labels`."""
    alone = reference_labels is None
    references = labels if alone else reference_labels
    order = ops.cast(ops.argsort(references), "int32")
    ranked = ops.take(references, order)
    start = ops.cast(ops.searchsorted(ranked, labels, side="left"), "int32")
    stop = ops.cast(ops.searchsorted(ranked, labels, side="right"), "int32")
    numbers = ops.arange(ops.shape(labels)[0], dtype="int32")
    own = numbers if alone else ops.zeros_like(numbers) - 1
    same = ops.equal(labels[:, None], references[None, :])
    columns = ops.arange(ops.shape(references)[0], dtype="int32")
    positive = ops.logical_and(same, ops.not_equal(columns[None, :], own[:, None]))
    return Pairs(positive, ops.logical_not(same), order, start, stop - start, own)
