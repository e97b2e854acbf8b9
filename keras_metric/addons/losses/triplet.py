"""Triplet losses of tensorflow-addons: semi-hard and hard."""

from keras import ops

from keras_metric._validation import check_choice, check_flag
from keras_metric.addons.losses.addons_loss import AddonsLoss, as_margin, drop_in
from keras_metric.addons.losses.metric_learning import METRICS
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import Rows, single_terms
from keras_metric.pairwise.blockwise import of_matrix, rows_in_blocks
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


class _TripletLoss(AddonsLoss):
    """Base of both losses: a metric name, or a function of the embeddings."""

    def __init__(self, margin, distance_metric, name, **kwargs):
        super().__init__(name=name, **kwargs)
        if not callable(distance_metric):
            check_choice("distance_metric", distance_metric, METRICS)
        self.margin = as_margin(margin)
        self.distance_metric = distance_metric

    def batch_parts(self, reports, labels, embeddings):
        distance = _measured(embeddings, self.distance_metric)
        pairs = class_pairs.from_labels(labels)
        reports.add_distances(distance, distance, pairs.positive, pairs.negative)
        return [self.triplet_rows(distance, pairs)]


def _measured(embeddings, metric):
    if not callable(metric):
        return METRICS[metric](embeddings)
    distance = ops.convert_to_tensor(metric(embeddings))
    known = {*distance.shape, embeddings.shape[0]} - {None}
    if len(distance.shape) != 2 or len(known) > 1:
        raise ValueError(
            "A callable `distance_metric` takes embeddings (batch, dim) and returns distances "
            f"(batch, batch). Received: embeddings.shape={tuple(embeddings.shape)}, "
            f"distances.shape={tuple(distance.shape)}"
        )
    return ops.cast(distance, embeddings.dtype)


def _semi_hard_rows(distance, pairs, margin):
    """Rows over the positive pairs, each with the negative chosen by tensorflow-addons.

    As there, negatives at the same distance get equal parts of the gradient, and a term of exactly
    0 has a gradient.
    """

    def compute(distance, pairs, noise):
        columns, negative = pairs.columns, pairs.negative
        no_negative = (pairs.num_negatives == 0)[:, None]
        others = ops.where(negative, distance, MASKED_DISTANCE)
        # In a batch of one class the nearest of all items, usually the anchor, is the negative.
        last = ops.max(ops.where(negative, distance, -MASKED_DISTANCE), -1, keepdims=True)
        last = ops.where(no_negative, ops.min(distance, -1, keepdims=True), last)
        candidates = ops.where(no_negative, distance, others)

        def step(rank, column, exists, total, active, gradient):
            near = ops.take_along_axis(distance, column[:, None], axis=1)
            beyond = ops.min(ops.where(others > near, others, MASKED_DISTANCE), -1, keepdims=True)
            far = ops.where(beyond < MASKED_DISTANCE, beyond, last)
            gap = near - far + margin
            push = ops.cast(ops.logical_and(exists[:, None], gap >= 0), distance.dtype)
            chosen = ops.cast(ops.equal(candidates, far), distance.dtype)
            positive_part = ops.where(ops.equal(columns, column[:, None]), push, 0)
            weight = push / ops.maximum(ops.sum(chosen, -1, keepdims=True), 1)
            value = (push * gap)[:, 0]
            more = ops.cast(value > 0, value.dtype)
            return total + value, active + more, gradient + positive_part - chosen * weight

        zero = ops.zeros_like(distance[:, 0])
        start = (zero, zero, ops.zeros_like(distance))
        total, active, gradient = pairs.for_each_positive(step, start)
        return total, active, ops.cast(pairs.num_positives, distance.dtype), gradient

    return Rows(*rows_in_blocks(compute, of_matrix(distance), pairs))


def _hard_rows(distance, pairs, margin, soft):
    """One term per anchor: its farthest positive and its nearest negative.

    Without a positive the nearest of all items, usually the anchor, is used instead; without a
    negative the farthest.
    """
    positive = ops.max(ops.where(pairs.positive, distance, -MASKED_DISTANCE), axis=1)
    negative = ops.min(ops.where(pairs.negative, distance, MASKED_DISTANCE), axis=1)
    positive = ops.where(pairs.num_positives > 0, positive, ops.min(distance, axis=1))
    negative = ops.where(pairs.num_negatives > 0, negative, ops.max(distance, axis=1))
    if soft:
        return single_terms(ops.softplus(positive - negative))
    gap = positive - negative + margin
    # Unlike relu, this keeps NaN and the gradient of a term of exactly 0.
    return single_terms(ops.where(gap < 0, 0, gap))


@drop_in
class TripletSemiHardLoss(_TripletLoss):
    """Triplet loss with semi-hard negatives, as in tensorflow-addons.

    For each ordered pair (a, p) of one class the negative n is the nearest with d(a, n) > d(a, p),
    or the farthest of all negatives if there is none. The choice does not depend on the margin.

        loss = mean over all (a, p) of max(d(a, p) - d(a, n) + margin, 0)

    In new code use `keras_metric.losses.TripletLoss`, the same with
    `margin=1.0, mining="semi-hard", reduction="mean_valid"`.

    A batch without two items of one class is 0 (NaN in tensorflow-addons). In a batch of one class
    d(a, n) is the smallest distance of the row, which is 0, as in tensorflow-addons.

    Args:
        margin: in units of the distance. Default 1.
        distance_metric: "L2" (default), "squared-L2", "angular" (1 - cos), or a function of
            the embeddings `(batch, dim)` that returns the distances `(batch, batch)`.
        name: name of the loss.
        **kwargs: `reduction`, a reduction of Keras; it has no effect on a scalar.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown metric or reduction, or labels of a wrong shape or kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> loss = tfa.losses.TripletSemiHardLoss()
    >>> points = np.array([[0.0, 1.0], [1.0, 0.0]], "float32")
    >>> round(float(loss(np.array([0, 0]), points)), 4)
    2.4142

    Reference:
        Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face Recognition
        and Clustering", 2015, https://arxiv.org/abs/1503.03832
    """

    def __init__(self, margin=1.0, distance_metric="L2", name=None, **kwargs):
        super().__init__(margin, distance_metric, name, **kwargs)

    def triplet_rows(self, distance, pairs):
        """Rows of a batch, from its distances and `Pairs`."""
        return _semi_hard_rows(distance, pairs, self.margin)


@drop_in
class TripletHardLoss(_TripletLoss):
    """Batch-hard triplet loss: farthest positive and nearest negative of each anchor.

        loss = mean over all anchors of max(max_p d(a, p) - min_n d(a, n) + margin, 0)

    or, with `soft=True`, of log(1 + exp(max_p d(a, p) - min_n d(a, n))).

    Every anchor counts, as in tensorflow-addons. Without a positive its distance is the smallest of
    the row, 0; without a negative its distance is the largest of the row. In new code use
    `keras_metric.losses.TripletLoss` with `mining="hard"`, which leaves such anchors out.

    Args:
        margin: in units of the distance. Default 1. Not used with `soft=True`.
        soft: True for the soft margin, finite where tensorflow-addons overflows. Default False.
        distance_metric: "L2" (default), "squared-L2", "angular" (1 - cos), or a function of
            the embeddings `(batch, dim)` that returns the distances `(batch, batch)`.
        name: name of the loss.
        **kwargs: `reduction`, a reduction of Keras; it has no effect on a scalar.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown metric or reduction, or labels of a wrong shape or kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> loss = tfa.losses.TripletHardLoss(soft=True)
    >>> points = np.array([[0.0, 1.0], [1.0, 0.0]], "float32")
    >>> round(float(loss(np.array([0, 0]), points)), 4)
    0.6931

    Reference:
        Hermans, Beyer and Leibe, "In Defense of the Triplet Loss for Person
        Re-Identification", 2017, https://arxiv.org/abs/1703.07737
    """

    def __init__(self, margin=1.0, soft=False, distance_metric="L2", name=None, **kwargs):
        super().__init__(margin, distance_metric, name, **kwargs)
        check_flag("soft", soft)
        self.soft = bool(soft)

    def triplet_rows(self, distance, pairs):
        """Rows of a batch, from its distances and `Pairs`."""
        return _hard_rows(distance, pairs, self.margin, self.soft)


@drop_in
def triplet_semihard_loss(y_true, y_pred, margin=1.0, distance_metric="L2"):
    """`TripletSemiHardLoss` as a function, with the same errors.

    Args:
        y_true: class ids `(batch,)` or `(batch, 1)`, compared without rounding.
        y_pred: embeddings `(batch, dim)`.
        margin: in units of the distance. Default 1.
        distance_metric: "L2" (default), "squared-L2", "angular" or a function.

    Returns:
        The loss, a scalar with the dtype of `y_pred`.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> points = np.array([[0.0, 1.0], [1.0, 0.0]], "float32")
    >>> def product(x):
    ...     return keras.ops.matmul(x, keras.ops.transpose(x))
    >>> float(tfa.losses.triplet_semihard_loss(np.array([0, 0]), points, distance_metric=product))
    1.0
    """
    loss = TripletSemiHardLoss(margin, distance_metric, name="triplet_semihard_loss")
    return loss(y_true, y_pred)


@drop_in
def triplet_hard_loss(y_true, y_pred, margin=1.0, soft=False, distance_metric="L2"):
    """`TripletHardLoss` as a function, with the same errors.

    Args:
        y_true: class ids `(batch,)` or `(batch, 1)`, compared without rounding.
        y_pred: embeddings `(batch, dim)`.
        margin: in units of the distance. Default 1. Not used with `soft=True`.
        soft: True for the soft margin. Default False.
        distance_metric: "L2" (default), "squared-L2", "angular" or a function.

    Returns:
        The loss, a scalar with the dtype of `y_pred`.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> points = np.array([[0.0, 1.0], [1.0, 0.0]], "float32")
    >>> float(tfa.losses.triplet_hard_loss(np.array([0, 0]), points))
    1.0
    """
    loss = TripletHardLoss(margin, soft, distance_metric, name="triplet_hard_loss")
    return loss(y_true, y_pred)


__all__ = ["TripletHardLoss", "TripletSemiHardLoss", "triplet_hard_loss", "triplet_semihard_loss"]
