"""Cosine regression loss."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.metric_loss import MetricLoss, check_branches, scores_of_pairs
from keras_metric.pairwise.anchor_rows import single_terms


@export
class CosineRegressionLoss(MetricLoss):
    """Cosine regression: squared error between the cosine of a pair and its similarity score.

    Use it for graded similarities of sentences, products or molecules, such as the STS benchmark.
    Embeddings have shape (batch, 2, dim); y_true is a float for each pair.

        loss = mean over pairs of (cos(a, b) - t)**2,   t = (y - y_min) / (y_max - y_min)

    so that y_max corresponds to the same direction and y_min to a right angle. For scores that are
    cosines, -1 to 1, use the defaults: t = y.

    Args:
        y_min: score of a pair without similarity. Default 0.
        y_max: score of an identical pair, above `y_min`. Default 1; for STS use 5.
        reduction: default "mean_valid", the mean over pairs.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for a `y_max` not above `y_min`, or a wrong number of branches.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> pairs = np.array([[[1.0, 0.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]], "float32")
    >>> loss = keras_metric.losses.CosineRegressionLoss(y_max=5)
    >>> round(float(loss(np.array([4.0, 1.0]), pairs)), 3)
    0.04

    Reference:
        Reimers and Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
        2019, https://arxiv.org/abs/1908.10084
    """

    num_branches = (2,)
    distance = "cosine"
    y_of_pairs = "how similar the two items are, a number for each pair"

    def __init__(
        self,
        y_min=0.0,
        y_max=1.0,
        reduction="mean_valid",
        name="cosine_regression_loss",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.y_min = check_number("y_min", y_min)
        self.y_max = check_number("y_max", y_max)
        if y_max <= y_min:
            raise ValueError(f"`y_max` must be greater than y_min={y_min}. Received: y_max={y_max}")

    def tuple_parts(self, reports, y_true, branches):
        check_branches(branches, 2, "first, second")
        cosine = 1 - distances.elementwise(*branches, "cosine")
        score = scores_of_pairs(y_true, branches[0])
        target = (score - self.y_min) / (self.y_max - self.y_min)
        return [single_terms(ops.square(cosine - target))]
