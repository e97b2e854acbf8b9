"""SignalToNoiseRatioLoss: the contrastive loss in the signal-to-noise ratio distance."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.contrastive_loss import (
    MEANING_OF_Y,
    check_one_of,
    check_same,
    contrastive_pairs,
    contrastive_tuples,
)
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import masked_terms


def zero_mean_rows(vectors, weight):
    """One term a vector of `vectors` (batch, number, dim): how far its components sum from 0."""
    terms = weight * ops.abs(ops.sum(vectors, axis=-1))
    return masked_terms(terms, ops.ones_like(terms, dtype="bool"))


@export
class SignalToNoiseRatioLoss(PairLoss):
    """Pulls positives together and pushes negatives apart, measured against the anchor's signal.

    Reach for it where lengths of embeddings carry meaning: what counts is how large a difference
    is beside the variance of the anchor. For pairs, embeddings (batch, 2, dim), y_true says
    whether the two are the same, and the first is the anchor; a labelled batch gives all its
    ordered pairs.

        d(a, b)       = var(a - b) / var(a),   variances over the dimensions
        positive pair: max(d - positive_margin, 0)
        negative pair: max(margin - d, 0)
        zero mean    : zero_mean_weight * |sum of the components of a|

    The mean over the positive terms, that over the negative terms, and that over the embeddings
    are added.

    Args:
        margin: distance beyond which a negative pair is left alone. Default 1: as much noise as
            signal. Unrelated vectors are at 2.
        positive_margin: distance up to which a positive pair is left alone. Default 0.
        zero_mean_weight: lambda of the paper, at least 0. The distance does not see a number
            added to all components; this draws them to a mean of 0. Default 0: not at all, as
            in pytorch-metric-learning; the paper takes 0.001 to 0.01.
        positive_label: value of y_true that means "same" in ready-made pairs: 1 (default) or 0.
        mining: which pairs of a labelled batch count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner. Ready-made pairs are all taken.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: "mean_active" (default): each kind of terms averaged over those greater than
            zero. "mean_valid": each over all of its kind.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a negative weight, labels of a batch that are no
            class ids, or another number of branches.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> pairs = np.array([[[1.0, -1.0], [1.0, 0.0]], [[1.0, -1.0], [0.0, 0.0]]], "float32")
    >>> loss = keras_metric.losses.SignalToNoiseRatioLoss(margin=1.5)
    >>> round(float(loss(np.array([1, 0]), pairs)), 3)
    0.75

    Reference:
        Yuan, Deng, Tang, Tang and Chen, "Signal-to-Noise Ratio: A Robust Distance Metric for Deep
        Metric Learning", 2019, https://arxiv.org/abs/1904.02616
    """

    num_branches = (2,)
    y_of_pairs = MEANING_OF_Y

    def __init__(
        self,
        margin=1.0,
        positive_margin=0.0,
        zero_mean_weight=0.0,
        positive_label=1,
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_active",
        name="signal_to_noise_ratio_loss",
        dtype=None,
    ):
        super().__init__("snr", mining, labels, reduction, name, dtype, memory)
        check_number("margin", margin)
        check_number("positive_margin", positive_margin)
        check_one_of("positive_label", positive_label, (0, 1))
        check_number("zero_mean_weight", zero_mean_weight, at_least=0)
        self.margin = margin
        self.positive_margin = positive_margin
        self.zero_mean_weight = zero_mean_weight
        self.positive_label = positive_label

    def batch_parts(self, reports, labels, embeddings, *references):
        distance, pairs = self.chosen(reports, labels, embeddings, *references)
        parts = contrastive_pairs(distance, pairs, self.margin, self.positive_margin)
        return parts + self._zero_mean_parts(embeddings[:, None])

    def check_pairs(self, y):
        check_same(y)

    def reads_ids(self, num_branches):
        return False

    def tuple_parts(self, reports, y_true, branches):
        settings = {"margin": self.margin, "positive_margin": self.positive_margin}
        label = self.positive_label
        parts = contrastive_tuples(
            reports, y_true, branches, "snr", **settings, positive_label=label
        )
        return parts + self._zero_mean_parts(ops.stack(branches, axis=1))

    def _zero_mean_parts(self, vectors):
        if self.zero_mean_weight == 0:
            return []
        return [zero_mean_rows(vectors, self.zero_mean_weight)]
