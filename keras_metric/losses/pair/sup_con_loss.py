"""Supervised contrastive loss."""

import functools

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.ranking.list_rows import list_rows
from keras_metric.pairwise.blockwise import FEW_PASSES
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def sup_con_terms(distance, pairs, noise=None, *, temperature):
    """Negative mean log-softmax of an anchor's positives, and its derivatives by the distances.

    Both are meaningless for an anchor without a positive.
    """
    positive, logits = pairs.positive, -distance / temperature
    target = 1 / ops.cast(ops.maximum(pairs.num_positives, 1), logits.dtype)
    logits = ops.where(ops.logical_or(positive, pairs.negative), logits, -MASKED_DISTANCE)
    highest = ops.max(logits, axis=1)
    weights = ops.exp(logits - highest[:, None])
    total = ops.sum(weights, axis=1)
    near = target * ops.sum(ops.where(positive, logits, 0), axis=1)
    target = ops.where(positive, target[:, None], 0)
    gradient = (target - weights / total[:, None]) / temperature
    return highest + ops.log(total) - near, gradient


@export
class SupConLoss(PairLoss):
    """Supervised contrastive loss: mean cross-entropy of an anchor's positives.

    Use it with labels and large batches, or with several views of labelled items: embeddings
    (batch, views, dim) and integer labels.

        loss = mean over a of -1/|P(a)| sum over p of log( exp(s_ap / t) / sum_j exp(s_aj / t) )

    with s = -distance, t the temperature, P(a) the positives of a, and j over all its positives and
    negatives. This is the form L_out of the paper.

    Args:
        temperature: t, above 0. Default 0.1, as in the paper.
        distance: metric name, default "cosine".
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_active", the mean over anchors with a positive and a term above
            zero, as in pytorch-metric-learning; only terms that underflow are 0.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a temperature of 0 or less, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], "float32")
    >>> loss = keras_metric.losses.SupConLoss(temperature=0.5)
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.29

    Reference:
        Khosla et al., "Supervised Contrastive Learning", 2020, https://arxiv.org/abs/2004.11362
    """

    def __init__(
        self,
        temperature=0.1,
        distance="cosine",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_active",
        name="sup_con_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.temperature = check_number("temperature", temperature, above=0)

    def batch_parts(self, reports, labels, embeddings, *references, **blocks):
        terms = functools.partial(sup_con_terms, temperature=self.temperature)
        batch = (reports, labels, embeddings, *references)
        return [list_rows(self, terms, *batch, **{**FEW_PASSES, **blocks})]
