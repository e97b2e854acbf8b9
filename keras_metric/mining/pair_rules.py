"""Which pairs of a batch count: functions of distances (batch, references) and `Pairs`.

Each rule returns two boolean matrices (batch, references): the positives and the negatives that
count. Ties go to the lowest column.
"""

from keras import ops

from keras_metric.mining.columns import among, argmax, argmin, smallest
from keras_metric.pairwise.class_pairs import FAR, MaskedPairs

# How one of an anchor's positives or negatives is chosen. "semi-hard" is hard, yet on the right
# side of the other one.
CHOICES = ("all", "easy", "hard", "semi-hard")


def every_pair(distance, partners, noise=None):
    """All positives and all negatives."""
    return partners.positive, partners.negative


def easy_hard(
    distance, partners, noise=None, *, positive, negative, positive_range, negative_range
):
    """One positive and one negative of each anchor that has both, each by a choice of its own.

    "hard": the farthest positive, the nearest negative; "easy": the other way round;
    "semi-hard": the hardest positive nearer than the negative, or negative beyond the positive.
    "all" takes every one, whether or not the anchor has one of the other kind. The ranges
    (least, most) leave out what is nearer or farther.
    Xuan, Stylianou and Pless 2020, https://arxiv.org/abs/1904.04370
    """
    positives = _in_range(distance, partners.positive, positive_range)
    negatives = _in_range(distance, partners.negative, negative_range)

    def near_positive(mask):
        return (_nearest if positive == "easy" else _farthest)(distance, mask)

    def far_negative(mask):
        return (_farthest if negative == "easy" else _nearest)(distance, mask)

    if "all" in (positive, negative):
        return (
            positives if positive == "all" else near_positive(positives)[0],
            negatives if negative == "all" else far_negative(negatives)[0],
        )
    if positive == "semi-hard":
        negatives, bound, has_negative = far_negative(negatives)
        positives, _, has_positive = near_positive(
            ops.logical_and(positives, distance < bound[:, None])
        )
    else:
        positives, bound, has_positive = near_positive(positives)
        if negative == "semi-hard":
            negatives = ops.logical_and(negatives, distance > bound[:, None])
        negatives, _, has_negative = far_negative(negatives)
    both = ops.logical_and(has_positive, has_negative)[:, None]
    return ops.logical_and(positives, both), ops.logical_and(negatives, both)


def _nearest(distance, mask):
    """The nearest of each row as a mask, its distance, and whether there is any."""
    return _alone(argmin, among(distance, mask, FAR), mask)


def _farthest(distance, mask):
    return _alone(argmax, among(distance, mask, -FAR), mask)


def _alone(extreme, values, mask):
    columns = ops.arange(ops.shape(mask)[1], dtype="int32")[None, :]
    column, value = extreme(values, columns)
    exists = ops.abs(value) < FAR
    chosen = ops.logical_and(ops.equal(columns, column[:, None]), exists[:, None])
    return chosen, value, exists


def _in_range(distance, mask, limits):
    if limits is None:
        return mask
    inside = ops.logical_and(distance >= limits[0], distance <= limits[1])
    return ops.logical_and(mask, inside)


def multi_similarity(distance, partners, noise=None, *, epsilon):
    """Positives harder than the hardest negative less `epsilon`, and the other way round.

    Wang et al. 2019, https://arxiv.org/abs/1904.06627, equations 7 and 8, in distances.
    """
    positive, negative = partners.positive, partners.negative
    nearest = ops.min(among(distance, negative, FAR), axis=-1, keepdims=True)
    farthest = ops.max(among(distance, positive, -FAR), axis=-1, keepdims=True)
    both = partners.has_both[:, None]
    positive = ops.logical_and(positive, ops.logical_and(distance + epsilon > nearest, both))
    return positive, ops.logical_and(negative, ops.logical_and(distance - epsilon < farthest, both))


def pair_margin(distance, partners, noise=None, *, positive_margin, negative_margin):
    """Positives farther than one margin and negatives nearer than the other."""
    positive = ops.logical_and(partners.positive, distance > positive_margin)
    return positive, ops.logical_and(partners.negative, distance < negative_margin)


def hardest_share(distance, partners, noise=None, *, filter_percentage):
    """The hardest share of all positive pairs of the batch, and of all negative pairs.

    Yuan, Yang and Zhang 2017, https://arxiv.org/abs/1611.05720
    """

    def hardest(values, mask, number):
        count = ops.cast(ops.ceil(filter_percentage * ops.cast(number, "float32")), "int32")
        return smallest(values, mask, count, whole=True)

    return (
        hardest(-distance, partners.positive, ops.sum(partners.num_positives)),
        hardest(distance, partners.negative, ops.sum(partners.num_negatives)),
    )


def n_pairs(distance, partners, noise=None):
    """The first anchor of each class with its first positive, and the positives of the others.

    Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective".
    """
    if isinstance(partners, MaskedPairs):
        raise ValueError(
            'The strategy "n-pairs" takes one pair of each class of a batch, so it needs integer '
            'class labels, and no memory. Received: labels="multi_hot", or a memory'
        )
    rows = ops.arange(ops.shape(distance)[0], dtype="int32")
    same = ops.equal(partners.labels[:, None], partners.labels[None, :])
    leads = ops.logical_not(ops.any(ops.logical_and(same, rows[None, :] < rows[:, None]), axis=1))
    column, exists = partners.column(0)
    leads = ops.logical_and(leads, exists)[:, None]
    pair = ops.logical_and(leads, ops.equal(partners.columns, column[:, None]))
    of_others = ops.logical_and(partners.negative, ops.any(pair, axis=0, keepdims=True))
    return pair, ops.logical_and(leads, of_others)


def uniform_histogram(distance, partners, noise, *, num_bins, pos_per_bin, neg_per_bin):
    """A few random pairs of each of `num_bins` equal intervals of distance, of either kind.

    The positives share the range of their distances out among them, the negatives theirs.
    """
    positive, negative = partners.positive, partners.negative
    bins = ops.where(negative, num_bins + _bin(distance, negative, num_bins), 2 * num_bins)
    bins = ops.where(positive, _bin(distance, positive, num_bins), bins)
    # One integer for bin and draw: a sort puts the bins side by side, each in random order.
    steps = (2**31 - 1) // (2 * num_bins + 1)
    draw = ops.minimum(ops.cast(noise * steps, "int32"), steps - 1)
    key = ops.reshape(bins * steps + draw, (-1,))
    order = ops.argsort(key)
    edges = ops.arange(2 * num_bins + 1, dtype="int32") * steps
    edges = ops.cast(ops.searchsorted(ops.take(key, order), edges), "int32")
    rank = ops.arange(max(pos_per_bin, neg_per_bin), dtype="int32")[None, :]
    wanted = ops.repeat(ops.convert_to_tensor([[pos_per_bin], [neg_per_bin]]), num_bins, axis=0)
    place = edges[:-1, None] + rank
    inside = ops.logical_and(place < edges[1:, None], rank < wanted)
    cells = ops.take(order, ops.minimum(place, ops.shape(order)[0] - 1))
    taken = ops.segment_sum(
        ops.reshape(ops.cast(inside, "int32"), (-1,)),
        ops.reshape(cells, (-1,)),
        num_segments=ops.shape(order)[0],
    )
    taken = ops.reshape(taken > 0, ops.shape(distance))
    return ops.logical_and(positive, taken), ops.logical_and(negative, taken)


def _bin(distance, mask, num_bins):
    """Number of the interval of each distance, of equal intervals between those in `mask`."""
    least, most = ops.min(among(distance, mask, FAR)), ops.max(among(distance, mask, -FAR))
    width = ops.where(most > least, most - least, 1)
    # What is not in `mask` may lie anywhere.
    place = ops.clip(ops.floor((distance - least) / width * num_bins), 0, num_bins - 1)
    return ops.cast(place, "int32")


def nearest_negatives(distance, positive, negative, ratio):
    """Of each anchor's negatives only the nearest, at most `ratio` for each positive."""
    number = ratio * ops.sum(ops.cast(positive, "int32"), axis=-1, keepdims=True)
    return smallest(distance, negative, number)


RULES = {
    "all": every_pair,
    "easy-hard": easy_hard,
    "hdc": hardest_share,
    "multi-similarity": multi_similarity,
    "n-pairs": n_pairs,
    "pair-margin": pair_margin,
    "uniform-histogram": uniform_histogram,
}
STRATEGIES = tuple(RULES)
RANDOM = ("uniform-histogram",)
# Rules that rank or count the pairs of all anchors together.
WHOLE_BATCH = ("hdc", "n-pairs")
# What may be set for a strategy, and its default.
SETTINGS: dict[str, dict[str, object]] = {
    "all": {},
    "easy-hard": {
        "positive": "easy",
        "negative": "semi-hard",
        "positive_range": None,
        "negative_range": None,
    },
    "hdc": {"filter_percentage": 0.5},
    "multi-similarity": {"epsilon": 0.1},
    "n-pairs": {},
    "pair-margin": {"positive_margin": 0.2, "negative_margin": 0.8},
    "uniform-histogram": {"num_bins": 100, "pos_per_bin": 10, "neg_per_bin": 10},
}
