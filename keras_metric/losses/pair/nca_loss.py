"""NCALoss: an anchor's chance to find its own class among its neighbours."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import single_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def nca_rows(distance, partners, scale):
    """One term an anchor: -log of the share of its positives in a softmax over all partners."""

    def weight(mask):
        return ops.logsumexp(ops.where(mask, -scale * distance, -MASKED_DISTANCE), axis=1)

    near, others = weight(partners.positive), weight(partners.negative)
    return single_terms(ops.softplus(others - near), partners.num_positives > 0)


@export
class NCALoss(PairLoss):
    """Neighbourhood component analysis: a smooth form of nearest-neighbour classification.

    Each anchor draws a neighbour, near ones more often; the loss is -log of the chance that it
    is of the anchor's class. One near positive is enough: a class may be several clusters.

        loss = mean over a of -log( sum_p exp(-scale * d_ap) / sum_j exp(-scale * d_aj) )

    with p over the positives of the anchor a, and j over all its positives and negatives.
    Anchors without a positive have no term.

    Args:
        scale: scale, above 0. Default 1. Larger looks at the nearest alone; unit
            vectors, whose squared distances end at 4, want about 10.
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
        ValueError: for an unknown name, a scale of 0 or less, or labels of another kind.

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

    renamed_arguments = {"softmax_scale": "scale"}

    def __init__(
        self,
        scale=1.0,
        distance="squared_euclidean",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="nca_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        check_number("scale", scale, above=0)
        self.scale = scale

    def pair_parts(self, distance, partners):
        return [nca_rows(distance, partners, self.scale)]
