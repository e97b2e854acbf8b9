"""Sums over the triplets of anchors with many positives, by one sort of each row.

Let the key of a positive be d_ap + margin, and that of a negative d_an. In the order of the keys,
cumulative sums over the negatives give each positive the number and the sum of the negatives below
its key. Cumulative sums over the positives, taken from the other end, give each negative the same
for the positives above it. All derivatives follow, and from them the total, in
O(references * log(references)) for a row with any number of positives. The result is exact: the
order of equal keys is the one that the comparison requires.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_metric.pairwise.class_pairs import MASKED_DISTANCE

# Sorting replaces the loop for more positives than this. The loop costs one pass over a block for
# each positive, the sort approximately as much as this number of passes.
SORT_ABOVE = 64


class _Neighbors(NamedTuple):
    """Number of neighbours of each element of a row, and the sum of their distances.

    Both are (rows, references). The neighbours of a positive are the negatives with a distance
    below its key; those of a negative are the positives with a key above its distance.
    """

    number: Any
    distances: Any = None

    def without(self, other):
        """The neighbours that are not in `other`; 0 where `other` has all of them."""
        more = self.number > other.number
        return _Neighbors(
            *(None if a is None else ops.where(more, a - b, 0) for a, b in zip(self, other))
        )


def _turned(pairs, class_first):
    """Columns of each row, those of the anchor's class at one end; and which are of that class."""
    references = ops.shape(pairs.order)[0]
    members = (references - pairs.num_negatives)[:, None]
    start = pairs.start[:, None]
    position = ops.arange(references, dtype="int32")[None, :]
    if class_first:
        return ops.take(pairs.order, ops.mod(start + position, references)), position < members
    columns = ops.take(pairs.order, ops.mod(start + members + position, references))
    return columns, position >= references - members


def _in_order(distance, pairs, reach, inclusive):
    """Columns of each row by ascending key, d_ap + `reach` or d_an; which are of its class.

    `inclusive`: a negative whose distance equals a key counts as below it, and precedes it.
    """
    columns, same_class = _turned(pairs, class_first=not inclusive)
    turned = ops.take_along_axis(distance, columns, axis=1)
    # The sort is stable: the class remains before, or behind, the negatives of equal key.
    order = ops.argsort(ops.where(same_class, turned + reach, turned), axis=1)
    return tuple(ops.take_along_axis(x, order, axis=1) for x in (columns, same_class))


def _cells(columns):
    """Position of each (row, column) in the flattened matrix."""
    rows, references = ops.shape(columns)
    return ops.reshape(ops.arange(rows, dtype="int32")[:, None] * references + columns, (-1,))


def _scattered(values, columns):
    """A matrix that has `values` at `columns`, a permutation of each row."""
    # Sorting `columns` gives the inverse permutation too, at a hundred times the cost.
    flat = ops.zeros_like(ops.reshape(values, (-1,)))
    flat = ops.scatter_update(flat, _cells(columns)[:, None], ops.reshape(values, (-1,)))
    return ops.reshape(flat, ops.shape(values))


def _neighbors(distance, pairs, reach, inclusive=False, short=None):
    """`_Neighbors` for the keys d_ap + `reach`, with sums of the distances `short`, if given.

    `inclusive`: a negative whose distance equals a key counts as below it.
    """
    columns, same_class = _in_order(distance, pairs, reach, inclusive)
    positive = ops.logical_and(same_class, ops.not_equal(columns, pairs.own[:, None]))

    def sums(values):
        before = ops.cumsum(ops.where(same_class, 0, values), axis=1)
        behind = ops.where(positive, values, 0)
        behind = ops.sum(behind, -1, keepdims=True) - ops.cumsum(behind, axis=1)
        return _scattered(ops.where(same_class, before, behind), columns)

    number = sums(ops.ones_like(distance))
    if short is None:
        return _Neighbors(number)
    return _Neighbors(number, sums(ops.take_along_axis(short, columns, axis=1)))


def _centred(distance, pairs):
    """Distances minus the largest of a positive, so that the terms of a sum are near zero."""
    largest = ops.max(ops.where(pairs.positive, distance, -MASKED_DISTANCE), axis=-1, keepdims=True)
    largest = ops.where(largest > -MASKED_DISTANCE, largest, 0)
    # Products of a distance and its derivative, and their sums, stay inside float32.
    return ops.clip(distance - largest, -1e15, 1e15)


def every_triplet(distance, pairs, margin, power, lower=None, upper=None):
    """Rows as of `triplets_by_rank.every_triplet`, for terms max(gap, 0)**power.

    `power`: 1 or 2. `lower`, `upper`: edges (reach, closed) between which the negatives of a
    positive count, or None.
    """
    linear = power == 1
    short = _centred(distance, pairs)
    positive, negative = pairs.positive, pairs.negative

    def within(edge):
        return _neighbors(distance, pairs, *edge, None if linear else short)

    def row_sum(values):
        return ops.sum(ops.where(positive, values, 0), -1)

    # Terms beyond this edge are zero.
    last = (margin, False)
    reached = last if upper is None else min(last, upper)
    nearer = None if lower is None else within(lower)
    near = within(reached) if nearer is None else within(reached).without(nearer)
    if upper is None:
        valid = ops.cast(pairs.num_positives * pairs.num_negatives, distance.dtype)
        valid = valid if nearer is None else valid - row_sum(nearer.number)
    elif upper == reached:
        valid = row_sum(near.number)
    else:
        every = within(upper)
        valid = row_sum((every if nearer is None else every.without(nearer)).number)
    number = near.number
    if linear:
        by_positive = by_negative = number
    else:
        by_positive = 2 * (number * (short + margin) - near.distances)
        by_negative = 2 * (number * (margin - short) + near.distances)
    derivative = ops.where(positive, by_positive, 0) - ops.where(negative, by_negative, 0)
    # sum(derivative * gap) is `power` times the sum of the terms.
    total = ops.sum(derivative * short, -1) + margin * row_sum(by_positive)
    # The difference of two large sums may be negative by rounding.
    return ops.relu(total if linear else total / 2), row_sum(number), valid, derivative


def semi_hard(distance, pairs, margin, form):
    """Rows as of `triplets_by_rank.semi_hard`."""
    columns, same_class = _in_order(distance, pairs, 0.0, inclusive=True)
    before = ops.cumsum(ops.cast(ops.logical_not(same_class), "int32"), axis=1)
    # Negatives in ascending order, then the class. The negative of a positive has the index
    # `before`, the number of negatives up to that positive.
    behind = pairs.num_negatives[:, None] + pairs.columns - before
    outward = _scattered(columns, ops.where(same_class, behind, before - 1))
    last = ops.shape(pairs.order)[0] - 1
    chosen = ops.take_along_axis(outward, ops.minimum(before, last), axis=1)
    farthest = ops.argmax(ops.where(pairs.negative, distance, -MASKED_DISTANCE), axis=1)[:, None]
    some = pairs.num_negatives[:, None]
    chosen = ops.where(before < some, chosen, ops.cast(farthest, "int32"))
    counts = ops.logical_and(same_class, ops.not_equal(columns, pairs.own[:, None]))
    counts = ops.logical_and(counts, some > 0)
    near, far = (ops.take_along_axis(distance, x, axis=1) for x in (columns, chosen))
    gap = ops.where(counts, near - far + margin, -MASKED_DISTANCE)
    value, of_gap = form.value(gap), form.derivative(gap)
    rows, references = ops.shape(distance)
    of_negatives = ops.segment_sum(
        ops.reshape(of_gap, (-1,)), _cells(chosen), num_segments=rows * references
    )
    derivative = _scattered(of_gap, columns) - ops.reshape(of_negatives, (rows, references))
    active, valid = (ops.sum(ops.cast(x, of_gap.dtype), -1) for x in (of_gap > 0, counts))
    return ops.sum(value, -1), active, valid, derivative
