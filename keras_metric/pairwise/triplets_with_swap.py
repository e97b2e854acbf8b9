"""Triplets whose negative distance is the smaller of d(a, n) and d(p, n).

The derivative of a term may then belong to the row of its positive. The forward pass does not have
the weight of that row, the incoming gradient, so the backward pass runs the loop again.
"""

from keras import ops

from keras_metric.pairwise.blockwise import incoming_gradient, untraced
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def swapped_rows(distance, among, terms):
    """Total, active and valid terms of each row, differentiable in both matrices.

    Args:
        distance: anchors to references, (batch, references).
        among: references to each other, (references, references); for a batch without references,
            the matrix `distance` again.
        terms: function of (distance, among, factor) that returns the rows and the derivatives by
            both matrices, as `every_triplet` and `one_negative` below.
    """

    @ops.custom_gradient
    def run(distance, among):
        distance, among = untraced((distance, among))
        rows = ops.stack(list(terms(distance, among, ops.ones_like(distance[:, :1]))[:3]))

        def grad(*args, upstream=None):
            factor = incoming_gradient(args, upstream)[0][:, None]
            return tuple(terms(distance, among, factor)[3:])

        return rows, grad

    rows = run(distance, among)
    return rows[0], ops.stop_gradient(rows[1]), ops.stop_gradient(rows[2])


def every_triplet(distance, among, factor, pairs, margin, form, inside=None):
    """Sums over all triplets, or those `inside` a band; see `triplets_by_rank.every_triplet`.

    `factor` (rows, 1) multiplies the derivatives of a row.
    """
    negative = pairs.negative
    others = ops.where(negative, distance, MASKED_DISTANCE)

    def step(rank, column, exists):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        counts = ops.logical_and(negative, exists[:, None])
        beyond = ops.take(among, column, axis=0)
        if inside is not None:
            counts = ops.logical_and(counts, inside(near, others, beyond))
        return near + margin - ops.minimum(others, beyond), counts, beyond < others

    return _sums(step, distance, among, factor, pairs, form)


def one_negative(distance, among, factor, pairs, margin, form, pick):
    """Sums over triplets of one negative for each positive.

    `pick` is a function of (rank, distances of the positives, columns of the positives) that
    returns the columns of the negatives, and whether the triplets exist, each (rows,).
    """
    columns = pairs.columns

    def step(rank, column, exists):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        negative, found = pick(rank, near[:, 0], column)
        counts = ops.logical_and(exists, found)[:, None]
        counts = ops.logical_and(counts, ops.equal(columns, negative[:, None]))
        beyond = ops.take(among, column, axis=0)
        return near + margin - ops.minimum(distance, beyond), counts, beyond < distance

    return _sums(step, distance, among, factor, pairs, form)


def _sums(step, distance, among, factor, pairs, form):
    """Loop over the ranks of the positives.

    `step` returns for each reference: the gap, whether the triplet counts, and whether the distance
    of the positive to the negative is the smaller one.
    """
    columns, references = pairs.columns, ops.shape(among)[0]

    def body(rank, column, exists, total, active, valid, derivative, among_derivative):
        gap, counts, by_positive = step(rank, column, exists)
        gap = ops.where(counts, gap, -MASKED_DISTANCE)
        value, of_gap = form.value(gap), form.derivative(gap)
        total = total + ops.sum(value, -1)
        active = active + ops.sum(ops.cast(of_gap > 0, of_gap.dtype), -1)
        valid = valid + ops.sum(ops.cast(counts, of_gap.dtype), -1)
        of_gap = of_gap * factor
        here = ops.equal(columns, column[:, None])
        of_positive = ops.where(here, ops.sum(of_gap, -1)[:, None], 0)
        derivative = derivative + of_positive - ops.where(by_positive, 0, of_gap)
        swapped = ops.segment_sum(ops.where(by_positive, of_gap, 0), column, references)
        return total, active, valid, derivative, among_derivative - swapped

    zero = ops.zeros_like(distance[:, 0])
    start = (zero, zero, zero, ops.zeros_like(distance), ops.zeros_like(among))
    return pairs.for_each_positive(body, start)
