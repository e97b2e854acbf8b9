"""Lifted structure loss."""

from keras_metric._export import export
from keras_metric._validation import check_flag, check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.pair_terms import lifted_structure_rows


@export
class LiftedStructureLoss(PairLoss):
    """Lifted structure: each positive pair against all negatives of both its items.

    It uses more of a batch than triplets do: every negative has a gradient, the nearest ones weigh
    most. For labelled batches, integer labels and embeddings (batch, dim), or several views of each
    item, (batch, views, dim).

        J(i, j) = log(sum_k exp(margin - d(i, k)) + sum_l exp(margin - d(j, l)))
                  + d(i, j) - positive_margin
        loss    = 1 / (2 |P|) * sum of max(J(i, j), 0)**2 over the positive pairs P

    with k over the negatives of i and l over those of j. The paper computes d from the full matrix
    D**2 = x 1' + 1 x' - 2 X X', with x the squared norms.

    Args:
        margin: in units of `distance`; default 1, as in the paper.
        positive_margin: distance that a positive pair may have. Default 0.
        smooth: True (default): the smooth upper bound above. False: the function it bounds, with
            the largest margin - d(i, k) or margin - d(j, l) in place of the logarithm.
        distance: metric name; default "euclidean", on embeddings that need not be normalised.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over all |P| positive pairs.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> loss = keras_metric.losses.LiftedStructureLoss(smooth=False)
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    1.25

    Reference:
        Song, Xiang, Jegelka and Savarese, "Deep Metric Learning via Lifted Structured Feature
        Embedding", 2016, https://arxiv.org/abs/1511.06452
    """

    # A pair uses the negatives of both its items, from the whole batch.
    rows_depend_on = "batch"

    def __init__(
        self,
        margin=1.0,
        positive_margin=0.0,
        smooth=True,
        distance="euclidean",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="lifted_structure_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.margin = check_number("margin", margin)
        self.positive_margin = check_number("positive_margin", positive_margin)
        self.smooth = check_flag("smooth", smooth)

    def batch_parts(self, reports, labels, embeddings, *references):
        distance, pairs = self.chosen(reports, labels, embeddings, *references)
        return [
            lifted_structure_rows(
                distance, pairs, self.margin, self.positive_margin, self.smooth, not references
            )
        ]
