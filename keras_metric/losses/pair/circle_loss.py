"""Circle loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.pair.pair_loss import PairLoss, similarity
from keras_metric.pairwise.anchor_rows import single_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def circle_rows(cosine, pairs, margin, gamma):
    """One term per anchor, from its weighted positive and negative cosines."""
    # As in the paper, the weights of the similarities are constants.
    constant = ops.stop_gradient(cosine)
    near = -gamma * ops.relu(1 + margin - constant) * (cosine - (1 - margin))
    far = gamma * ops.relu(constant + margin) * (cosine - margin)
    positives = ops.logsumexp(ops.where(pairs.positive, near, -MASKED_DISTANCE), axis=1)
    negatives = ops.logsumexp(ops.where(pairs.negative, far, -MASKED_DISTANCE), axis=1)
    return single_terms(ops.softplus(positives + negatives), pairs.has_both)


@export
class CircleLoss(PairLoss):
    """Circle loss: softplus over pairs, each weighted by its distance from its optimum.

    Use it where positives and negatives converge at different speeds: a triplet or softmax loss has
    equal gradients for both, even when one of them is already optimal.

        loss = mean over a of log(1 + sum_n exp(gamma * w_n * (s_an - margin))
                                      * sum_p exp(-gamma * w_p * (s_ap - (1 - margin))))
        w_n  = max(s_an + margin, 0),  w_p = max(1 + margin - s_ap, 0)

    with s the cosine, p over the positives of the anchor a and n over its negatives. The weights w
    are constants: they get no gradient. Anchors without a positive or without a negative have no
    term.

    `keras.losses.Circle(gamma, margin=margin)` has the same value for unit vectors, but another
    gradient: it differentiates the weights too. It has no miners and no shared labels, and does not
    normalise vectors.

    Args:
        margin: m in the paper: positives should have cosines above 1 - margin, negatives below
            margin. Default 0.4, the paper's value for fine-grained retrieval; 0.25 for faces and
            persons.
        gamma: scale, above 0. Default 80, the paper's value for fine-grained retrieval; 256 for
            faces, 128 for persons.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_active", the mean over anchors with a term above zero, as in
            pytorch-metric-learning: anchors whose term underflows to 0 are left out.
        name: name of the loss.
        dtype: dtype of the result; cosines are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a scale of 0 or less, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.1, 1.0]], "float32")
    >>> loss = keras_metric.losses.CircleLoss(gamma=2)
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    1.164

    Reference:
        Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization", 2020,
        https://arxiv.org/abs/2002.10857
    """

    renamed_arguments = {"m": "margin"}

    def __init__(
        self,
        margin=0.4,
        gamma=80,
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_active",
        name="circle_loss",
        dtype=None,
    ):
        super().__init__("cosine", mining, labels, reduction, name, dtype, memory)
        self.margin = check_number("margin", margin)
        self.gamma = check_number("gamma", gamma, above=0)

    def pair_parts(self, distance, pairs):
        return [circle_rows(similarity(distance, "cosine"), pairs, self.margin, self.gamma)]
