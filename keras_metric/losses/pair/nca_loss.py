"""Neighbourhood component analysis loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import single_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def nca_rows(distance, pairs, softmax_scale):
    """One term per anchor: -log of the total softmax probability of its positives."""

    def weight(mask):
        return ops.logsumexp(ops.where(mask, -softmax_scale * distance, -MASKED_DISTANCE), axis=1)

    near, others = weight(pairs.positive), weight(pairs.negative)
    return single_terms(ops.softplus(others - near), pairs.num_positives > 0)


@export
class NCALoss(PairLoss):
    """Neighbourhood component analysis: a smooth form of nearest-neighbour classification.

    The loss is -log of the probability that a neighbour, sampled with a softmax over the negative
    distances, has the class of the anchor. One near positive suffices, so a class may form several
    clusters.

        loss = mean over a of -log( sum_p exp(-s d_ap) / sum_j exp(-s d_aj) )

    with p over the positives of the anchor a, and j over all its positives and negatives. Anchors
    without a positive have no term.

    Args:
        softmax_scale: s, factor of the distances, above 0. Default 1. A larger value
            concentrates on the nearest neighbours; for unit vectors, whose squared distances are
            at most 4, use about 10.
        distance: metric name, default "squared_euclidean", as in the paper.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over anchors with a positive.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a `softmax_scale` of 0 or less, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> loss = keras_metric.losses.NCALoss()
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.961

    Reference:
        Goldberger, Roweis, Hinton and Salakhutdinov, "Neighbourhood Components Analysis", 2004,
        https://www.cs.toronto.edu/~hinton/absps/nca.pdf
    """

    def __init__(
        self,
        softmax_scale=1.0,
        distance="squared_euclidean",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="nca_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.softmax_scale = check_number("softmax_scale", softmax_scale, above=0)

    def pair_parts(self, distance, pairs):
        return [nca_rows(distance, pairs, self.softmax_scale)]
