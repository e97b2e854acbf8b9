"""Which pairs occur in chosen triplets: what a loss on pairs learns from a triplet miner."""

from keras import ops

from keras_metric.mining.columns import among, at
from keras_metric.pairwise.class_pairs import FAR


def in_listed(table, weight, partners):
    """Positives and negatives of the triplets in the matrices of `triplets`, as two masks."""

    def step(rank, column, exists, negative):
        there = ops.logical_and(exists, at(weight, column) > 0)[:, None]
        here = ops.equal(partners.columns, at(table, column)[:, None])
        return (ops.logical_or(negative, ops.logical_and(here, there)),)

    (negative,) = partners.for_each_positive(step, (weight < 0,))
    return weight > 0, negative


def in_every(inside, distance, partners, among_references=None):
    """Positives and negatives of every triplet that `inside` of `bands.chooser` counts."""
    positive, negative = partners.positive, partners.negative
    if inside is None:
        both = partners.has_both[:, None]
        return ops.logical_and(positive, both), ops.logical_and(negative, both)
    others = among(distance, negative, FAR)

    def step(rank, column, exists, near_ones, far_ones):
        near = at(distance, column)[:, None]
        beyond = None if among_references is None else ops.take(among_references, column, axis=0)
        counts = ops.logical_and(inside(near, others, beyond), exists[:, None])
        counts = ops.logical_and(counts, negative)
        here = ops.equal(partners.columns, column[:, None])
        here = ops.logical_and(here, ops.any(counts, axis=1, keepdims=True))
        return ops.logical_or(near_ones, here), ops.logical_or(far_ones, counts)

    nothing = ops.zeros_like(positive)
    return partners.for_each_positive(step, (nothing, nothing))
