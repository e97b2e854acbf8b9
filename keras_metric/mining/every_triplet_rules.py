"""Strategies that take every triplet, or every triplet of a kind; a loss sums them without a list.

They define, for each positive p of an anchor a, which of its negatives n count. `EDGES` has the
strategies that are an interval of distances: a triplet counts if n is within the upper edge and not
within the lower edge. An edge (reach, closed) is the distance d_ap + reach; a negative at exactly
this distance is within the edge if it is closed. None is an open side.
"""

import math

from keras import ops

from keras_metric.pairwise.class_pairs import MASKED_DISTANCE

EDGES = {
    "all": lambda: (None, None),
    "easy-all": lambda margin: ((margin, False), None),
    "hard-all": lambda: (None, (0.0, True)),
    "semi-hard-all": lambda margin: ((0.0, True), (margin, False)),
}
EVERY = ("all", "angular", "easy-all", "hard-all", "semi-hard-all")

# The square of a Euclidean distance, up to a factor. Of cosine and dot, between unit vectors.
_SQUARES = {
    "euclidean": ops.square,
    "squared_euclidean": lambda d: d,
    "cosine": lambda d: d,
    "pearson": lambda d: d,
    "dot": lambda d: 1 + d,
}


def within(edge, near, others):
    """Which distances `others` (rows, references) lie within the edge of `near` (rows, 1)."""
    reach, closed = edge
    return others <= near + reach if closed else others < near + reach


def chooser(name, metric, settings):
    """Which negatives of a positive count: None for all, else a function of three distances.

    `near` (rows, 1): from the anchors to their positives. `others` (rows, references): to their
    negatives, `MASKED_DISTANCE` elsewhere. `beyond` (rows, references): from the positives to the
    references, for "angular" only.
    """
    if name == "angular":
        return _wide_angle(metric, **settings)
    lower, upper = EDGES[name](**settings)
    if lower is None and upper is None:
        return None

    def inside(near, others, beyond):
        counts = others < MASKED_DISTANCE if upper is None else within(upper, near, others)
        if lower is not None:
            counts = ops.logical_and(counts, ops.logical_not(within(lower, near, others)))
        return counts

    return inside


def _wide_angle(metric, angle):
    if metric not in _SQUARES:
        raise ValueError(
            'The strategy "angular" computes angles between embeddings: `distance` must be one '
            f"of {sorted(_SQUARES)}. Received: distance={metric!r}"
        )
    square, bound = _SQUARES[metric], math.tan(math.radians(angle)) ** 2

    def inside(near, others, beyond):
        # tan of the angle at n is |a - p| / (2 |n - c|) with c the middle of a and p, and
        # 4 |n - c|**2 = 2 |n - a|**2 + 2 |n - p|**2 - |a - p|**2 in any triangle.
        both = square(others) + square(beyond)
        return (1 + bound) * square(near) > 2 * bound * both

    return inside
