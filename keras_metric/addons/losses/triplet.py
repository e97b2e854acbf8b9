"""The triplet losses of tensorflow-addons: semi-hard and hard."""

from keras import ops

from keras_metric._validation import check_choice, check_flag
from keras_metric.addons.losses.addons_loss import AddonsLoss, as_margin, drop_in
from keras_metric.addons.losses.metric_learning import METRICS
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import Rows, single_terms
from keras_metric.pairwise.blockwise import of_matrix, rows_in_blocks
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


class _TripletLoss(AddonsLoss):
    """What both share: a metric by name, or a function of the embeddings."""

    def __init__(self, margin, distance_metric, name, **kwargs):
        super().__init__(name=name, **kwargs)
        if not callable(distance_metric):
            check_choice("distance_metric", distance_metric, METRICS)
        self.margin = as_margin(margin)
        self.distance_metric = distance_metric

    def batch_parts(self, reports, labels, embeddings):
        distance = _measured(embeddings, self.distance_metric)
        partners = class_pairs.from_labels(labels)
        reports.add_distances(distance, distance, partners.positive, partners.negative)
        return [self.triplet_rows(distance, partners)]


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


def _semi_hard_rows(distance, partners, margin):
    """Rows over the positive pairs, each with the negative that tensorflow-addons takes.

    Of negatives at the same distance each gets an equal part of the gradient, and a term of
    exactly 0 has one: both as there.
    """

    def compute(distance, partners, noise):
        columns, negative = partners.columns, partners.negative
        alone = (partners.num_negatives == 0)[:, None]
        others = ops.where(negative, distance, MASKED_DISTANCE)
        # In a batch of one class the nearest of all items, as a rule the anchor, stands in.
        last = ops.max(ops.where(negative, distance, -MASKED_DISTANCE), -1, keepdims=True)
        last = ops.where(alone, ops.min(distance, -1, keepdims=True), last)
        candidates = ops.where(alone, distance, others)

        def step(rank, column, exists, total, active, slope):
            near = ops.take_along_axis(distance, column[:, None], axis=1)
            beyond = ops.min(ops.where(others > near, others, MASKED_DISTANCE), -1, keepdims=True)
            far = ops.where(beyond < MASKED_DISTANCE, beyond, last)
            gap = near - far + margin
            push = ops.cast(ops.logical_and(exists[:, None], gap >= 0), distance.dtype)
            chosen = ops.cast(ops.equal(candidates, far), distance.dtype)
            pulled = ops.where(ops.equal(columns, column[:, None]), push, 0)
            share = push / ops.maximum(ops.sum(chosen, -1, keepdims=True), 1)
            value = (push * gap)[:, 0]
            more = ops.cast(value > 0, value.dtype)
            return total + value, active + more, slope + pulled - chosen * share

        zero = ops.zeros_like(distance[:, 0])
        start = (zero, zero, ops.zeros_like(distance))
        total, active, slope = partners.for_each_positive(step, start)
        return total, active, ops.cast(partners.num_positives, distance.dtype), slope

    return Rows(*rows_in_blocks(compute, of_matrix(distance), partners))


def _hard_rows(distance, partners, margin, soft):
    """One term an anchor: its farthest positive and its nearest negative.

    Where an anchor has no positive, the nearest item of all stands in, as a rule itself; where
    it has no negative, the farthest.
    """
    positive = ops.max(ops.where(partners.positive, distance, -MASKED_DISTANCE), axis=1)
    negative = ops.min(ops.where(partners.negative, distance, MASKED_DISTANCE), axis=1)
    positive = ops.where(partners.num_positives > 0, positive, ops.min(distance, axis=1))
    negative = ops.where(partners.num_negatives > 0, negative, ops.max(distance, axis=1))
    if soft:
        return single_terms(ops.softplus(positive - negative))
    gap = positive - negative + margin
    # Neither NaN nor the gradient of a term of exactly 0 is lost.
    return single_terms(ops.where(gap < 0, 0, gap))


@drop_in
class TripletSemiHardLoss(_TripletLoss):
    """Triplet loss with the semi-hard negatives of tensorflow-addons.

    For each ordered pair (a, p) of one class the negative n is the nearest with d(a, n) > d(a, p),
    strictly; where there is none, the farthest of all negatives. The margin plays no part in the
    choice.

        loss = mean over all (a, p) of max(d(a, p) - d(a, n) + margin, 0)

    New code takes `keras_metric.losses.TripletLoss`, the same with
    `margin=1.0, mining="semi-hard", reduction="mean_valid"`.

    A batch without two items of one class, NaN in tensorflow-addons, gives 0. In a batch of one
    class d(a, n) is the smallest distance of the row, which is 0, as there.

    Args:
        margin: in units of the distance. Default 1.
        distance_metric: "L2" (default), "squared-L2", "angular" (1 - cos), or a function that
            takes the embeddings `(batch, dim)` and returns the distances `(batch, batch)`.
        name: name of the loss.
        **kwargs: `reduction`, one of Keras's names. The loss is one number, so none changes it.

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

    def triplet_rows(self, distance, partners):
        """Rows of a batch, from its distances and `Pairs`."""
        return _semi_hard_rows(distance, partners, self.margin)


@drop_in
class TripletHardLoss(_TripletLoss):
    """Triplet loss with the farthest positive and the nearest negative of each anchor.

        loss = mean over all anchors of max(max_p d(a, p) - min_n d(a, n) + margin, 0)

    or, with `soft=True`, of log(1 + exp(max_p d(a, p) - min_n d(a, n))).

    Every anchor counts, as in tensorflow-addons: one without a positive takes the smallest distance
    of its row, 0, for that of its positive; one without a negative the largest of its row for that
    of its negative. New code takes `keras_metric.losses.TripletLoss` with `mining="hard"`,
    which leaves such anchors out.

    Args:
        margin: in units of the distance. Default 1. Not used with `soft=True`.
        soft: True for the soft margin, which stays finite where tensorflow-addons overflows.
            Default False.
        distance_metric: "L2" (default), "squared-L2", "angular" (1 - cos), or a function that
            takes the embeddings `(batch, dim)` and returns the distances `(batch, batch)`.
        name: name of the loss.
        **kwargs: `reduction`, one of Keras's names. The loss is one number, so none changes it.

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

    def triplet_rows(self, distance, partners):
        """Rows of a batch, from its distances and `Pairs`."""
        return _hard_rows(distance, partners, self.margin, self.soft)


@drop_in
def triplet_semihard_loss(y_true, y_pred, margin=1.0, distance_metric="L2"):
    """`TripletSemiHardLoss` as a function.

    Args:
        y_true: class ids `(batch,)` or `(batch, 1)`, compared as they are.
        y_pred: embeddings `(batch, dim)`.
        margin: in units of the distance. Default 1.
        distance_metric: "L2" (default), "squared-L2", "angular" or a function.

    Returns:
        The loss, a scalar with the dtype of `y_pred`.

    Raises:
        ValueError: for an unknown metric, or labels of a wrong shape or kind.

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
    """`TripletHardLoss` as a function.

    Args:
        y_true: class ids `(batch,)` or `(batch, 1)`, compared as they are.
        y_pred: embeddings `(batch, dim)`.
        margin: in units of the distance. Default 1. Not used with `soft=True`.
        soft: True for the soft margin. Default False.
        distance_metric: "L2" (default), "squared-L2", "angular" or a function.

    Returns:
        The loss, a scalar with the dtype of `y_pred`.

    Raises:
        ValueError: for an unknown metric, or labels of a wrong shape or kind.

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
