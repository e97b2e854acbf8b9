"""NT-Xent loss (InfoNCE)."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import masked_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def nt_xent_rows(distance, pairs, temperature):
    """Rows over the positive pairs: -log of the softmax of a positive among the negatives."""
    logits = -distance / temperature
    others = ops.logsumexp(
        ops.where(pairs.negative, logits, -MASKED_DISTANCE), axis=1, keepdims=True
    )
    return masked_terms(ops.softplus(others - logits), pairs.positive)


@export
class NTXentLoss(PairLoss):
    """NT-Xent (InfoNCE, SimCLR): softmax cross-entropy of each positive pair among the negatives.

    Use it with large batches, also without labels: two augmented views of each item, embeddings
    (batch, 2, dim), need no y. With integer labels and embeddings (batch, dim) all ordered positive
    pairs count.

        loss = mean over (a, p) of -log( exp(s_ap / t) / (exp(s_ap / t) + sum_n exp(s_an / t)) )

    with s = -distance (a cosine and its distance differ by a constant, which cancels), t the
    temperature and n over the negatives of a. Other positives of a are not in the sum.

    Args:
        temperature: t, above 0. Default 0.07, as in pytorch-metric-learning; SimCLR uses 0.1 to
            0.5. A lower temperature weights the nearest negatives more.
        distance: metric name, default "cosine".
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over all positive pairs.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a temperature of 0 or less, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> views = np.array([[[1.0, 0.0], [1.0, 0.1]], [[0.0, 1.0], [0.1, 1.0]]], "float32")
    >>> loss = keras_metric.losses.NTXentLoss(temperature=0.5)
    >>> round(float(loss(np.arange(2), views)), 3)
    0.29

    Reference:
        Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of
        Visual Representations", 2020, https://arxiv.org/abs/2002.05709
    """

    def __init__(
        self,
        temperature=0.07,
        distance="cosine",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="nt_xent_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.temperature = check_number("temperature", temperature, above=0)

    def pair_parts(self, distance, pairs):
        return [nt_xent_rows(distance, pairs, self.temperature)]
