"""Triplets whose negative distance is the smaller of d(a, n) and d(p, n).

A term may then pull at the row of its positive instead of its own. Whose weight it carries is
known only when the gradient comes in, so the backward pass runs the loop a second time.
"""

from keras import ops

from keras_metric import mining
from keras_metric.custom_gradients import incoming_gradient, unwatched
from keras_metric.losses.reductions import Rows
from keras_metric.losses.triplet_rows import FORMS
from keras_metric.pairwise.class_pairs import FAR


def swapped_triplet_rows(distance, among, partners, miner, margin, form, metric=None, dim=None):
    """Rows of the triplet loss with the distance swap; arguments as in `triplet_rows`.

    `distance` (batch, references) are anchors to references, `among` (references, references)
    the references among themselves: of a batch alone, the same matrix twice.
    """
    noise = miner.noise(*ops.shape(distance))

    def chooser(name, distance):
        if name in mining.PER_ANCHOR:
            positive, negative, exists = mining.PER_ANCHOR[name](distance, partners, noise)
            return lambda rank, near, column: (
                negative,
                ops.logical_and(exists, ops.equal(column, positive)),
            )
        pick = miner.picker(name, distance, partners, noise, dim, metric)
        return lambda rank, near, column: pick(rank, near)

    def compute(distance, among, factor):
        def of_strategy(name):
            if name in mining.EVERY:
                inside = miner.inside(name, metric)
                step = _every_negative(distance, among, partners, margin, inside)
            else:
                pick = chooser(name, distance)
                step = _one_negative(distance, among, partners, margin, pick)
            return _sums(step, FORMS[form], distance, among, partners, factor)

        return miner.choose(of_strategy)

    @ops.custom_gradient
    def run(distance, among):
        distance, among = unwatched((distance, among))
        no_factor = ops.ones_like(distance[:, :1])
        rows = ops.stack(list(compute(distance, among, no_factor)[:3]))

        def grad(*args, upstream=None):
            factor = incoming_gradient(args, upstream)[0][:, None]
            return tuple(compute(distance, among, factor)[3:])

        return rows, grad

    rows = run(distance, among)
    return Rows(rows[0], ops.stop_gradient(rows[1]), ops.stop_gradient(rows[2]))


def _sums(step, formula, distance, among, partners, factor):
    """Loop over the ranks of the positives; `step` gives gaps, which count, and whose they are."""
    columns, references = partners.columns, ops.shape(among)[0]

    def body(rank, column, exists, total, active, valid, slope, among_slope):
        gap, counts, by_positive = step(rank, column, exists)
        gap = ops.where(counts, gap, -FAR)
        value, push = formula.value(gap), formula.slope(gap)
        total = total + ops.sum(value, -1)
        active = active + ops.sum(ops.cast(push > 0, push.dtype), -1)
        valid = valid + ops.sum(ops.cast(counts, push.dtype), -1)
        push = push * factor
        pull = ops.where(ops.equal(columns, column[:, None]), ops.sum(push, -1)[:, None], 0)
        slope = slope + pull - ops.where(by_positive, 0, push)
        moved = ops.segment_sum(ops.where(by_positive, push, 0), column, references)
        return total, active, valid, slope, among_slope - moved

    zero = ops.zeros_like(distance[:, 0])
    start = (zero, zero, zero, ops.zeros_like(distance), ops.zeros_like(among))
    return partners.for_each_positive(body, start)


def _every_negative(distance, among, partners, margin, inside):
    negative = partners.negative
    others = ops.where(negative, distance, FAR)

    def step(rank, column, exists):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        counts = ops.logical_and(negative, exists[:, None])
        beyond = ops.take(among, column, axis=0)
        if inside is not None:
            counts = ops.logical_and(counts, inside(near, others, beyond))
        gap = near + margin - ops.minimum(others, beyond)
        return gap, counts, beyond < others

    return step


def _one_negative(distance, among, partners, margin, pick):
    columns = partners.columns

    def step(rank, column, exists):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        negative, found = pick(rank, near[:, 0], column)
        counts = ops.logical_and(exists, found)[:, None]
        counts = ops.logical_and(counts, ops.equal(columns, negative[:, None]))
        beyond = ops.take(among, column, axis=0)
        gap = near + margin - ops.minimum(distance, beyond)
        return gap, counts, beyond < distance

    return step
