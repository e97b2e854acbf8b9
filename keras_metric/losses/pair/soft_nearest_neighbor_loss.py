"""Soft nearest neighbour loss."""

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.nca_loss import nca_rows
from keras_metric.losses.pair.pair_loss import PairLoss


@export
class SoftNearestNeighborLoss(PairLoss):
    """Soft nearest neighbour: `NCALoss` with a temperature; measures the entanglement of classes.

    It is large where the neighbours of an item are of other classes. Minimise it to separate the
    classes, or use a negative weight in `WeightedSum` to keep them entangled, which the paper found
    useful for hidden layers.

        loss = mean over a of -log( sum_p exp(-d_ap / t) / sum_j exp(-d_aj / t) )

    with t the temperature, p over the positives of the anchor a, and j over all its positives and
    negatives: `NCALoss` with scale = 1 / t. Anchors without a positive have no term.

    Args:
        temperature: t, above 0, in units of `distance`. Default 1. A lower temperature concentrates
            on the nearest neighbours.
        distance: metric name, default "squared_euclidean", as in the paper.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over anchors with a positive.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a temperature of 0 or less, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> loss = keras_metric.losses.SoftNearestNeighborLoss(temperature=2.0)
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.714

    Reference:
        Frosst, Papernot and Hinton, "Analyzing and Improving Representations with the Soft
        Nearest Neighbor Loss", 2019, https://arxiv.org/abs/1902.01889
    """

    def __init__(
        self,
        temperature=1.0,
        distance="squared_euclidean",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="soft_nearest_neighbor_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.temperature = check_number("temperature", temperature, above=0)

    def pair_parts(self, distance, pairs):
        return [nca_rows(distance, pairs, 1 / self.temperature)]
