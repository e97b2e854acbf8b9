"""SoftNearestNeighborLoss: how entangled the classes of a batch are."""

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.nca_loss import nca_rows
from keras_metric.losses.pair.pair_loss import PairLoss


@export
class SoftNearestNeighborLoss(PairLoss):
    """Measures how entangled classes are: large where the neighbours are of other classes.

    Minimise it to part the classes of an embedding, or give it a negative weight in
    `WeightedSum` to keep them entangled, which the paper found to help hidden layers.

        loss = mean over a of -log( sum_p exp(-d_ap / t) / sum_j exp(-d_aj / t) )

    with t the temperature, p over the positives of the anchor a, and j over all its positives
    and negatives: `NCALoss` with scale = 1 / t. Anchors without a positive have no term.

    Args:
        temperature: t, above 0, in units of `distance`. Default 1. Lower looks at the nearest
            alone.
        distance: metric name, default "squared_euclidean", as in the paper.
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: default "mean_valid", the mean over anchors with a positive.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a temperature of 0 or less, or labels of another kind.

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
        check_number("temperature", temperature, above=0)
        self.temperature = temperature

    def pair_parts(self, distance, partners):
        return [nca_rows(distance, partners, 1 / self.temperature)]
