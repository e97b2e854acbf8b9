"""Instance loss."""

import functools

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.pair.sup_con_loss import sup_con_terms
from keras_metric.losses.ranking.list_rows import list_rows
from keras_metric.losses.two_view.clip_loss import clip_rows, measured_branches
from keras_metric.pairwise.blockwise import FEW_PASSES


@export
class InstanceLoss(PairLoss):
    """Instance loss: cross-entropy with each item of the batch as a class of its own.

    Use it for pairs of two kinds, such as images and captions: embeddings (batch, 2, dim). The
    first view of an item is classified among all second views of the batch, and vice versa. In a
    labelled batch (integer labels, embeddings (batch, dim)) all items of the anchor's class, the
    anchor included, are equally correct.

        loss = mean over a of -1/|C(a)| sum over c of log( exp(gamma * s_ac)
                                                           / sum_j exp(gamma * s_aj) )

    with s the cosine, j over the batch, and C(a) the items with the label of a. The paper learns a
    vector for each class; here the embeddings of the batch are used instead.

    pytorch-metric-learning takes the position of the anchor's label among the sorted labels as the
    target column, which is an item of another class in general. Both agree for y of 0, 1, 2, ...

    Args:
        gamma: factor of the cosines, above 0. Default 64.
        labels: "ids" (default), or "multi_hot": 0/1 rows; items that share a label are of one
            class.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over all anchors.
        name: name of the loss.
        dtype: dtype of the result; cosines are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a gamma of 0 or less, labels of a wrong kind, or a wrong
            number of branches.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> views = np.array([[[1.0, 0.0], [1.0, 0.1]], [[0.0, 1.0], [0.1, 1.0]]], "float32")
    >>> loss = keras_metric.losses.InstanceLoss(gamma=2)
    >>> round(float(loss(np.arange(2), views)), 3)
    0.154

    Reference:
        Zheng et al., "Dual-Path Convolutional Image-Text Embeddings with Instance Loss", 2017,
        https://arxiv.org/abs/1711.05535
    """

    num_branches = (2,)
    # An item is its own positive, so all labels may differ.
    needs_positives = False

    def __init__(
        self,
        gamma=64,
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="instance_loss",
        dtype=None,
    ):
        super().__init__("cosine", "all", labels, reduction, name, dtype, memory)
        self.gamma = check_number("gamma", gamma, above=0)

    def batch_parts(self, reports, labels, embeddings, *references, **blocks):
        terms = functools.partial(sup_con_terms, temperature=1 / self.gamma)
        batch = (reports, labels, embeddings, *references)
        blocks = {"with_own": True, "alone": True, **FEW_PASSES, **blocks}
        return [list_rows(self, terms, *batch, **blocks)]

    def tuple_parts(self, reports, y_true, branches):
        measured = measured_branches(self, reports, y_true, branches)
        return [clip_rows(*measured, self.gamma)]
