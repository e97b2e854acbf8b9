"""Every triplet of a batch, or the chosen ones, without a tensor of (batch, batch, batch).

One loop runs over the rank k of an anchor's positives. In its step each row compares its k-th
positive with all references at once, so the largest tensor is (batch, references), for any
labels in any order. The derivative with respect to the distances comes out of the same pass.
"""

from keras import ops

from keras_metric import mining
from keras_metric.losses.row_blocks import in_blocks
from keras_metric.losses.rows import Rows, bounded_square, with_slopes
from keras_metric.pairs import FAR


def _hinge(gap):
    return ops.relu(gap), ops.cast(gap > 0, gap.dtype)


def _squared_hinge(gap):
    gap = ops.relu(gap)
    return bounded_square(gap), 2 * gap


def _soft_margin(gap):
    return ops.softplus(gap), ops.sigmoid(gap)


# Value and slope of a triplet's term, given gap = d_ap - d_an + margin. Each is 0 in both for a
# gap of -FAR, which is how a triplet that does not exist is left out without a mask.
FORMS = {"hinge": _hinge, "soft_margin": _soft_margin, "squared_hinge": _squared_hinge}


# Draws need one state for the whole batch; the other choices are two passes and gain nothing.
_IN_BLOCKS = ("all", "semi-hard", "semi-hard-all")


def triplet_rows(distance, partners, miner, margin, form, swap=None, metric=None, dim=None):
    """Rows of the triplet loss of a labelled batch.

    Args:
        distance: `(batch, references)`.
        partners: `Pairs` of the same size.
        miner: a `TripletMiner`, which says what triplets count.
        margin: in units of `distance`.
        form: a name of `FORMS`.
        swap: distances among the references `(references, references)`; then a triplet's
            negative distance is the smaller of d_an and d_pn.
        metric: name of the metric, for strategies that ask for it.
        dim: number of dimensions of the embeddings, likewise.
    """
    formula = FORMS[form]

    def compute(distance, swap=None):
        def of_strategy(name):
            if swap is None and name in _IN_BLOCKS:
                return in_blocks(lambda *block: of_rows(name, *block), distance, partners)
            return of_rows(name, distance, partners)

        def of_rows(name, distance, partners):
            if name in mining.EVERY:
                band = miner.margin if name == "semi-hard-all" else None
                return _every_triplet(distance, partners, margin, formula, band, swap)
            if name in mining.PER_ANCHOR:
                chosen = mining.PER_ANCHOR[name](distance, partners, seed=miner.seed_generator)
                return _one_each(distance, chosen, margin, formula, swap)
            pick = miner.picker(name, distance, partners, dim, metric)
            return _one_a_pair(distance, partners, pick, margin, formula, swap)

        total, active, valid, *slopes = miner.choose(of_strategy)
        return Rows(total, active, valid), tuple(slopes)

    return with_slopes(compute, *((distance,) if swap is None else (distance, swap)))


def _every_triplet(distance, partners, margin, formula, band, swap):
    others = ops.where(partners.negative, distance, FAR)
    columns = ops.arange(ops.shape(distance)[1], dtype="int32")[None, :]

    def step(rank, column, exists, total, active, valid, slope, *swap_slope):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        reach = ops.where(exists[:, None], near + margin, -FAR)
        other = others
        if swap is not None:
            beyond = ops.where(partners.negative, ops.take(swap, column, axis=0), FAR)
            other = ops.minimum(others, beyond)
        gap = reach - other
        if band is not None:
            inside = ops.logical_and(others > near, others < near + band)
            gap = ops.where(inside, gap, -FAR)
            inside = ops.cast(ops.logical_and(inside, exists[:, None]), distance.dtype)
            valid = valid + ops.sum(inside, -1)
        value, push = formula(gap)
        total = total + ops.sum(value, -1)
        active = active + ops.sum(ops.cast(value > 0, value.dtype), -1)
        pull = ops.where(ops.equal(columns, column[:, None]), ops.sum(push, -1)[:, None], 0)
        if swap is None:
            return total, active, valid, slope + pull - push
        by_positive = beyond < others
        slope = slope + pull - ops.where(by_positive, 0, push)
        moved = ops.segment_sum(ops.where(by_positive, push, 0), column, ops.shape(swap)[0])
        return total, active, valid, slope, swap_slope[0] - moved

    zero, slopes = ops.zeros_like(distance[:, 0]), (ops.zeros_like(distance),)
    if swap is not None:
        slopes = (*slopes, ops.zeros_like(swap))
    total, active, valid, *slopes = partners.for_each_positive(step, (zero, zero, zero, *slopes))
    if band is None:
        valid = ops.cast(partners.num_positives * partners.num_negatives, distance.dtype)
    return total, active, valid, *slopes


def _one_a_pair(distance, partners, pick, margin, formula, swap):
    columns = ops.arange(ops.shape(distance)[1], dtype="int32")[None, :]

    def step(rank, column, exists, total, active, valid, *slopes):
        near = ops.take_along_axis(distance, column[:, None], axis=1)[:, 0]
        negative, found = pick(rank, near)
        exists = ops.logical_and(exists, found)
        value, slopes = _term(
            distance, swap, columns, column, negative, near, exists, margin, formula, slopes
        )
        counts = ops.cast(value > 0, value.dtype), ops.cast(exists, value.dtype)
        return total + value, active + counts[0], valid + counts[1], *slopes

    zero, slopes = ops.zeros_like(distance[:, 0]), (ops.zeros_like(distance),)
    if swap is not None:
        slopes = (*slopes, ops.zeros_like(swap))
    total, active, valid, *slopes = partners.for_each_positive(step, (zero, zero, zero, *slopes))
    return total, active, valid, *slopes


def _one_each(distance, chosen, margin, formula, swap):
    positive, negative, exists = chosen
    columns = ops.arange(ops.shape(distance)[1], dtype="int32")[None, :]
    near = ops.take_along_axis(distance, positive[:, None], axis=1)[:, 0]
    slopes = (ops.zeros_like(distance),)
    if swap is not None:
        slopes = (*slopes, ops.zeros_like(swap))
    value, slopes = _term(
        distance, swap, columns, positive, negative, near, exists, margin, formula, slopes
    )
    counts = ops.cast(value > 0, value.dtype), ops.cast(exists, value.dtype)
    return value, *counts, *slopes


def _term(distance, swap, columns, positive, negative, near, exists, margin, formula, slopes):
    """One triplet of each row: its value, and the slopes with its derivative added."""
    far = ops.take_along_axis(distance, negative[:, None], axis=1)[:, 0]
    by_positive = None
    if swap is not None:
        rows = ops.take(swap, positive, axis=0)
        beyond = ops.take_along_axis(rows, negative[:, None], axis=1)[:, 0]
        by_positive = beyond < far
        far = ops.minimum(far, beyond)
    value, push = formula(ops.where(exists, near - far + margin, -FAR))
    push = push[:, None]
    at_positive = ops.equal(columns, positive[:, None])
    at_negative = ops.equal(columns, negative[:, None])
    if swap is None:
        # One pass over the matrix; a scatter of single elements is slower on every backend.
        change = ops.where(at_positive, push, 0) - ops.where(at_negative, push, 0)
        return value, (slopes[0] + change,)
    direct = ops.where(by_positive[:, None], 0, push)
    change = ops.where(at_positive, push, 0) - ops.where(at_negative, direct, 0)
    moved = ops.where(ops.logical_and(at_negative, by_positive[:, None]), push, 0)
    moved = ops.segment_sum(moved, positive, ops.shape(swap)[0])
    return value, (slopes[0] + change, slopes[1] - moved)
