"""NT-Xent loss (InfoNCE)."""

import functools

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import Rows
from keras_metric.pairwise.blockwise import FEW_PASSES, rows_in_blocks
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def nt_xent_terms(distance, pairs, noise=None, *, temperature):
    """Sum and number above zero of the terms of an anchor's positives, and the derivatives.

    A term is -log of the softmax of one positive among all negatives.
    """
    positive, logits = pairs.positive, -distance / temperature
    far = ops.where(pairs.negative, logits, -MASKED_DISTANCE)
    highest = ops.max(far, axis=1, keepdims=True)
    weights = ops.exp(far - highest)
    total = ops.sum(weights, axis=1, keepdims=True)
    gap = ops.where(positive, highest + ops.log(total) - logits, -MASKED_DISTANCE)
    terms, gradients = ops.softplus(gap), ops.sigmoid(gap)
    # Without a negative, all weights are 1 and all gradients are 0.
    derivative = (
        gradients - ops.sum(gradients, axis=1, keepdims=True) * weights / total
    ) / temperature
    active = ops.sum(ops.cast(terms > 0, terms.dtype), axis=1)
    return ops.sum(terms, axis=1), active, derivative


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

    def batch_parts(self, reports, labels, embeddings, *references, **blocks):
        measured, pairs = self.in_blocks(labels, embeddings, *references)
        terms = functools.partial(nt_xent_terms, temperature=self.temperature)
        total, active, *sums = rows_in_blocks(
            terms,
            measured,
            pairs,
            with_sums=reports.wants_distances,
            **{**FEW_PASSES, **blocks},
        )
        if sums:
            reports.add_distance_sums(*sums, pairs.num_positives, pairs.num_negatives)
        return [Rows(total, active, ops.cast(pairs.num_positives, total.dtype))]
