"""Generalized lifted structure loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import single_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def generalized_lifted_structure_rows(distance, pairs, margin, positive_margin):
    """One term per anchor, from its smooth farthest positive and smooth nearest negative."""

    def reach(values, mask, number):
        most = ops.logsumexp(ops.where(mask, values, -MASKED_DISTANCE), axis=1)
        return ops.where(number > 0, most, 0)

    near = reach(distance - positive_margin, pairs.positive, pairs.num_positives)
    far = reach(margin - distance, pairs.negative, pairs.num_negatives)
    return single_terms(ops.relu(near + far), pairs.num_positives + pairs.num_negatives > 0)


@export
class GeneralizedLiftedStructureLoss(PairLoss):
    """Generalized lifted structure: log-sum-exp over all positives and all negatives of an anchor.

    A smooth form of batch-hard triplets, in which every item of a batch has a gradient and the
    hardest ones weigh most. `LiftedStructureLoss` treats each positive pair separately instead.

        loss = mean over a of max( log sum_p exp(d_ap - positive_margin)
                                   + log sum_n exp(margin - d_an), 0 )

    with p over the positives of the anchor a and n over its negatives. For an anchor that has only
    positives or only negatives, the missing logarithm is 0.

    Args:
        margin: in units of `distance`; default 1.
        positive_margin: distance that a positive pair may have. Default 0.
        distance: metric name; default "euclidean".
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "sum_over_batch_size", the mean over all anchors, as in the paper's mean
            over the batch. "mean_valid" leaves out anchors without pairs, which a miner can
            produce.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> loss = keras_metric.losses.GeneralizedLiftedStructureLoss()
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.97

    Reference:
        Hermans, Beyer and Leibe, "In Defense of the Triplet Loss for Person Re-Identification",
        2017, https://arxiv.org/abs/1703.07737
    """

    def __init__(
        self,
        margin=1.0,
        positive_margin=0.0,
        distance="euclidean",
        mining="all",
        labels="ids",
        memory=None,
        reduction="sum_over_batch_size",
        name="generalized_lifted_structure_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.margin = check_number("margin", margin)
        self.positive_margin = check_number("positive_margin", positive_margin)

    def pair_parts(self, distance, pairs):
        return [
            generalized_lifted_structure_rows(distance, pairs, self.margin, self.positive_margin)
        ]
