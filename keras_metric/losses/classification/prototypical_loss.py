"""PrototypicalLoss: each item is nearer to the mean of its class than to those of others."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_count
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import single_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def class_sums(vectors, column, support):
    """Sum and number of the vectors of each class, in the class's column; 0 in columns of none.

    `column` (rows,): one number for each class, below the number of rows. `support`: which count.
    """
    size = ops.shape(vectors)[0]
    counted = ops.cast(support, vectors.dtype)[:, None]
    sums = ops.segment_sum(vectors * counted, column, num_segments=size)
    return sums, ops.segment_sum(counted, column, num_segments=size)


def prototypical_rows(reports, queries, column, own, prototypes, exists, valid, metric):
    """One term a query: -log of the softmax, over the prototypes, of the one of its class.

    `own` (queries, dim) stands in for the prototype in a query's `column`.
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
    """Classifies each item by the nearest class mean, as few-shot evaluation will.

    Reach for it where new classes will be given by a few examples. For labelled batches: integer
    labels, embeddings (batch, dim), with several items a class. The distances are the logits, so
    the paper does not scale embeddings to length 1: take `EmbeddingModel(normalize=False)`.

        loss = mean over queries x of -log( exp(-d(x, m_y)) / sum_c exp(-d(x, m_c)) )

    with m_c the mean of class c and y the class of x. Each item is a query, and its own class's
    mean is taken without it; or, with `shots`, some items make the means and the others are the
    queries. Against a reference set the means are those of the references.

    Args:
        shots: how many items of each class make its mean: the first in the order of the batch;
            the others are queries. Default None: all of them make it, but for the query itself,
            which learns from a small batch more than two halves of it do.
        distance: metric name, default "squared_euclidean", for which the mean is the best
            prototype.
        reduction: default "mean_valid", the mean over queries whose class has a mean.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, fewer than one shot, or labels that are no integers.

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
        check_choice("distance", distance, distances.METRICS)
        self.shots = shots
        self.distance = distance

    def batch_parts(self, reports, labels, embeddings, references=None, reference_labels=None):
        partners = class_pairs.from_labels(labels, reference_labels)
        # Where its class begins in the order of the labels tells a class from the others.
        column = partners.start
        if references is not None:
            theirs = class_pairs.from_labels(reference_labels).start
            sums, sizes = class_sums(references, theirs, theirs >= 0)
            valid = partners.num_positives > 0
        else:
            support = partners.own_rank < (self.shots or ops.shape(labels)[0])
            sums, sizes = class_sums(embeddings, column, support)
            valid = ops.logical_not(support)
        means = sums / ops.maximum(sizes, 1)
        # A class beyond all references has no column of its own.
        own = ops.take(means, ops.minimum(column, ops.shape(means)[0] - 1), axis=0)
        if references is None and self.shots is None:
            others = ops.take(sizes, column, axis=0) - 1
            own = (ops.take(sums, column, axis=0) - embeddings) / ops.maximum(others, 1)
            valid = others[:, 0] > 0
        rows = prototypical_rows(
            reports, embeddings, column, own, means, sizes[:, 0] > 0, valid, self.distance
        )
        return [rows]
