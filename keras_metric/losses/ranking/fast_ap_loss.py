"""FastAP loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_choice, check_count
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.ranking.list_rows import list_rows
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE

# Upper end of the histogram: the largest distance of two unit vectors.
MAX_DISTANCE = {"cosine": 2.0, "euclidean": 2.0, "pearson": 2.0, "squared_euclidean": 4.0}


def fast_ap_terms(distance, pairs, num_bins, largest):
    """1 - AP of some anchors, and its derivatives with respect to the distances.

    A distance u (in bins) contributes to its two neighbouring edges by linear interpolation. Its
    contribution to the cumulative histogram up to edge b is clip(b + 1 - u, 0, 1).
    """
    width = largest / num_bins
    either = ops.logical_or(pairs.positive, pairs.negative)
    position = ops.where(either, distance / width, MASKED_DISTANCE)

    # A matrix product with ones is the fastest row sum.
    ones = ops.transpose(ops.ones_like(position[:1]))
    counts = [ops.matmul(ops.clip(b + 1 - position, 0, 1), ones) for b in range(num_bins + 1)]
    counts = ops.concatenate(counts, axis=1)
    edges = ops.arange(num_bins + 1, dtype=distance.dtype)[None, :]

    def add(rank, column, exists, near):
        mine = ops.take_along_axis(position, column[:, None], axis=1)
        return (near + ops.where(exists[:, None], ops.clip(edges + 1 - mine, 0, 1), 0),)

    (near,) = pairs.for_each_positive(add, (ops.zeros_like(counts),))

    # Precision at each edge; 0 where no item is counted yet.
    some = ops.where(counts > 0, 1 / ops.where(counts > 0, counts, 1), 0)
    new = near - ops.pad(near[:, :-1], ((0, 0), (1, 0)))
    precision_at = near * some
    number = ops.cast(ops.maximum(pairs.num_positives, 1), distance.dtype)
    precision = ops.sum(new * precision_at, axis=-1) / number

    # Derivatives of sum(new * precision_at) by `counts` and by `near`. A distance changes these
    # only at the edge below it, and not at all beyond the last edge.
    by_all = -new * precision_at * some
    by_near = precision_at + new * some - ops.pad(precision_at[:, 1:], ((0, 0), (0, 1)))
    gradient = ops.stack([by_all, by_all + by_near], axis=1) / (width * number[:, None, None])
    gradient = ops.reshape(ops.pad(gradient, ((0, 0), (0, 0), (0, 1))), (-1, 2 * (num_bins + 2)))
    beyond = num_bins + 1
    below = ops.cast(ops.where(position < beyond, position, beyond), "int32")
    below = ops.where(pairs.positive, below + num_bins + 2, below)
    return 1 - precision, ops.take_along_axis(gradient, below, axis=1)


@export
class FastAPLoss(PairLoss):
    """FastAP: average precision of each anchor's ranked list, from a histogram of distances.

    Use it where the order of the whole result list matters. It is faster than `SmoothAPLoss` for
    classes with many items. It requires unit vectors: the histogram ends at their largest distance,
    and items beyond it are ignored.

        AP(a) = 1/|P(a)| * sum over bins b of h_b * H_b / A_b
        loss  = mean over a of 1 - AP(a)

    with h_b the number of positives of a whose distance falls into bin b, and H_b and A_b the
    numbers of positives and of all items up to b. An item contributes to the two edges next to its
    distance, by linear interpolation, so that the counts are differentiable.

    Args:
        num_bins: number of bins, at least 1; the histogram has one edge more. Default 10, as in the
            paper. More bins approximate AP better, with a gradient for fewer items.
        distance: name of a metric with a largest distance: "squared_euclidean" (default, as in the
            paper; up to 4), "euclidean", "cosine" or "pearson" (up to 2).
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over anchors that have a positive.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a metric without a largest distance, fewer than one bin,
            or labels of a wrong kind.

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
        check_choice("distance", distance, MAX_DISTANCE)
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.num_bins = check_count("num_bins", num_bins)

    def batch_parts(self, reports, labels, embeddings, *references, **blocks):
        batch = (reports, labels, embeddings, *references)
        return [list_rows(self, self._list_terms, *batch, **blocks)]

    def _list_terms(self, distance, pairs):
        return fast_ap_terms(distance, pairs, self.num_bins, MAX_DISTANCE[self.distance])
