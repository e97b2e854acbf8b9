"""Every triplet of a batch, or the chosen ones, without a tensor of (batch, batch, batch).

One loop runs over the rank k of an anchor's positives. In its step each row compares its k-th
positive with all references at once, so the largest tensor is (rows, references), for any
labels in any order. The derivative with respect to the distances comes out of the same pass.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from keras_metric import mining
from keras_metric.losses.reductions import Rows, bounded_square
from keras_metric.losses.train_reports import report_rows, watching
from keras_metric.pairwise import triplets_by_sorting
from keras_metric.pairwise.blockwise import rows_in_blocks
from keras_metric.pairwise.class_pairs import FAR


class Form(NamedTuple):
    """Value and slope of a triplet's term, given gap = d_ap - d_an + margin.

    Both are 0 for a gap of -FAR, which is how a triplet that does not exist is left out without
    a mask. A term is active where its slope is greater than zero. `linear`: the value is slope *
    gap, so that a row's total follows from its slopes.
    """

    value: Callable
    slope: Callable
    linear: bool = False


FORMS = {
    "hinge": Form(ops.relu, lambda gap: ops.cast(gap > 0, gap.dtype), linear=True),
    "soft_margin": Form(ops.softplus, ops.sigmoid),
    "squared_hinge": Form(lambda gap: bounded_square(ops.relu(gap)), lambda gap: 2 * ops.relu(gap)),
}
# "every" has slope 1 for each triplet that exists, whatever its distances.
_FORMS = {**FORMS, "every": Form(ops.zeros_like, lambda gap: ops.cast(gap > -FAR / 2, gap.dtype))}


def triplet_rows(measured, partners, miner, margin, form, metric=None, dim=None, among=None):
    """Rows of the triplet loss of a labelled batch.

    Args:
        measured: the distances, of `distances.some_rows_at_a_time` or `distances.finished`.
        partners: `Pairs` of the batch.
        miner: a `TripletMiner`, which says what triplets count.
        margin: in units of the distances.
        form: a name of `FORMS`.
        metric: name of the metric, for strategies that ask for it.
        dim: number of dimensions of the embeddings, likewise.
        among: distances (references, references), for a miner that `needs_among`.
    """
    among = None if among is None else ops.stop_gradient(among)
    noise = miner.noise(ops.shape(partners.num_positives)[0], ops.shape(partners.columns)[1])
    watched = watching()

    def compute(distance, partners, noise):
        def of_strategy(name):
            settings = (miner, margin, form, metric, dim, among)
            return _of_strategy(name, distance, partners, noise, *settings)

        *rows, slopes = miner.choose(of_strategy)
        if watched:
            for mask in (partners.positive, partners.negative):
                rows.append(ops.sum(ops.where(mask, distance, 0), -1))
        return rows, slopes

    total, active, valid, *sums = rows_in_blocks(compute, measured, partners, noise)
    if watched:
        report_rows(*sums, partners.num_positives, partners.num_negatives)
    return Rows(total, active, valid)


def triplet_counts(distance, partners, miner, metric=None, dim=None, among=None):
    """How many of the triplets that `miner` chooses each pair is part of.

    Arguments as in `triplet_rows`, with `distance` (batch, references).

    Returns:
        Two matrices (batch, references), of the positives and of the negatives.
    """
    distance = ops.stop_gradient(distance)
    noise = miner.noise(*ops.shape(distance))

    def of_strategy(name):
        # Where each triplet has slope 1, the slopes of a row are numbers of triplets.
        settings = (miner, 0.0, "every", metric, dim, among)
        return _of_strategy(name, distance, partners, noise, *settings)[-1]

    counts = ops.stop_gradient(miner.choose(of_strategy))
    return ops.relu(counts), ops.relu(-counts)


def _of_strategy(name, distance, partners, noise, miner, margin, form, metric, dim, among):
    """Total, active and valid terms of each row, and the derivatives by the distances."""
    if name in mining.EVERY:
        inside, edges = miner.inside(name, metric), miner.edges(name)
        return _every_triplet(distance, among, partners, margin, form, inside, edges)
    if name in mining.PER_ANCHOR:
        chosen = mining.PER_ANCHOR[name](distance, partners, noise)
        return _one_each(distance, chosen, margin, _FORMS[form])
    if name == "semi-hard":
        return _semi_hard(distance, partners, margin, _FORMS[form])
    pick = miner.picker(name, distance, partners, noise, dim, metric)
    return _one_a_pair(distance, partners, pick, margin, _FORMS[form])


def _every_triplet(distance, among, partners, margin, form, inside, edges):
    def looped():
        return _every_triplet_looped(distance, among, partners, margin, _FORMS[form], inside)

    if form not in triplets_by_sorting.FORMS or edges is None:
        return looped()
    return triplets_by_sorting.where_many(
        partners,
        lambda: triplets_by_sorting.every_triplet(distance, partners, margin, form, *edges),
        looped,
    )


def _semi_hard(distance, partners, margin, formula):
    def looped():
        pick = mining.semi_hard(distance, partners)
        return _one_a_pair(distance, partners, pick, margin, formula)

    return triplets_by_sorting.where_many(
        partners, lambda: triplets_by_sorting.semi_hard(distance, partners, margin, formula), looped
    )


def _every_triplet_looped(distance, among, partners, margin, formula, inside):
    others = ops.where(partners.negative, distance, FAR)

    def step(rank, column, exists, total, active, valid, slope):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        gap = ops.where(exists[:, None], near + margin, -FAR) - others
        if inside is not None:
            beyond = None if among is None else ops.take(among, column, axis=0)
            counts = inside(near, others, beyond)
            gap = ops.where(counts, gap, -FAR)
            counts = ops.cast(ops.logical_and(counts, exists[:, None]), distance.dtype)
            valid = valid + ops.sum(counts, -1)
        push = formula.slope(gap)
        if not formula.linear:
            total = total + ops.sum(formula.value(gap), -1)
        active = active + ops.sum(ops.cast(push > 0, push.dtype), -1)
        return total, active, valid, _added(slope - push, column, ops.sum(push, -1))

    zero = ops.zeros_like(distance[:, 0])
    start = (zero, zero, zero, ops.zeros_like(distance))
    total, active, valid, slope = partners.for_each_positive(step, start)
    if formula.linear:
        # The slopes of a row add up to zero, so distances may count from any point. From one in
        # their midst the sum keeps its digits; and it is one sum, not one for each rank.
        column, _ = partners.column(0)
        middle = ops.take_along_axis(distance, column[:, None], axis=1)
        total = ops.sum(slope * (distance - middle), -1) + margin * active
    if inside is None:
        valid = ops.cast(partners.num_positives * partners.num_negatives, distance.dtype)
    return total, active, valid, slope


def _one_a_pair(distance, partners, pick, margin, formula):
    def step(rank, column, exists, total, active, valid, slope):
        near = ops.take_along_axis(distance, column[:, None], axis=1)[:, 0]
        negative, found = pick(rank, near)
        exists = ops.logical_and(exists, found)
        value, push, slope = _term(distance, column, negative, near, exists, margin, formula, slope)
        active = active + ops.cast(push > 0, push.dtype)
        return total + value, active, valid + ops.cast(exists, push.dtype), slope

    zero = ops.zeros_like(distance[:, 0])
    return partners.for_each_positive(step, (zero, zero, zero, ops.zeros_like(distance)))


def _one_each(distance, chosen, margin, formula):
    positive, negative, exists = chosen
    near = ops.take_along_axis(distance, positive[:, None], axis=1)[:, 0]
    slope = ops.zeros_like(distance)
    value, push, slope = _term(distance, positive, negative, near, exists, margin, formula, slope)
    return value, ops.cast(push > 0, push.dtype), ops.cast(exists, push.dtype), slope


def _term(distance, positive, negative, near, exists, margin, formula, slope):
    """One triplet of each row: its value and slope, and the slopes with it added."""
    far = ops.take_along_axis(distance, negative[:, None], axis=1)[:, 0]
    gap = ops.where(exists, near - far + margin, -FAR)
    value, push = formula.value(gap), formula.slope(gap)
    return value, push, _added(_added(slope, positive, push), negative, -push)


def _added(matrix, column, change):
    """`matrix` with `change` (rows,) added to one element of each row."""
    row = ops.arange(ops.shape(matrix)[0], dtype="int32")
    old = ops.take_along_axis(matrix, column[:, None], axis=1)[:, 0]
    return ops.scatter_update(matrix, ops.stack([row, column], axis=1), old + change)
