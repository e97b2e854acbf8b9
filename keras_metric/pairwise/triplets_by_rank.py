"""Exact sums over the triplets of a batch, without a tensor of shape (batch, batch, batch).

A loop runs over the rank k of an anchor's positives. Each step compares the k-th positive of every
row with all references, so the largest tensor is (rows, references), for labels in any order. The
same pass computes the derivative with respect to the distances.

Each function takes (distance, pairs, noise) of a block of anchors and returns the total, active and
valid terms of each row, and the derivative of the total (rows, references). `by_sorting`, which has
the same result, replaces the loop for anchors with many positives.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from keras_metric.pairwise import triplets_by_sorting as by_sorting
from keras_metric.pairwise.anchor_rows import bounded_square
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


class Form(NamedTuple):
    """Value and derivative of a triplet's term, as functions of gap = d_ap - d_an + margin.

    Both are 0 for a gap of -MASKED_DISTANCE, which excludes a triplet without a mask. A term is
    active if its derivative is greater than zero. `power`: the value is max(gap, 0)**power, so that
    the derivatives of a row determine its total; None for other values.
    """

    value: Callable
    derivative: Callable
    power: int | None = None


FORMS = {
    "hinge": Form(ops.relu, lambda gap: ops.cast(gap > 0, gap.dtype), 1),
    "soft_margin": Form(ops.softplus, ops.sigmoid),
    "squared_hinge": Form(
        lambda gap: bounded_square(ops.relu(gap)), lambda gap: 2 * ops.relu(gap), 2
    ),
}
# The derivative is 1 for each triplet that exists, so that a row of derivatives counts triplets.
COUNTING = Form(ops.zeros_like, lambda gap: ops.cast(gap > -MASKED_DISTANCE / 2, gap.dtype))


def every_triplet(
    distance,
    pairs,
    noise,
    margin,
    form,
    inside=None,
    edges=None,
    among=None,
    sort_above=by_sorting.SORT_ABOVE,
):
    """Rows of all triplets, or of those inside a band.

    Args:
        distance: (rows, references), of a block of anchors.
        pairs: `Pairs` of the block.
        noise: not used.
        margin: number, in units of the distance.
        form: a `Form`.
        inside: function of the distances of the positives (rows, 1), of the negatives (rows,
            references), and of the positives to the references (rows, references), that returns
            which triplets count; None for all.
        edges: the lower and the upper edge of the band, if it has such: (reach, closed) or None.
        among: distances of the references to each other, (references, references), or None.
        sort_above: number of positives from which sorting replaces the loop.
    """

    def looped():
        return _every_triplet(distance, pairs, margin, form, inside, among)

    if form.power is None or edges is None or _never_sorts(pairs, sort_above):
        return looped()
    return ops.cond(
        ops.max(pairs.num_positives) > sort_above,
        lambda: by_sorting.every_triplet(distance, pairs, margin, form.power, *edges),
        looped,
    )


def semi_hard(distance, pairs, noise, margin, form, pick, sort_above=by_sorting.SORT_ABOVE):
    """Rows of one triplet for each positive: the nearest negative beyond it, else the farthest.

    `pick`: `mining.triplet_rules.semi_hard`, the rule of the loop.
    """
    if _never_sorts(pairs, sort_above):
        return one_per_pair(distance, pairs, noise, margin, form, pick)
    return ops.cond(
        ops.max(pairs.num_positives) > sort_above,
        lambda: by_sorting.semi_hard(distance, pairs, margin, form),
        lambda: one_per_pair(distance, pairs, noise, margin, form, pick),
    )


def _never_sorts(pairs, sort_above):
    """Whether no anchor can have more than `sort_above` positives, or sorting is not possible."""
    size = pairs.size
    # Sorting rotates a row by the order of the classes.
    return (size is not None and size <= sort_above) or not pairs.is_grouped


def _every_triplet(distance, pairs, margin, form, inside, among):
    others = ops.where(pairs.negative, distance, MASKED_DISTANCE)

    def step(rank, column, exists, total, active, valid, derivative):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        gap = ops.where(exists[:, None], near + margin, -MASKED_DISTANCE) - others
        if inside is not None:
            beyond = None if among is None else ops.take(among, column, axis=0)
            counts = inside(near, others, beyond)
            gap = ops.where(counts, gap, -MASKED_DISTANCE)
            counts = ops.cast(ops.logical_and(counts, exists[:, None]), distance.dtype)
            valid = valid + ops.sum(counts, -1)
        of_gap = form.derivative(gap)
        if form.power != 1:
            total = total + ops.sum(form.value(gap), -1)
        active = active + ops.sum(ops.cast(of_gap > 0, of_gap.dtype), -1)
        return total, active, valid, _added(derivative - of_gap, column, ops.sum(of_gap, -1))

    zero = ops.zeros_like(distance[:, 0])
    start = (zero, zero, zero, ops.zeros_like(distance))
    total, active, valid, derivative = pairs.for_each_positive(step, start)
    if form.power == 1:
        # The derivatives of a row sum to zero, so any constant may be subtracted from its
        # distances. The distance of a positive keeps the digits of the sum, and one sum over a row
        # replaces one for each rank.
        column, _ = pairs.column(0)
        middle = ops.take_along_axis(distance, column[:, None], axis=1)
        total = ops.sum(derivative * (distance - middle), -1) + margin * active
    if inside is None:
        valid = ops.cast(pairs.num_positives * pairs.num_negatives, distance.dtype)
    return total, active, valid, derivative


def one_per_pair(distance, pairs, noise, margin, form, pick):
    """Rows of one triplet for each positive; `pick`: a rule of `mining.triplet_rules`."""
    negative_of = pick(distance, pairs, noise)

    def step(rank, column, exists, total, active, valid, derivative):
        near = ops.take_along_axis(distance, column[:, None], axis=1)[:, 0]
        negative, found = negative_of(rank, near)
        exists = ops.logical_and(exists, found)
        value, of_gap, derivative = _term(
            distance, column, negative, near, exists, margin, form, derivative
        )
        active = active + ops.cast(of_gap > 0, of_gap.dtype)
        return total + value, active, valid + ops.cast(exists, of_gap.dtype), derivative

    zero = ops.zeros_like(distance[:, 0])
    return pairs.for_each_positive(step, (zero, zero, zero, ops.zeros_like(distance)))


def one_per_anchor(distance, pairs, noise, margin, form, choose):
    """Rows of one triplet for each anchor.

    `choose` is a function of (distance, pairs, noise) that returns the columns of a positive and a
    negative, and whether they exist, each (rows,).
    """
    positive, negative, exists = choose(distance, pairs, noise)
    near = ops.take_along_axis(distance, positive[:, None], axis=1)[:, 0]
    zero = ops.zeros_like(distance)
    value, of_gap, derivative = _term(
        distance, positive, negative, near, exists, margin, form, zero
    )
    return value, ops.cast(of_gap > 0, of_gap.dtype), ops.cast(exists, of_gap.dtype), derivative


def _term(distance, positive, negative, near, exists, margin, form, derivative):
    """Value and derivative by the gap of one triplet in each row, and `derivative` updated."""
    far = ops.take_along_axis(distance, negative[:, None], axis=1)[:, 0]
    gap = ops.where(exists, near - far + margin, -MASKED_DISTANCE)
    value, of_gap = form.value(gap), form.derivative(gap)
    derivative = _added(_added(derivative, positive, of_gap), negative, -of_gap)
    return value, of_gap, derivative


def _added(matrix, column, change):
    """`matrix` with `change` (rows,) added to one element of each row."""
    row = ops.arange(ops.shape(matrix)[0], dtype="int32")
    old = ops.take_along_axis(matrix, column[:, None], axis=1)[:, 0]
    return ops.scatter_update(matrix, ops.stack([row, column], axis=1), old + change)
