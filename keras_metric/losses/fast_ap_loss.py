"""FastAPLoss: average precision from a histogram of an anchor's distances."""

from keras import ops

from keras_metric._checks import check_choice, check_count
from keras_metric._export import export
from keras_metric.losses.ranking_loss import RankingLoss
from keras_metric.pairs import FAR

# The largest distance of two unit vectors: where the histogram ends.
LARGEST = {"cosine": 2.0, "euclidean": 2.0, "pearson": 2.0, "squared_euclidean": 4.0}


def fast_ap_terms(distance, partners, num_bins, largest):
    """1 - AP of some anchors, and its derivatives with respect to the distances.

    A distance u (in bins) adds to the two edges beside it, by nearness. Summed over the edges up
    to b that is clip(b + 1 - u, 0, 1): the running sums of the histogram, one pass each.
    """
    positive = partners.positive
    width = largest / num_bins
    place = ops.where(ops.logical_or(positive, partners.negative), distance / width, FAR)
    of_positive = ops.where(positive, place, FAR)
    number = ops.cast(ops.maximum(partners.num_positives, 1), distance.dtype)

    def up_to(edge, place):
        return ops.sum(ops.clip(edge + 1 - place, 0, 1), axis=-1)

    edges = range(num_bins + 1)
    near = [up_to(edge, of_positive) for edge in edges]
    everyone = [up_to(edge, place) for edge in edges]
    # Shares of the positives among all; nothing where there is nobody yet.
    some = [ops.where(all_ > 0, 1 / ops.where(all_ > 0, all_, 1), 0) for all_ in everyone]
    new = [near[0], *(near[b] - near[b - 1] for b in edges[1:])]
    share = [near[b] * some[b] for b in edges]
    precision = sum(new[b] * share[b] for b in edges) / number

    def slope_at(b):
        """Derivatives of the sum of new * share by near[b] and by everyone[b]."""
        by_near = share[b] + new[b] * some[b]
        return by_near - (share[b + 1] if b < num_bins else 0), -new[b] * share[b] * some[b]

    slopes = ops.zeros_like(distance)
    for b in edges:
        by_near, by_all = (slope[:, None] for slope in slope_at(b))
        inside = ops.logical_and(place > b, place < b + 1)
        slopes = slopes + ops.where(inside, ops.where(positive, by_near, 0) + by_all, 0)
    return 1 - precision, slopes / (width * number[:, None])


@export
class FastAPLoss(RankingLoss):
    """Trains the average precision of each anchor's list, through a histogram of distances.

    Reach for it where the order of a whole result list counts. It is quicker than SmoothAPLoss for
    classes of many items: its work does not grow with the number of positives. It wants unit
    vectors, since the histogram ends at their largest distance; items beyond it do not count.

        AP(a) = 1/|P(a)| * sum over bins b of h_b * H_b / A_b
        loss  = mean over a of 1 - AP(a)

    with h_b the number of positives of a whose distance falls into bin b, H_b and A_b the numbers
    of positives and of all partners up to b. An item counts for the two edges beside it, by its
    nearness to each, so that the numbers have a slope.

    Args:
        num_bins: number of bins, at least 1; the histogram has one edge more. Default 10, as in
            the paper. More are a sharper AP and a gradient for fewer items.
        distance: metric name, one with a largest distance: "squared_euclidean" (default, as in
            the paper; up to 4), "euclidean", "cosine" or "pearson" (up to 2).
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        reduction: default "mean_valid", the mean over anchors that have a positive.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        ValueError: for an unknown name, a metric without a largest distance, fewer than one bin,
            or labels of another kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]], "float32")
    >>> loss = keras_metric.losses.FastAPLoss()
    >>> round(float(loss(np.array([0, 1, 0, 1]), points)), 3)
    0.583

    Reference:
        Cakir, He, Xia, Kulis and Sclaroff, "Deep Metric Learning to Rank", 2019,
        https://doi.org/10.1109/CVPR.2019.00196
    """

    def __init__(
        self,
        num_bins=10,
        distance="squared_euclidean",
        mining="all",
        labels="ids",
        reduction="mean_valid",
        name="fast_ap_loss",
        dtype=None,
    ):
        check_choice("distance", distance, LARGEST)
        super().__init__(distance, mining, labels, reduction, name, dtype)
        check_count("num_bins", num_bins)
        self.num_bins = num_bins

    def block_terms(self, distance, partners):
        return fast_ap_terms(distance, partners, self.num_bins, LARGEST[self.distance])
