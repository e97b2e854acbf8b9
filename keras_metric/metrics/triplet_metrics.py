"""Metrics of Keras that follow the distances of a batch while a model trains."""

import keras
import numpy as np
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import (
    as_array,
    as_tensor,
    check_choice,
    check_floating,
    check_number,
    check_one_each,
    class_ids,
    is_numeric,
    nan_if_invalid,
)
from keras_metric.pairwise import class_pairs


class DistanceMean(keras.metrics.Metric):
    """A mean over the distances in each batch; what is counted is the subclass's.

    `y_pred` is `(batch, dim)` with class ids as `y_true`, or `(batch, branches, dim)`: two branches
    with 1 or True for "same" as `y_true`; or anchor, positive, negative, and more that are not
    looked at, whatever `y_true`. Anchors are weighed by `sample_weight`.
    """

    def __init__(self, distance="euclidean", name=None, dtype=None):
        # In half precision a count of triplets is infinite, or stands still at 256.
        super().__init__(name=name, dtype=dtype or distances.dtype_of_weights())
        check_choice("distance", distance, distances.METRICS)
        self.distance = distance
        self.total = self.add_variable((), "zeros", dtype=self.dtype, name="total")
        self.count = self.add_variable((), "zeros", dtype=self.dtype, name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = as_tensor("y_pred", y_pred)
        check_floating("y_pred", y_pred)
        if len(y_pred.shape) == 3 and y_pred.shape[1] != 1:
            sums, counts = self._of_branches(y_true, y_pred)
        elif len(y_pred.shape) == 2:
            labels = class_ids(y_true, "y_true")
            check_one_each(labels, y_pred, "y_true", "y_pred")
            if 0 in y_pred.shape:
                # Nothing to measure; partners of no items have no rank.
                return
            partners = class_pairs.from_labels(labels)
            sums, counts = self._of_batch(
                distances.pairwise(y_pred, metric=self.distance), partners
            )
            sums = nan_if_invalid(sums, y_true)
        else:
            raise ValueError(
                "`y_pred` must have shape (batch, dim) or (batch, branches, dim), 2 or more. "
                f"Received: y_pred.shape={tuple(y_pred.shape)}"
            )
        sums, counts = ops.cast(sums, self.dtype), ops.cast(counts, self.dtype)
        if sample_weight is not None:
            weight = ops.cast(_one_each("sample_weight", sample_weight, y_pred), self.dtype)
            sums, counts = sums * weight, counts * weight
        self.total.assign_add(ops.sum(sums))
        self.count.assign_add(ops.sum(counts))

    def result(self):
        return ops.divide_no_nan(self.total, self.count)

    def get_config(self):
        return {**super().get_config(), "distance": self.distance}

    def _of_branches(self, y_true, branches):
        first = branches[:, 0]
        second = distances.elementwise(first, branches[:, 1], self.distance)
        if branches.shape[1] == 2:
            _check_same(y_true)
            same = _one_each("y_true", y_true, branches)
            check_one_each(same, branches, "y_true", "y_pred")
            return self._of_pairs(second, ops.cast(same, "float32") > 0.5)
        third = distances.elementwise(first, branches[:, 2], self.distance)
        return self._of_triplets(second, third)


@export
class PositiveDistance(DistanceMean):
    """Mean distance of an anchor to its positives, d_ap, over all pairs of an epoch's batches.

    sum of d(a, p) over anchors and their positives / number of these pairs (0 if there are none).

    Reach for it inside `fit`, also of a plain `keras.Model`: `compile(metrics=[...])`. Models of
    this package also have it under `train_health=True`, from the loss, in its distance and over
    the pairs that it mined; this one counts every pair of the batch, in a distance of your choice.
    TensorFlow Similarity's `avg_pos` keeps the mean of the last batch alone.

    Args:
        distance: Name of a metric of `keras_metric.distances`. Default "euclidean".
        name: Name in the logs.
        dtype: See `keras.metrics.Metric`.

    Call arguments:
        y_true: Class ids `(batch,)`; for pairs 1 for "same"; ignored for triplets.
        y_pred: Embeddings `(batch, dim)`, or `(batch, branches, dim)` of tuples.
        sample_weight: Optional weights `(batch,)` of the anchors.

    Example:
        >>> from keras_metric.metrics import PositiveDistance
        >>> mean = PositiveDistance()
        >>> mean.update_state([0, 0, 1], [[0.0], [2.0], [9.0]])
        >>> float(mean.result())
        2.0
    """

    def __init__(self, distance="euclidean", name="positive_distance", dtype=None):
        super().__init__(distance, name, dtype)

    def _of_batch(self, measured, partners):
        return _masked(measured, partners.positive)

    def _of_pairs(self, measured, same):
        return measured * ops.cast(same, measured.dtype), same

    def _of_triplets(self, positive, negative):
        return positive, ops.ones_like(positive)


@export
class NegativeDistance(DistanceMean):
    """Mean distance of an anchor to its negatives, d_an, over all pairs of an epoch's batches.

    sum of d(a, n) over anchors and their negatives / number of these pairs (0 if there are none).
    For the rest see `PositiveDistance`.

    Args:
        distance: Name of a metric of `keras_metric.distances`. Default "euclidean".
        name: Name in the logs.
        dtype: See `keras.metrics.Metric`.

    Call arguments:
        y_true: Class ids `(batch,)`; for pairs 1 for "same"; ignored for triplets.
        y_pred: Embeddings `(batch, dim)`, or `(batch, branches, dim)` of tuples.
        sample_weight: Optional weights `(batch,)` of the anchors.

    Example:
        >>> from keras_metric.metrics import NegativeDistance
        >>> mean = NegativeDistance()
        >>> mean.update_state([0, 0, 1], [[0.0], [2.0], [9.0]])
        >>> float(mean.result())
        8.0
    """

    def __init__(self, distance="euclidean", name="negative_distance", dtype=None):
        super().__init__(distance, name, dtype)

    def _of_batch(self, measured, partners):
        return _masked(measured, partners.negative)

    def _of_pairs(self, measured, same):
        return measured * ops.cast(ops.logical_not(same), measured.dtype), ops.logical_not(same)

    def _of_triplets(self, positive, negative):
        return negative, ops.ones_like(negative)


@export
class TripletAccuracy(DistanceMean):
    """Share of the triplets of an epoch's batches that are satisfied: d_ap + margin < d_an.

    number of (a, p, n) with d(a, p) + margin < d(a, n) / number of (a, p, n) (0 if there are none).
    The number to watch beside the loss: it counts every triplet of each batch, whatever the loss
    mines. Random embeddings have about one half; equal distances are no success, so collapsed
    ones have 0. `evaluation.geometry_metrics` counts those of a whole set.

    Args:
        distance: Name of a metric of `keras_metric.distances`. Default "euclidean".
        margin: Number of at least 0, in units of the distance; 0 (default) asks for the right
            order alone, a loss's own margin for triplets that it no longer pulls at.
        name: Name in the logs.
        dtype: See `keras.metrics.Metric`.

    Call arguments:
        y_true: Class ids `(batch,)`; ignored for triplets.
        y_pred: Embeddings `(batch, dim)`, or `(batch, branches, dim)` of triplets, or of more
            branches whose third is the negative.
        sample_weight: Optional weights `(batch,)` of the anchors.

    Raises:
        TypeError: for an argument of another type.
        ValueError: pairs, which have no triplets.

    Example:
        >>> from keras_metric.metrics import TripletAccuracy
        >>> share = TripletAccuracy()
        >>> share.update_state([0, 0, 1], [[0.0], [2.0], [3.0]])
        >>> float(share.result())
        0.5
    """

    def __init__(self, distance="euclidean", margin=0.0, name="triplet_accuracy", dtype=None):
        super().__init__(distance, name, dtype)
        check_number("margin", margin, at_least=0)
        self.margin = margin

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}

    def _of_batch(self, measured, partners):
        negative = partners.negative

        def step(rank, column, exists, wins):
            reach = ops.take_along_axis(measured, column[:, None], axis=1) + self.margin
            beyond = ops.logical_and(measured > reach, negative)
            won = ops.sum(ops.cast(beyond, "float32"), axis=1)
            return (wins + ops.where(exists, won, 0.0),)

        start = ops.zeros_like(partners.num_positives, dtype="float32")
        (wins,) = partners.for_each_positive(step, (start,))
        # A comparison with NaN is False, which would count as a triplet that is not satisfied.
        wins = ops.where(ops.any(ops.isnan(measured), axis=1), float("nan"), wins)
        # In floats: large batches have more triplets than an int32 can count.
        counts = (partners.num_positives, partners.num_negatives)
        num_positives, num_negatives = (ops.cast(count, "float32") for count in counts)
        return wins, num_positives * num_negatives

    def _of_pairs(self, measured, same):
        raise ValueError(
            "TripletAccuracy needs class ids or triplets. Received: pairs, of two branches. Use "
            "PositiveDistance and NegativeDistance."
        )

    def _of_triplets(self, positive, negative):
        wins = ops.cast(positive + self.margin < negative, positive.dtype)
        wins = ops.where(ops.isnan(positive + negative), float("nan"), wins)
        return wins, ops.ones_like(positive)


def _one_each(name, value, y_pred):
    """Return `value` as a tensor `(batch,)`; one number may stand for the whole batch."""
    value = as_tensor(name, value)
    shape, rows = tuple(value.shape), y_pred.shape[0]
    fits = not shape or None in (shape[0], rows) or shape[0] in (1, rows)
    if not fits or shape[1:] not in ((), (1,), (None,)):
        raise ValueError(
            f"`{name}` must be one number for each row of `y_pred`, shape (batch,) or (batch, 1). "
            f"Received: {name}.shape={shape}, y_pred.shape={tuple(y_pred.shape)}"
        )
    return ops.reshape(value, (-1,))


def _check_same(y_true):
    """Raise unless each of the `y_true` of pairs is 0, 1 or between them; tensors are not read."""
    if ops.is_tensor(y_true):
        return
    y_true = as_array("y_true", y_true)
    if not is_numeric(y_true) or not np.all((y_true >= 0) & (y_true <= 1)):
        raise ValueError(
            "`y_true` of pairs must be 1 for two items of one class and 0 for two classes. "
            f"Received: y_true={y_true!r}. Of two class ids a pair: np.equal(first, second)."
        )


def _masked(measured, mask):
    """Return the sum and the number of each row's distances in `mask`."""
    sums = ops.sum(ops.where(mask, measured, 0.0), axis=1)
    return sums, ops.sum(ops.cast(mask, "float32"), axis=1)
