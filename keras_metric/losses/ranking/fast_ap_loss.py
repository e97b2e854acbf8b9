"""FastAPLoss: average precision from a histogram of an anchor's distances."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_choice, check_count
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.ranking.list_rows import list_rows
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE

# The largest distance of two unit vectors: where the histogram ends.
LARGEST = {"cosine": 2.0, "euclidean": 2.0, "pearson": 2.0, "squared_euclidean": 4.0}


def fast_ap_terms(distance, partners, num_bins, largest):
    """1 - AP of some anchors, and its derivatives with respect to the distances.

    A distance u (in bins) adds to the two edges beside it, by nearness. Summed over the edges up
    to b that is clip(b + 1 - u, 0, 1): the running sums of the histogram, one pass each.
    """
    width = largest / num_bins
    either = ops.logical_or(partners.positive, partners.negative)
    place = ops.where(either, distance / width, MASKED_DISTANCE)

    # A product with ones is the quickest sum of a row.
    ones = ops.transpose(ops.ones_like(place[:1]))
    everyone = [ops.matmul(ops.clip(b + 1 - place, 0, 1), ones) for b in range(num_bins + 1)]
    everyone = ops.concatenate(everyone, axis=1)
    edges = ops.arange(num_bins + 1, dtype=distance.dtype)[None, :]

    def add(rank, column, exists, near):
        mine = ops.take_along_axis(place, column[:, None], axis=1)
        return (near + ops.where(exists[:, None], ops.clip(edges + 1 - mine, 0, 1), 0),)

    (near,) = partners.for_each_positive(add, (ops.zeros_like(everyone),))

    # Shares of the positives among all; nothing where there is nobody yet.
    some = ops.where(everyone > 0, 1 / ops.where(everyone > 0, everyone, 1), 0)
    new = near - ops.pad(near[:, :-1], ((0, 0), (1, 0)))
    share = near * some
    number = ops.cast(ops.maximum(partners.num_positives, 1), distance.dtype)
    precision = ops.sum(new * share, axis=-1) / number

    # Derivatives of the sum of new * share by `everyone` and by `near`. A distance changes these
    # at the edge below it alone, and beyond the last edge not at all.
    by_all = -new * share * some
    by_near = share + new * some - ops.pad(share[:, 1:], ((0, 0), (0, 1)))
    slope = ops.stack([by_all, by_all + by_near], axis=1) / (width * number[:, None, None])
    slope = ops.reshape(ops.pad(slope, ((0, 0), (0, 0), (0, 1))), (-1, 2 * (num_bins + 2)))
    beyond = num_bins + 1
    below = ops.cast(ops.where(place < beyond, place, beyond), "int32")
    below = ops.where(partners.positive, below + num_bins + 2, below)
    return 1 - precision, ops.take_along_axis(slope, below, axis=1)


@export
class FastAPLoss(PairLoss):
    """Trains the average precision of each anchor's list, through a histogram of distances.

    Reach for it where the order of a whole result list counts. It is quicker than SmoothAPLoss for
    classes of many items. It wants unit vectors: the histogram ends at their largest distance, and
    items beyond do not count.

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
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: default "mean_valid", the mean over anchors that have a positive.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
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
        memory=None,
        reduction="mean_valid",
        name="fast_ap_loss",
        dtype=None,
    ):
        check_choice("distance", distance, LARGEST)
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        check_count("num_bins", num_bins)
        self.num_bins = num_bins

    def batch_parts(self, reports, labels, embeddings, *references, size=None):
        batch = (reports, labels, embeddings, *references)
        return [list_rows(self, self._list_terms, *batch, size=size)]

    def _list_terms(self, distance, partners):
        return fast_ap_terms(distance, partners, self.num_bins, LARGEST[self.distance])
