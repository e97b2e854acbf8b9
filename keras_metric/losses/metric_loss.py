"""MetricLoss: what every loss of the package shares."""

import contextlib
import inspect
import threading
import warnings

import keras
import numpy as np
from keras import ops

from keras_metric import distances, pairs
from keras_metric._checks import check_choice, check_matrix, class_ids, multi_hot
from keras_metric.losses.rows import OVER_COUNTS, reduce_rows

_KERAS_REDUCTIONS = ("mean", "mean_with_sample_weight", "none", "sum", "sum_over_batch_size")
REDUCTIONS = (*OVER_COUNTS, *_KERAS_REDUCTIONS)

# Replicas are traced in threads of their own, so what a loss reports stays in its thread.
_watched = threading.local()


@contextlib.contextmanager
def watch():
    """Collect what losses called inside the block know about training: a dict of scalars.

    `active_share`: terms greater than zero among all terms. `positive_distance`,
    `negative_distance`: mean distance of an anchor to its positives and negatives.
    `positives`: number of (anchor, positive) pairs. Nothing is computed outside such a block.
    """
    outer = getattr(_watched, "seen", None)
    _watched.seen = {}
    try:
        yield _watched.seen
    finally:
        _watched.seen = outer


def watching():
    """Whether an open `watch` still wants the distances of this batch."""
    seen = getattr(_watched, "seen", None)
    return seen is not None and "positive_distance" not in seen


def report(positive_distance, negative_distance, positive=None, negative=None):
    """Tell an open `watch` the distances of a batch; the masks say which elements are meant."""
    if not watching():
        return
    sums, counts = zip(
        _masked_sum(positive_distance, positive), _masked_sum(negative_distance, negative)
    )
    report_rows(*sums, *counts)


def _masked_sum(values, mask):
    mask = ops.ones_like(values) if mask is None else ops.cast(mask, values.dtype)
    return ops.sum(ops.where(mask > 0, values, 0) * mask), ops.sum(mask)


def report_rows(positive_sums, negative_sums, num_positives, num_negatives):
    """The same from the sums of the distances of each row, and their numbers."""
    if not watching():
        return
    seen = _watched.seen
    seen["positive_distance"], seen["positives"] = _mean(positive_sums, num_positives)
    seen["negative_distance"], _ = _mean(negative_sums, num_negatives)


def _mean(sums, numbers):
    total = ops.sum(sums)
    count = ops.cast(ops.sum(numbers), total.dtype)
    return total / ops.maximum(count, 1), count


def _report_active(parts):
    seen = getattr(_watched, "seen", None)
    if seen is not None and "active_share" not in seen:
        active = sum(ops.sum(part.active) for part in parts)
        valid = sum(ops.sum(part.valid) for part in parts)
        seen["active_share"] = active / ops.maximum(valid, 1)


class MetricLoss(keras.losses.Loss):
    """Base of the losses on embeddings: labels stay integers, every anchor gives its own rows.

    A subclass defines `batch_parts(labels, embeddings)` for labelled batches and, where ready
    made tuples make sense, `tuple_parts(y_true, branches)`. Each returns a list of `Rows`; the
    loss is the sum over the list.

    Reductions:

    - "mean_active": sum of all terms over the number of terms greater than zero. The gradient
      keeps its size when most triplets are solved.
    - "mean_valid": sum of all terms over the number of all terms.
    - Keras's own ("sum_over_batch_size", "sum", "none", "mean", "mean_with_sample_weight") act
      on the row means: an anchor's sum over its active terms. "sum_over_batch_size" divides by
      all rows, those without a partner included.

    `sample_weight` weighs the anchors, in the sum and in the count.

    A subclass keeps every argument of its constructor in an attribute of that name; from these
    come `get_config` and `from_config`.
    """

    # What y_true of a labelled batch is: class "ids", or "multi_hot" rows, where one shared label
    # makes two items a positive pair.
    labels = "ids"
    # What y says of ready-made pairs, in words, where the loss can do nothing without it.
    y_of_pairs = None
    # Whether a batch (batch, dim) needs no labels.
    label_free = False

    def __init__(self, reduction, name, dtype=None):
        check_choice("reduction", "none" if reduction is None else reduction, REDUCTIONS)
        known = "sum" if reduction in OVER_COUNTS else reduction
        super().__init__(name=name, reduction=known, dtype=dtype)
        self.reduction = reduction
        self._told_no_positives = False

    @property
    def layers(self):
        """The Keras layers this loss holds; `EmbeddingModel` tracks, trains and saves them."""
        return ()

    def __call__(self, y_true, y_pred, sample_weight=None):
        with keras.name_scope(self.name):
            parts = self._parts(y_true, y_pred)
            _report_active(parts)
            return reduce_rows(parts, self.reduction, sample_weight, self.name, self.dtype)

    def call(self, y_true, y_pred):
        """Row means `(batch,)`, before any reduction."""
        return reduce_rows(self._parts(y_true, y_pred), "none", None, self.name, self.dtype)

    def against(self, y_true, y_pred, reference_labels, reference_embeddings, sample_weight=None):
        """The loss of anchors whose positives and negatives are other items: a reference set.

        Every anchor is compared with all references, and with nothing else. Use it in a step of
        your own for a queue of past embeddings, the other view of a batch, or a gallery; a
        thousand times as many references as anchors are fine: memory is O(batch * references).

        Args:
            y_true: integer labels of the anchors, `(batch,)`.
            y_pred: their embeddings, `(batch, dim)`.
            reference_labels: integer labels `(references,)`.
            reference_embeddings: `(references, dim)`. They get a gradient too; wrap them in
                `keras.ops.stop_gradient` where they are not to be trained.
            sample_weight: weights of the anchors, optional.

        Returns:
            The loss, reduced as in `__call__`.

        Raises:
            ValueError: for labels or embeddings of a wrong kind or shape.
        """
        references = ops.convert_to_tensor(reference_embeddings)
        check_matrix("reference_embeddings", references)
        labels = self._checked_labels(reference_labels, "reference_labels")
        _check_one_each(labels, references, "reference_labels", "reference_embeddings")
        with keras.name_scope(self.name):
            parts = self._parts(y_true, y_pred, references, labels)
            _report_active(parts)
            return reduce_rows(parts, self.reduction, sample_weight, self.name, self.dtype)

    def batch_parts(self, labels, embeddings, references=None, reference_labels=None):
        """Parts of a labelled batch: `labels` (batch,), `embeddings` (batch, dim).

        Of losses that take them, `labels` may also be of 0 and 1, (batch, classes).
        With `references` (references, dim) and their labels, partners come from these alone.
        """
        raise ValueError(
            f"{type(self).__name__} needs ready-made tuples: y_pred of shape "
            "(batch, branches, dim). Received embeddings of shape (batch, dim)."
        )

    def tuple_parts(self, y_true, branches):
        """Parts of ready-made tuples: `branches` is a list of (batch, dim) tensors."""
        raise ValueError(
            f"{type(self).__name__} needs a labelled batch: y_pred of shape (batch, dim) and "
            f"integer labels. Received {len(branches)} branches."
        )

    def _parts(self, y_true, y_pred, *references):
        embeddings = ops.convert_to_tensor(y_pred)
        parts = self._sound_parts(y_true, embeddings, *references)
        # Mining compares, and a comparison with NaN is quietly false: a broken encoder must show.
        sound = ops.all(ops.isfinite(embeddings))
        if references:
            sound = ops.logical_and(sound, ops.all(ops.isfinite(references[0])))
        total = ops.where(sound, parts[0].total, float("nan"))
        return [parts[0]._replace(total=total), *parts[1:]]

    def _check_layers(self):
        for layer in self.layers:
            if not layer.built:
                raise ValueError(
                    f"The loss holds the layer {layer.name!r}, whose weights no model trains or "
                    "saves. Compile the loss with a keras_metric.EmbeddingModel; or, in a step of "
                    "your own, call layer.build((None, dim)) and train layer.trainable_variables."
                )

    def _sound_parts(self, y_true, embeddings, references=None, reference_labels=None):
        self._check_layers()
        dtype = keras.backend.standardize_dtype(embeddings.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                "Embeddings must be floating point. "
                f"Received: y_pred.dtype={dtype}. The call is loss(labels, embeddings)."
            )
        # Distances of half-precision vectors are taken in float32: their squares overflow.
        dtype = "float64" if dtype == "float64" else "float32"
        embeddings = ops.cast(embeddings, dtype)
        shape = tuple(embeddings.shape)
        if len(shape) == 3 and references is None:
            return self.tuple_parts(y_true, [embeddings[:, i] for i in range(shape[1])])
        if len(shape) != 2:
            raise ValueError(
                "Expected embeddings of shape (batch, dim), or (batch, branches, dim) for "
                f"ready-made tuples. Received: y_pred.shape={shape}"
            )
        labels = self._checked_labels(y_true, "y_true")
        _check_one_each(labels, embeddings, "y_true", "y_pred")
        if references is not None:
            return self.batch_parts(
                labels, embeddings, ops.cast(references, dtype), reference_labels
            )
        self._warn_without_positives(y_true)
        return self.batch_parts(labels, embeddings)

    def _checked_labels(self, labels, name):
        return (multi_hot if self.labels == "multi_hot" else class_ids)(labels, name)

    def _warn_without_positives(self, y_true):
        # Only labels that are still NumPy's can be looked at without stopping the device.
        if self._told_no_positives or self.label_free or self.labels == "multi_hot":
            return
        if ops.is_tensor(y_true):
            return
        ids = np.asarray(y_true).ravel()
        if len(ids) and len(np.unique(ids)) == len(ids):
            self._told_no_positives = True
            warnings.warn(
                f"{self.name}: no two items of a batch of {len(ids)} share a label, so no "
                "anchor has a positive. Use keras_metric.data.BalancedBatches, which puts "
                "samples_per_class items of each class into a batch.",
                stacklevel=3,
            )

    def get_config(self):
        # Keras leaves `dtype` out of a loss's config; a round trip must keep it.
        arguments = inspect.signature(type(self).__init__).parameters.values()
        names = [a.name for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD][1:]
        return {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config):
        revive = keras.saving.deserialize_keras_object
        return cls(**{k: revive(v) if isinstance(v, dict) else v for k, v in config.items()})


def check_branches(branches, expected, names):
    """Raise unless there are `expected` branches."""
    if len(branches) != expected:
        raise ValueError(
            f"Expected embeddings of shape (batch, {expected}, dim): one slice for each of "
            f"{names}. Received {len(branches)} branches. Did the data set yield tuples for "
            "another model?"
        )


def measured_pairs(labels, embeddings, metric, references=None, reference_labels=None):
    """Distances of a batch to itself, or to references, and its `Pairs`; tells an open `watch`."""
    partners = pairs.from_labels(labels, reference_labels)
    distance = distances.pairwise(embeddings, references, metric=metric)
    report(distance, distance, partners.positive, partners.negative)
    return distance, partners


def _check_one_each(labels, embeddings, labels_name, embeddings_name):
    if None in (labels.shape[0], embeddings.shape[0]) or labels.shape[0] == embeddings.shape[0]:
        return
    raise ValueError(
        f"Each embedding needs one label. Received: {labels_name}.shape={tuple(labels.shape)}, "
        f"{embeddings_name}.shape={tuple(embeddings.shape)}"
    )
