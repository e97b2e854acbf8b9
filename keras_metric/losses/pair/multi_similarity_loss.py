"""Multi-similarity loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss, similarity
from keras_metric.pairwise.anchor_rows import single_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def multi_similarity_rows(similarity, pairs, alpha, beta, base):
    """One term per anchor: soft hinges of its positives below `base` and its negatives above."""

    def hinge(scale, mask):
        logits = ops.where(mask, scale * (similarity - base), -MASKED_DISTANCE)
        return ops.softplus(ops.logsumexp(logits, axis=1))

    near = hinge(-alpha, pairs.positive) / alpha
    far = hinge(beta, pairs.negative) / beta
    return single_terms(near + far, pairs.num_positives + pairs.num_negatives > 0)


@export
class MultiSimilarityLoss(PairLoss):
    """Multi-similarity: soft hinges on the similarities of all pairs, the hardest weighted most.

    Recommended for fine-grained classes; it needs little tuning. The paper uses the pairs of its
    own miner: `mining="multi-similarity"`.

        loss = mean over a of 1/alpha * log(1 + sum_p exp(-alpha * (s_ap - base)))
                            + 1/beta * log(1 + sum_n exp(beta * (s_an - base)))

    with p over the positives of the anchor a, n over its negatives, and the similarity s the
    cosine. Anchors without a positive have the negative part only.

    Args:
        alpha: steepness for positives, above 0. Default 2, as in the paper.
        beta: steepness for negatives, above 0. Default 50, as in the paper: a high value
            concentrates on the few hard negatives.
        base: threshold between positive and negative similarities. Default 0.5, for cosines.
        distance: metric name, default "cosine", with s = 1 - distance, as for "pearson". For other
            metrics s = -distance, so that `base` is a negative distance (pytorch-metric-learning
            uses the positive distance).
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "sum_over_batch_size", the mean over all anchors, as in the paper.
            "mean_valid" leaves out anchors without pairs, which a miner can produce.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a steepness of 0 or less, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], "float32")
    >>> loss = keras_metric.losses.MultiSimilarityLoss()
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.158

    Reference:
        Wang, Han, Huang, Dong and Scott, "Multi-Similarity Loss with General Pair Weighting for
        Deep Metric Learning", 2019, https://arxiv.org/abs/1904.06627
    """

    def __init__(
        self,
        alpha=2,
        beta=50,
        base=0.5,
        distance="cosine",
        mining="all",
        labels="ids",
        memory=None,
        reduction="sum_over_batch_size",
        name="multi_similarity_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.alpha = check_number("alpha", alpha, above=0)
        self.beta = check_number("beta", beta, above=0)
        self.base = check_number("base", base)

    def pair_parts(self, distance, pairs):
        similar = similarity(distance, self.distance)
        return [multi_similarity_rows(similar, pairs, self.alpha, self.beta, self.base)]
