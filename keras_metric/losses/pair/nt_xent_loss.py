"""NTXentLoss: each positive against all negatives of its anchor, as a softmax."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import masked_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def nt_xent_rows(distance, partners, temperature):
    """Rows over the positive pairs: -log of the softmax of a positive among the negatives."""
    logits = -distance / temperature
    others = ops.logsumexp(
        ops.where(partners.negative, logits, -MASKED_DISTANCE), axis=1, keepdims=True
    )
    return masked_terms(ops.softplus(others - logits), partners.positive)


@export
class NTXentLoss(PairLoss):
    """Contrasts each positive pair with the anchor's negatives: the loss of SimCLR, or InfoNCE.

    Reach for it with large batches, and without labels: two augmented views of each item,
    embeddings (batch, 2, dim), need no y. With integer labels, embeddings (batch, dim), all
    positive pairs count, in both directions.

        loss = mean over (a, p) of -log( exp(s_ap / t) / (exp(s_ap / t) + sum_n exp(s_an / t)) )

    with s = -distance (a cosine and its distance differ by a constant, which cancels), t the
    temperature and n over the negatives of a. Other positives of a are left out of the sum.

    Args:
        temperature: t, above 0. Default 0.07, as in pytorch-metric-learning; SimCLR takes 0.1
            to 0.5. Lower weighs the nearest negatives more.
        distance: metric name, default "cosine".
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: default "mean_valid", the mean over all positive pairs.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a temperature of 0 or less, or labels of another kind.

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
        check_number("temperature", temperature, above=0)
        self.temperature = temperature

    def pair_parts(self, distance, partners):
        return [nt_xent_rows(distance, partners, self.temperature)]
