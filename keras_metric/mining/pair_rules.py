"""Strategies of `PairMiner`: functions of distances (batch, references) and `Pairs`.

Each returns two boolean matrices (batch, references): the positives and the negatives that count.
Ties go to the lowest column.
"""

from keras import ops

from keras_metric.pairwise.class_pairs import MASKED_DISTANCE, argmax, argmin

# How one of an anchor's positives or negatives is chosen. "semi-hard": the hardest one that is in
# order with the chosen item of the other kind.
CHOICES = ("all", "easy", "hard", "semi-hard")


def every_pair(distance, pairs, noise=None):
    """All positives and all negatives."""
    return pairs.positive, pairs.negative


def easy_hard(distance, pairs, noise=None, *, positive, negative, positive_range, negative_range):
    """One positive and one negative of each anchor that has both, chosen independently.

    "hard": the farthest positive, the nearest negative; "easy": the nearest positive, the farthest
    negative; "semi-hard": the hardest positive nearer than the negative, or the hardest negative
    beyond the positive. "all" takes every one, also for an anchor that has none of the other kind.
    Distances outside a range (least, most) do not count.
    Xuan, Stylianou and Pless 2020, https://arxiv.org/abs/1904.04370
    """
    positives = _in_range(distance, pairs.positive, positive_range)
    negatives = _in_range(distance, pairs.negative, negative_range)

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
    return _extreme(argmin, ops.where(mask, distance, MASKED_DISTANCE), mask)


def _farthest(distance, mask):
    return _extreme(argmax, ops.where(mask, distance, -MASKED_DISTANCE), mask)


def _extreme(extreme, values, mask):
    columns = ops.arange(ops.shape(mask)[1], dtype="int32")[None, :]
    column, value = extreme(values, columns)
    exists = ops.abs(value) < MASKED_DISTANCE
    chosen = ops.logical_and(ops.equal(columns, column[:, None]), exists[:, None])
    return chosen, value, exists


def _in_range(distance, mask, limits):
    if limits is None:
        return mask
    inside = ops.logical_and(distance >= limits[0], distance <= limits[1])
    return ops.logical_and(mask, inside)


def multi_similarity(distance, pairs, noise=None, *, epsilon):
    """Positives beyond the nearest negative less `epsilon`, and negatives by the reverse rule.

    Wang et al. 2019, https://arxiv.org/abs/1904.06627, equations 7 and 8, in distances.
    """
    positive, negative = pairs.positive, pairs.negative
    nearest = ops.min(ops.where(negative, distance, MASKED_DISTANCE), axis=-1, keepdims=True)
    farthest = ops.max(ops.where(positive, distance, -MASKED_DISTANCE), axis=-1, keepdims=True)
    both = pairs.has_both[:, None]
    positive = ops.logical_and(positive, ops.logical_and(distance + epsilon > nearest, both))
    return positive, ops.logical_and(negative, ops.logical_and(distance - epsilon < farthest, both))


def pair_margin(distance, pairs, noise=None, *, positive_margin, negative_margin):
    """Positives farther than one margin and negatives nearer than the other."""
    positive = ops.logical_and(pairs.positive, distance > positive_margin)
    return positive, ops.logical_and(pairs.negative, distance < negative_margin)


def hardest_fraction(distance, pairs, noise=None, *, filter_percentage):
    """The hardest fraction of all positive pairs of the batch, and of all negative pairs.

    Yuan, Yang and Zhang 2017, https://arxiv.org/abs/1611.05720
    """

    def hardest(values, mask, number):
        count = ops.cast(ops.ceil(filter_percentage * ops.cast(number, "float32")), "int32")
        return smallest(values, mask, count, whole=True)

    return (
        hardest(-distance, pairs.positive, ops.sum(pairs.num_positives)),
        hardest(distance, pairs.negative, ops.sum(pairs.num_negatives)),
    )


def n_pairs(distance, pairs, noise=None):
    """The first anchor of each class with its first positive, and the positives of the others.

    Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective".
    """
    if not pairs.is_grouped:
        raise ValueError(
            'The strategy "n-pairs" takes one pair of each class of a batch, so it needs integer '
            'class labels, and no memory. Received: labels="multi_hot", or a memory'
        )
    rows = ops.arange(ops.shape(distance)[0], dtype="int32")
    same = ops.equal(pairs.labels[:, None], pairs.labels[None, :])
    earlier = ops.logical_and(same, rows[None, :] < rows[:, None])
    column, exists = pairs.column(0)
    is_first = ops.logical_and(ops.logical_not(ops.any(earlier, axis=1)), exists)[:, None]
    pair = ops.logical_and(is_first, ops.equal(pairs.columns, column[:, None]))
    of_others = ops.logical_and(pairs.negative, ops.any(pair, axis=0, keepdims=True))
    return pair, ops.logical_and(is_first, of_others)


def uniform_histogram(distance, pairs, noise, *, num_bins, pos_per_bin, neg_per_bin):
    """A few random pairs from each of `num_bins` intervals of distance, of either kind.

    Positives and negatives have separate intervals, of equal width over the range of their
    distances.
    """
    positive, negative = pairs.positive, pairs.negative
    bins = ops.where(negative, num_bins + _bin(distance, negative, num_bins), 2 * num_bins)
    bins = ops.where(positive, _bin(distance, positive, num_bins), bins)
    # One integer holds the bin and a random number: a sort by it puts each bin in random order.
    steps = (2**31 - 1) // (2 * num_bins + 1)
    random = ops.minimum(ops.cast(noise * steps, "int32"), steps - 1)
    key = ops.reshape(bins * steps + random, (-1,))
    order = ops.argsort(key)
    edges = ops.arange(2 * num_bins + 1, dtype="int32") * steps
    edges = ops.cast(ops.searchsorted(ops.take(key, order), edges), "int32")
    rank = ops.arange(max(pos_per_bin, neg_per_bin), dtype="int32")[None, :]
    quota = ops.repeat(ops.convert_to_tensor([[pos_per_bin], [neg_per_bin]]), num_bins, axis=0)
    position = edges[:-1, None] + rank
    inside = ops.logical_and(position < edges[1:, None], rank < quota)
    cells = ops.take(order, ops.minimum(position, ops.shape(order)[0] - 1))
    taken = ops.segment_sum(
        ops.reshape(ops.cast(inside, "int32"), (-1,)),
        ops.reshape(cells, (-1,)),
        num_segments=ops.shape(order)[0],
    )
    taken = ops.reshape(taken > 0, ops.shape(distance))
    return ops.logical_and(positive, taken), ops.logical_and(negative, taken)


def _bin(distance, mask, num_bins):
    """Number of the interval of each distance, of equal intervals between those in `mask`."""
    least, most = (
        ops.min(ops.where(mask, distance, MASKED_DISTANCE)),
        ops.max(ops.where(mask, distance, -MASKED_DISTANCE)),
    )
    width = ops.where(most > least, most - least, 1)
    # Distances outside `mask` may lie outside the range.
    number = ops.clip(ops.floor((distance - least) / width * num_bins), 0, num_bins - 1)
    return ops.cast(number, "int32")


def smallest(values, mask, count, whole=False):
    """Which elements in `mask` are the `count` smallest of their row; all, if there are fewer.

    Equal elements are taken from the lowest columns, so that the number is exact. `count`: (rows,
    1). With `whole`, of the matrix instead of each row; `count` is then one number.
    """
    axis = None if whole else -1
    limit = _value_of_rank(values, mask, count, axis)
    smaller = ops.logical_and(mask, values < limit)
    equals = ops.logical_and(mask, ops.equal(values, limit))
    remaining = count - ops.sum(ops.cast(smaller, "int32"), axis=axis, keepdims=True)
    counted = ops.cast(equals, "int32")
    rank = ops.cumsum(counted, axis=-1)
    if whole:
        of_rows = ops.sum(counted, axis=-1, keepdims=True)
        rank = rank + ops.cumsum(of_rows, axis=0) - of_rows
    return ops.logical_or(smaller, ops.logical_and(equals, rank <= remaining))


def _value_of_rank(values, mask, count, axis):
    """The `count`-th smallest of the values in `mask`, by bisection.

    About thirty passes over the matrix, a tenth of the cost of sorting it.
    """

    def reached(limit):
        below = ops.logical_and(mask, values <= limit)
        return ops.sum(ops.cast(below, "int32"), axis=axis, keepdims=True) >= count

    def middle(low, high):
        return low + (high - low) / 2

    def is_open(low, high):
        # The search ends at two adjacent floats, so it is exact.
        between = middle(low, high)
        return ops.any(ops.logical_and(low < between, between < high))

    def halve(low, high):
        between = middle(low, high)
        here = reached(between)
        return ops.where(here, low, between), ops.where(here, between, high)

    low = ops.min(ops.where(mask, values, MASKED_DISTANCE), axis=axis, keepdims=True)
    high = ops.max(ops.where(mask, values, -MASKED_DISTANCE), axis=axis, keepdims=True)
    return ops.while_loop(is_open, halve, (low, ops.where(reached(low), low, high)))[1]


def nearest_negatives(distance, positive, negative, ratio):
    """The nearest negatives of each anchor, at most `ratio` for each positive."""
    number = ratio * ops.sum(ops.cast(positive, "int32"), axis=-1, keepdims=True)
    return smallest(distance, negative, number)


RULES = {
    "all": every_pair,
    "easy-hard": easy_hard,
    "hdc": hardest_fraction,
    "multi-similarity": multi_similarity,
    "n-pairs": n_pairs,
    "pair-margin": pair_margin,
    "uniform-histogram": uniform_histogram,
}
STRATEGIES = tuple(RULES)
RANDOM = ("uniform-histogram",)
# Rules that rank or count the pairs of all anchors together.
WHOLE_BATCH = ("hdc", "n-pairs")
# Settings of each strategy, and their defaults.
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
