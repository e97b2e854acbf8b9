"""Which pairs of a batch count: functions of distances (batch, references) and partners.

Each returns two boolean matrices (batch, references): the positives and the negatives that count.
"""

from keras import ops

from keras_metric.mining.columns import among
from keras_metric.pairs import FAR


def multi_similarity(distance, partners, epsilon):
    """Positives harder than the hardest negative less `epsilon`, and the other way round.

    Wang et al. 2019, https://arxiv.org/abs/1904.06627, equations 7 and 8, in distances.
    """
    positive, negative = partners.positive, partners.negative
    nearest = ops.min(among(distance, negative, FAR), axis=-1, keepdims=True)
    farthest = ops.max(among(distance, positive, -FAR), axis=-1, keepdims=True)
    both = partners.has_both[:, None]
    positive = ops.logical_and(positive, ops.logical_and(distance + epsilon > nearest, both))
    return positive, ops.logical_and(negative, ops.logical_and(distance - epsilon < farthest, both))


RANDOM = ()
STRATEGIES = ("multi-similarity",)
