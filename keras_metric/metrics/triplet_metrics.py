"""Keras metrics of pair distances and triplets in the batches of a training."""

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
    """Base class: a mean over the distances in each batch.

    `y_pred` is `(batch, dim)` with class ids as `y_true`, or `(batch, branches, dim)`: two branches
    with 1 or True for "same" as `y_true`; or anchor, positive and negative, with `y_true` and more
    branches ignored. `sample_weight` weights the anchors.
    """

    def __init__(self, distance="euclidean", name=None, dtype=None):
        # In half precision a count of triplets overflows, or stops at 256.
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
                # An empty batch has no pairs.
                return
            pairs = class_pairs.from_labels(labels)
            sums, counts = self._of_batch(distances.pairwise(y_pred, metric=self.distance), pairs)
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

    Pass it to `compile(metrics=[...])`, also of a plain `keras.Model`. With `train_health=True` the
    models of this package log a similar mean of the loss, of its distance and the mined pairs; this
    metric counts every pair of the batch, in any distance. TensorFlow Similarity's `avg_pos` is the
    mean of the last batch.

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

    def _of_batch(self, measured, pairs):
        return _masked(measured, pairs.positive)

    def _of_pairs(self, measured, same):
        return measured * ops.cast(same, measured.dtype), same

    def _of_triplets(self, positive, negative):
        return positive, ops.ones_like(positive)


@export
class NegativeDistance(DistanceMean):
    """Mean distance of an anchor to its negatives, d_an, over all pairs of an epoch's batches.

    sum of d(a, n) over anchors and their negatives / number of these pairs (0 if there are none).
    See `PositiveDistance` for its use and its call arguments.

    Args:
        distance: Name of a metric of `keras_metric.distances`. Default "euclidean".
        name: Name in the logs.
        dtype: See `keras.metrics.Metric`.

    Example:
        >>> from keras_metric.metrics import NegativeDistance
        >>> mean = NegativeDistance()
        >>> mean.update_state([0, 0, 1], [[0.0], [2.0], [9.0]])
        >>> float(mean.result())
        8.0
    """

    def __init__(self, distance="euclidean", name="negative_distance", dtype=None):
        super().__init__(distance, name, dtype)

    def _of_batch(self, measured, pairs):
        return _masked(measured, pairs.negative)

    def _of_pairs(self, measured, same):
        return measured * ops.cast(ops.logical_not(same), measured.dtype), ops.logical_not(same)

    def _of_triplets(self, positive, negative):
        return negative, ops.ones_like(negative)


@export
class TripletAccuracy(DistanceMean):
    """Fraction of the triplets of an epoch's batches that are satisfied: d_ap + margin < d_an.

    number of (a, p, n) with d(a, p) + margin < d(a, n) / number of (a, p, n) (0 if there are none).
    It complements the loss: it counts every triplet of each batch, independently of mining. Random
    embeddings have about 0.5. Triplets with equal distances are not satisfied, so collapsed
    embeddings have 0. `evaluation.geometry_metrics` counts the triplets of a whole set.

    Args:
        distance: Name of a metric of `keras_metric.distances`. Default "euclidean".
        margin: Number of at least 0, in units of the distance; 0 (default) counts triplets in the
            right order, the margin of a loss those without a gradient.
        name: Name in the logs.
        dtype: See `keras.metrics.Metric`.

    Call arguments:
        y_true: Class ids `(batch,)`; ignored for triplets.
        y_pred: Embeddings `(batch, dim)`, or `(batch, branches, dim)` of triplets, or of more
            branches whose third is the negative.
        sample_weight: Optional weights `(batch,)` of the anchors.

    Raises:
        TypeError: An argument of another type.
        ValueError: Pairs, which have no triplets.

    Example:
        >>> from keras_metric.metrics import TripletAccuracy
        >>> accuracy = TripletAccuracy()
        >>> accuracy.update_state([0, 0, 1], [[0.0], [2.0], [3.0]])
        >>> float(accuracy.result())
        0.5
    """

    def __init__(self, distance="euclidean", margin=0.0, name="triplet_accuracy", dtype=None):
        super().__init__(distance, name, dtype)
        check_number("margin", margin, at_least=0)
        self.margin = margin

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}

    def _of_batch(self, measured, pairs):
        negative = pairs.negative

        def step(rank, column, exists, satisfied):
            limit = ops.take_along_axis(measured, column[:, None], axis=1) + self.margin
            beyond = ops.logical_and(measured > limit, negative)
            count = ops.sum(ops.cast(beyond, "float32"), axis=1)
            return (satisfied + ops.where(exists, count, 0.0),)

        start = ops.zeros_like(pairs.num_positives, dtype="float32")
        (satisfied,) = pairs.for_each_positive(step, (start,))
        # A comparison with NaN is False and would count as a triplet that is not satisfied.
        satisfied = ops.where(ops.any(ops.isnan(measured), axis=1), float("nan"), satisfied)
        # Floats: large batches have more triplets than an int32 can count.
        counts = (pairs.num_positives, pairs.num_negatives)
        num_positives, num_negatives = (ops.cast(count, "float32") for count in counts)
        return satisfied, num_positives * num_negatives

    def _of_pairs(self, measured, same):
        raise ValueError(
            "TripletAccuracy needs class ids or triplets. Received: pairs, of two branches. Use "
            "PositiveDistance and NegativeDistance."
        )

    def _of_triplets(self, positive, negative):
        satisfied = ops.cast(positive + self.margin < negative, positive.dtype)
        satisfied = ops.where(ops.isnan(positive + negative), float("nan"), satisfied)
        return satisfied, ops.ones_like(positive)


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
    """Raise unless the `y_true` of pairs are in 0 to 1; tensors are not checked."""
    if ops.is_tensor(y_true):
        return
    y_true = as_array("y_true", y_true)
    if not is_numeric(y_true) or not np.all((y_true >= 0) & (y_true <= 1)):
        raise ValueError(
            "`y_true` of pairs must be 1 for two items of one class and 0 for two classes. "
            f"Received: y_true={y_true!r}. For two class ids a pair: np.equal(first, second)."
        )


def _masked(measured, mask):
    """Return the sum and the number of the distances of each row in `mask`."""
    sums = ops.sum(ops.where(mask, measured, 0.0), axis=1)
    return sums, ops.sum(ops.cast(mask, "float32"), axis=1)
