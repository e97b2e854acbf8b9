"""Prototypical networks loss."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_count
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import single_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def class_sums(vectors, column, support):
    """Sum and number of the `support` vectors of each class, (rows, dim) and (rows, 1).

    `column` (rows,): the class index of each row, below the number of rows. Unused indices are 0.
    """
    size = ops.shape(vectors)[0]
    counted = ops.cast(support, vectors.dtype)[:, None]
    sums = ops.segment_sum(vectors * counted, column, num_segments=size)
    return sums, ops.segment_sum(counted, column, num_segments=size)


def prototypical_rows(reports, queries, column, own, prototypes, exists, valid, metric):
    """One term per query: -log softmax of its class over all prototypes.

    `own` (queries, dim) replaces the prototype in the `column` of each query.
    """
    near = distances.elementwise(queries, own, metric)
    distance = distances.pairwise(queries, prototypes, metric)
    columns = ops.arange(ops.shape(prototypes)[0], dtype="int32")
    others = ops.logical_and(exists[None, :], ops.not_equal(columns[None, :], column[:, None]))
    reports.add_distances(near, distance, valid, ops.logical_and(others, valid[:, None]))
    far = ops.logsumexp(ops.where(others, -distance, -MASKED_DISTANCE), axis=1)
    return single_terms(ops.softplus(far + near), valid)


@export
class PrototypicalLoss(MetricLoss):
    """Prototypical networks: softmax over distances to class means, for few-shot learning.

    Use it where new classes are defined by a few examples. It needs labelled batches with several
    items of a class: integer labels, embeddings (batch, dim). The distances are the logits, so the
    paper does not normalise embeddings: set `EmbeddingModel(normalize=False)`.

        loss = mean over queries x of -log( exp(-d(x, m_y)) / sum_c exp(-d(x, m_c)) )

    with m_c the mean of class c and y the class of x. By default each item is a query, and the mean
    of its own class excludes it. With `shots`, the first items of a class make its mean and the
    others are queries. Against a reference set the means are those of the references.

    Args:
        shots: number of items of each class that make its mean: the first in batch order; the
            others are queries. Default None: every item is a query and all other items of its class
            make the mean, which trains better on small batches.
        distance: metric name. Default "squared_euclidean", for which the class mean is the best
            prototype.
        reduction: default "mean_valid", the mean over queries whose class has a mean.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, fewer than one shot, or labels that are not integers.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0], [1.0], [2.0], [2.0]], "float32")
    >>> loss = keras_metric.losses.PrototypicalLoss()
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.236

    Reference:
        Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", 2017,
        https://arxiv.org/abs/1703.05175
    """

    def __init__(
        self,
        shots=None,
        distance="squared_euclidean",
        reduction="mean_valid",
        name="prototypical_loss",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        if shots is not None:
            check_count("shots", shots)
        self.distance = check_choice("distance", distance, distances.METRICS)
        self.shots = shots

    def batch_parts(self, reports, labels, embeddings, references=None, reference_labels=None):
        pairs = class_pairs.from_labels(labels, reference_labels)
        # The start of a class in the sorted labels is the index of the class.
        column = pairs.start
        if references is not None:
            theirs = class_pairs.from_labels(reference_labels).start
            sums, sizes = class_sums(references, theirs, theirs >= 0)
            valid = pairs.num_positives > 0
        else:
            support = pairs.own_rank < (self.shots or ops.shape(labels)[0])
            sums, sizes = class_sums(embeddings, column, support)
            valid = ops.logical_not(support)
        means = sums / ops.maximum(sizes, 1)
        # A class that sorts after all references has an index past the end.
        own = ops.take(means, ops.minimum(column, ops.shape(means)[0] - 1), axis=0)
        if references is None and self.shots is None:
            others = ops.take(sizes, column, axis=0) - 1
            own = (ops.take(sums, column, axis=0) - embeddings) / ops.maximum(others, 1)
            valid = others[:, 0] > 0
        rows = prototypical_rows(
            reports, embeddings, column, own, means, sizes[:, 0] > 0, valid, self.distance
        )
        return [rows]
