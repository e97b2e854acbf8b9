"""Strategies of `TripletMiner`: functions of distances (batch, references) and `Pairs`.

`PER_PAIR` picks one negative for each (anchor, positive); `PER_ANCHOR` picks one positive and one
negative for each anchor. Ties go to the lowest column. The strategies of `every_triplet_rules` take
every triplet of a kind; a loss sums them in closed form, without a list.
"""

import math

from keras import ops

from keras_metric.mining.every_triplet_rules import EVERY
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE, argmax, argmin, first


def _turn(noise, rank):
    """Other uniform numbers for each rank: `noise` plus an irrational shift, modulo 1."""
    shift = ops.cast(rank, noise.dtype) * ((math.sqrt(5) - 1) / 2)
    return ops.mod(noise + shift, 1.0)


def semi_hard(distance, pairs, noise=None, dim=None):
    """For each positive the nearest negative beyond it, else the farthest of all.

    Returns a function of a rank and the distances of the positives of that rank, (rows,). It
    returns the columns of their negatives, and whether there is one, each (rows,).
    """
    columns, negative = pairs.columns, pairs.negative
    others = ops.where(negative, distance, MASKED_DISTANCE)
    farthest = ops.max(ops.where(negative, distance, -MASKED_DISTANCE), axis=-1)
    exists = pairs.num_negatives > 0

    def pick(rank, positive_distance):
        near = positive_distance[:, None]
        nearest = ops.min(ops.where(others > near, others, MASKED_DISTANCE), axis=-1)
        chosen = ops.where(nearest < MASKED_DISTANCE, nearest, farthest)
        return first(ops.equal(others, chosen[:, None]), columns), exists

    return pick


def semi_hard_random(distance, pairs, noise=None, dim=None, *, margin):
    """For each (a, p) one random negative with d_ap < d_an < d_ap + margin, if there is any."""
    columns = pairs.columns
    others = ops.where(pairs.negative, distance, MASKED_DISTANCE)

    def pick(rank, positive_distance):
        near = positive_distance[:, None]
        band = ops.logical_and(others > near, others < near + margin)
        choice, most = argmax(ops.where(band, _turn(noise, rank), -1.0), columns)
        return choice, most >= 0

    return pick


def random(distance, pairs, noise=None, dim=None):
    """For each (a, p) one negative, each equally likely."""
    columns, negative = pairs.columns, pairs.negative
    exists = pairs.num_negatives > 0

    def pick(rank, positive_distance):
        return argmax(ops.where(negative, _turn(noise, rank), -1.0), columns)[0], exists

    return pick


def distance_weighted(distance, pairs, noise=None, dim=None, *, cutoff, nonzero_loss_cutoff):
    """For each (a, p) one negative, with a probability inverse to the density of its distance.

    On the unit sphere of `dim` dimensions the Euclidean distance d of two random points has the
    density q(d) ~ d**(dim-2) * (1 - d*d/4)**((dim-3)/2). The probability is proportional to
    1 / q(max(d, cutoff)), and 0 from `nonzero_loss_cutoff` on. `distance` must be Euclidean,
    between unit vectors. Wu et al. 2017, https://arxiv.org/abs/1706.07567
    """
    columns = pairs.columns
    d = ops.clip(ops.cast(distance, "float32"), cutoff, nonzero_loss_cutoff)
    # Opposite points have the distance 2, where the density is zero.
    rest = ops.maximum(1 - 0.25 * ops.square(d), 1e-7)
    log_weight = (2.0 - dim) * ops.log(d) - 0.5 * (dim - 3.0) * ops.log(rest)
    allowed = ops.logical_and(pairs.negative, distance < nonzero_loss_cutoff)

    def pick(rank, positive_distance):
        # The argmax of log-probability + Gumbel noise has exactly these probabilities.
        turned = ops.clip(_turn(noise, rank), 1e-7, 1 - 1e-7)
        gumbel = -ops.log(-ops.log(turned))
        choice, most = argmax(ops.where(allowed, log_weight + gumbel, -MASKED_DISTANCE), columns)
        return choice, most > -MASKED_DISTANCE

    return pick


def hard(distance, pairs, noise=None):
    """The farthest positive and the nearest negative of each anchor. Hermans et al. 2017."""
    positive, _ = argmax(ops.where(pairs.positive, distance, -MASKED_DISTANCE), pairs.columns)
    negative, _ = argmin(ops.where(pairs.negative, distance, MASKED_DISTANCE), pairs.columns)
    return positive, negative, pairs.has_both


def easy_positive(distance, pairs, noise=None):
    """The nearest positive of each anchor, and the nearest negative beyond it, if there is any.

    Xuan, Stylianou and Pless 2020, https://arxiv.org/abs/1904.04370 (with semi-hard negatives).
    """
    positive, near = argmin(ops.where(pairs.positive, distance, MASKED_DISTANCE), pairs.columns)
    others = ops.where(pairs.negative, distance, MASKED_DISTANCE)
    beyond = ops.where(others > near[:, None], others, MASKED_DISTANCE)
    negative, far = argmin(beyond, pairs.columns)
    return positive, negative, ops.logical_and(pairs.num_positives > 0, far < MASKED_DISTANCE)


def soft_hard(distance, pairs, noise=None):
    """A random hard positive and a random hard negative of each anchor.

    The positive is sampled from those farther than the nearest negative, the negative from those
    nearer than the farthest positive; if there is none, from all of its kind. Roth and Brattoli
    2019, https://github.com/Confusezius/Deep-Metric-Learning-Baselines
    """
    is_positive, is_negative = pairs.positive, pairs.negative
    farthest = ops.max(ops.where(is_positive, distance, -MASKED_DISTANCE), axis=-1)[:, None]
    nearest = ops.min(ops.where(is_negative, distance, MASKED_DISTANCE), axis=-1)[:, None]

    def sample(kind, preferred):
        # Noise is below 1, so preferred items have the largest scores, each equally often.
        score = ops.where(ops.logical_and(kind, preferred), noise + 1, noise)
        return argmax(ops.where(kind, score, -1.0), pairs.columns)[0]

    return (
        sample(is_positive, distance > nearest),
        sample(is_negative, distance < farthest),
        pairs.has_both,
    )


PER_PAIR = {
    "semi-hard": semi_hard,
    "semi-hard-random": semi_hard_random,
    "random": random,
    "distance-weighted": distance_weighted,
}
PER_ANCHOR = {"hard": hard, "soft-hard": soft_hard, "easy-positive": easy_positive}
RANDOM = ("distance-weighted", "random", "semi-hard-random", "soft-hard")
STRATEGIES = tuple(sorted((*PER_PAIR, *PER_ANCHOR, *EVERY)))
# Settings of each strategy, and their defaults.
SETTINGS: dict[str, dict[str, object]] = dict.fromkeys(STRATEGIES, {}) | {
    "angular": {"angle": 20.0},
    "distance-weighted": {"cutoff": 0.5, "nonzero_loss_cutoff": 1.4},
    **dict.fromkeys(("easy-all", "semi-hard-all", "semi-hard-random"), {"margin": 0.2}),
}
