"""Triplets of anchors with many positives: one sort of a row in place of a loop over them.

Let v = d_ap + margin on the positives of an anchor and d_an on its negatives. In the order of
these keys, running sums over the negatives give each positive the number and the sum of the
negatives nearer than its key, and running sums over the positives, taken from the other end, do
the same for each negative: all derivatives, and from them the total. That is
O(references * log(references)) a row for any number of positives, and exact: equal keys stand in
the order that the comparison wants.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_metric.pairwise.class_pairs import FAR, MaskedPairs

# The loop costs one pass over a block for each positive, the sort as much as this many passes.
MANY = 64

# Those whose sums follow from running sums. A soft margin has no such form: it takes the loop.
FORMS = ("hinge", "squared_hinge")


def where_many(partners, sort, loop):
    """`sort()` if some anchor has more than `MANY` positives, else `loop()`, in the graph."""
    few = partners.size is not None and partners.size <= MANY
    # Masks stand in no order of classes that a row could be turned by.
    if few or isinstance(partners, MaskedPairs):
        return loop()
    return ops.cond(ops.max(partners.num_positives) > MANY, sort, loop)


class _Ranked(NamedTuple):
    """What stands before and behind each element of a row, (rows, references) each.

    Of a class mate p: the negatives with a distance below its key; of a negative n: the
    positives with a key above its distance. Their number, and the sum of their distances.
    """

    number: Any
    distances: Any = None

    def without(self, other):
        """What is here and not in `other`; nothing where `other` has as much."""
        more = self.number > other.number
        return _Ranked(
            *(None if a is None else ops.where(more, a - b, 0) for a, b in zip(self, other))
        )


def _turned(partners, mates_first):
    """Columns of each row with the anchor's class at one end, and which of these are its class."""
    references = ops.shape(partners.order)[0]
    mates = (references - partners.num_negatives)[:, None]
    start = partners.start[:, None]
    place = ops.arange(references, dtype="int32")[None, :]
    if mates_first:
        return ops.take(partners.order, ops.mod(start + place, references)), place < mates
    columns = ops.take(partners.order, ops.mod(start + mates + place, references))
    return columns, place >= references - mates


def _in_order(distance, partners, reach, inclusive):
    """Columns of each row by ascending key, d_ap + `reach` or d_an; which are of its class.

    `inclusive`: a negative at a key counts as below it, and stands before it.
    """
    columns, mate = _turned(partners, mates_first=not inclusive)
    turned = ops.take_along_axis(distance, columns, axis=1)
    # A stable sort leaves the class where it stood: before, or behind, negatives of equal key.
    order = ops.argsort(ops.where(mate, turned + reach, turned), axis=1)
    return ops.take_along_axis(columns, order, axis=1), ops.take_along_axis(mate, order, axis=1)


def _cells(columns):
    """Place of each (row, column) in the flattened matrix."""
    rows, references = ops.shape(columns)
    return ops.reshape(ops.arange(rows, dtype="int32")[:, None] * references + columns, (-1,))


def _placed(values, columns):
    """A matrix that has `values` at `columns`, a permutation of each row."""
    # A sort of `columns` would give the inverse, at a hundred times the price.
    flat = ops.zeros_like(ops.reshape(values, (-1,)))
    flat = ops.scatter_update(flat, _cells(columns)[:, None], ops.reshape(values, (-1,)))
    return ops.reshape(flat, ops.shape(values))


def _ranked(distance, partners, reach, inclusive=False, short=None):
    """`_Ranked` of the keys d_ap + `reach`, with sums of `short`, the distances from another zero.

    `inclusive` counts negatives at a key as below it.
    """
    columns, mate = _in_order(distance, partners, reach, inclusive)
    positive = ops.logical_and(mate, ops.not_equal(columns, partners.own[:, None]))

    def sums(values):
        before = ops.cumsum(ops.where(mate, 0, values), axis=1)
        behind = ops.where(positive, values, 0)
        behind = ops.sum(behind, -1, keepdims=True) - ops.cumsum(behind, axis=1)
        return _placed(ops.where(mate, before, behind), columns)

    number = sums(ops.ones_like(distance))
    if short is None:
        return _Ranked(number)
    return _Ranked(number, sums(ops.take_along_axis(short, columns, axis=1)))


def _centred(distance, partners):
    """Distances less the largest of a positive: what takes part in a sum stands near zero."""
    largest = ops.max(ops.where(partners.positive, distance, -FAR), axis=-1, keepdims=True)
    largest = ops.where(largest > -FAR, largest, 0)
    # A distance times its slope, and sums of such, stay inside float32.
    return ops.clip(distance - largest, -1e15, 1e15)


def every_triplet(distance, partners, margin, form, lower=None, upper=None):
    """Totals, counts of active and of all triplets, and slopes, as the loop has them.

    `lower`, `upper`: edges of `mining.bands`, between which the negatives of a positive count.
    """
    linear = form == "hinge"
    short = _centred(distance, partners)
    positive, negative = partners.positive, partners.negative

    def ranked(edge):
        return _ranked(distance, partners, *edge, None if linear else short)

    def row_sum(values):
        return ops.sum(ops.where(positive, values, 0), -1)

    # Beyond this no term is greater than zero.
    last = (margin, False)
    reached = last if upper is None else min(last, upper)
    nearer = None if lower is None else ranked(lower)
    near = ranked(reached) if nearer is None else ranked(reached).without(nearer)
    if upper is None:
        valid = ops.cast(partners.num_positives * partners.num_negatives, distance.dtype)
        valid = valid if nearer is None else valid - row_sum(nearer.number)
    elif upper == reached:
        valid = row_sum(near.number)
    else:
        every = ranked(upper)
        valid = row_sum((every if nearer is None else every.without(nearer)).number)
    number = near.number
    if linear:
        pull = push = number
    else:
        pull = 2 * (number * (short + margin) - near.distances)
        push = 2 * (number * (margin - short) + near.distances)
    slope = ops.where(positive, pull, 0) - ops.where(negative, push, 0)
    # Terms are a power of their gap, so that sum(slope * gap) is that power times their sum.
    total = ops.sum(slope * short, -1) + margin * row_sum(pull)
    # What is left of a difference of large sums may be below zero by rounding.
    return ops.relu(total if linear else total / 2), row_sum(number), valid, slope


def semi_hard(distance, partners, margin, formula):
    """The nearest negative beyond each positive, else the farthest: rows as the loop has them."""
    columns, mate = _in_order(distance, partners, 0.0, inclusive=True)
    before = ops.cumsum(ops.cast(ops.logical_not(mate), "int32"), axis=1)
    # The negatives alone, nearest first: behind so many of them a positive finds its own.
    place = ops.where(mate, partners.num_negatives[:, None] + partners.columns - before, before - 1)
    outward = _placed(columns, place)
    last = ops.shape(partners.order)[0] - 1
    chosen = ops.take_along_axis(outward, ops.minimum(before, last), axis=1)
    farthest = ops.argmax(ops.where(partners.negative, distance, -FAR), axis=1)[:, None]
    some = partners.num_negatives[:, None]
    chosen = ops.where(before < some, chosen, ops.cast(farthest, "int32"))
    counts = ops.logical_and(mate, ops.not_equal(columns, partners.own[:, None]))
    counts = ops.logical_and(counts, some > 0)
    near, far = (ops.take_along_axis(distance, x, axis=1) for x in (columns, chosen))
    gap = ops.where(counts, near - far + margin, -FAR)
    value, push = formula.value(gap), formula.slope(gap)
    rows, references = ops.shape(distance)
    pushed = ops.segment_sum(
        ops.reshape(push, (-1,)), _cells(chosen), num_segments=rows * references
    )
    slope = _placed(push, columns) - ops.reshape(pushed, (rows, references))
    active, valid = (ops.sum(ops.cast(x, push.dtype), -1) for x in (push > 0, counts))
    return ops.sum(value, -1), active, valid, slope
