"""Signal-to-noise ratio contrastive loss."""

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
    """One term per vector of `vectors` (batch, number, dim): the absolute sum of its components."""
    terms = weight * ops.abs(ops.sum(vectors, axis=-1))
    return masked_terms(terms, ops.ones_like(terms, dtype="bool"))


@export
class SignalToNoiseRatioLoss(PairLoss):
    """Signal-to-noise ratio: the contrastive loss with distances relative to the anchor's variance.

    Use it where the norms of embeddings carry information: the distance is the variance of a
    difference relative to that of the anchor. For ready-made pairs, embeddings (batch, 2, dim),
    y_true is 1 for a positive pair and 0 for a negative one, and the first item is the anchor. From
    a labelled batch it takes all ordered pairs.

        d(a, b)       = var(a - b) / var(a),   variances over the dimensions
        positive pair: max(d - positive_margin, 0)
        negative pair: max(margin - d, 0)
        zero mean    : zero_mean_weight * |sum of the components of a|

    The means over the positive terms, over the negative terms and over the embeddings are added.

    Args:
        margin: distance above which a negative pair has no loss. Default 1: noise equals signal.
            Unrelated vectors have distance 2.
        positive_margin: distance up to which a positive pair has no loss. Default 0.
        zero_mean_weight: lambda of the paper, at least 0. The distance is invariant to a constant
            added to all components; this term keeps their mean near 0. Default 0, as in
            pytorch-metric-learning; the paper uses 0.001 to 0.01.
        positive_label: value of y_true of a positive ready-made pair: 1 (default) or 0.
        mining: pairs to use of a labelled batch: "all" (default), a strategy of `layers.PairMiner`,
            or a miner. All ready-made pairs are used.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_active": each kind of terms is averaged over those greater than
            zero, so that solved pairs do not shrink the gradient. "mean_valid": each over all of
            its kind.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a negative weight, labels of a batch that are no
            class ids, or a wrong number of branches.

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
        self.margin = check_number("margin", margin)
        self.positive_margin = check_number("positive_margin", positive_margin)
        check_one_of("positive_label", positive_label, (0, 1))
        self.zero_mean_weight = check_number("zero_mean_weight", zero_mean_weight, at_least=0)
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
