"""LiftedStructureLoss: each positive pair against all negatives of both its items."""

from keras_metric._export import export
from keras_metric._validation import check_flag, check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.pair_terms import lifted_structure_rows


@export
class LiftedStructureLoss(PairLoss):
    """Compares each positive pair of a batch with every negative of its two items at once.

    Learns more from a batch than triplets of it do: no negative is left out, the nearest
    weigh most. For labelled batches, integer labels and embeddings (batch, dim), or several views
    of each item, (batch, views, dim).

        J(i, j) = log(sum_k exp(margin - d(i, k)) + sum_l exp(margin - d(j, l)))
                  + d(i, j) - positive_margin
        loss    = 1 / (2 |P|) * sum of max(J(i, j), 0)**2 over the positive pairs P

    with k over the negatives of i and l over those of j, and distances from the full matrix
    D**2 = x 1' + 1 x' - 2 X X', x the squared lengths.

    Args:
        margin: in units of `distance`; default 1, as in the paper.
        positive_margin: distance a positive pair may keep. Default 0.
        smooth: True (default): the smooth upper bound above. False: the function it bounds,
            with the largest margin - d(i, k) or margin - d(j, l) in place of the logarithm.
        distance: metric name; default "euclidean", on embeddings that need not be normalised.
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: default "mean_valid": the mean over all positive pairs, |P| of them.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name or labels of another kind.

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

    # A pair counts once in the batch, and pushes from both of its ends.
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
        check_number("margin", margin)
        check_number("positive_margin", positive_margin)
        check_flag("smooth", smooth)
        self.margin = margin
        self.positive_margin = positive_margin
        self.smooth = bool(smooth)

    def batch_parts(self, reports, labels, embeddings, *references):
        distance, partners = self.chosen(reports, labels, embeddings, *references)
        return [
            lifted_structure_rows(
                distance, partners, self.margin, self.positive_margin, self.smooth, not references
            )
        ]
