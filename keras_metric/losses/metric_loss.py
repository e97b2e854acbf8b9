"""MetricLoss: what every loss of the package shares."""

import contextlib
import threading
import warnings

import keras
import numpy as np
from keras import ops

from keras_metric import distances, pairs
from keras_metric._checks import check_choice, class_ids
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


def report(positive_distance, negative_distance, positive=None, negative=None):
    """Tell an open `watch` the distances of a batch; the masks say which elements are meant."""
    seen = getattr(_watched, "seen", None)
    if seen is None or "positive_distance" in seen:
        return
    seen["positive_distance"], seen["positives"] = _masked_mean(positive_distance, positive)
    seen["negative_distance"], _ = _masked_mean(negative_distance, negative)


def _masked_mean(values, mask):
    mask = ops.ones_like(values) if mask is None else ops.cast(mask, values.dtype)
    count = ops.sum(mask)
    return ops.sum(ops.where(mask > 0, values, 0) * mask) / ops.maximum(count, 1), count


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
    """

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

    def batch_parts(self, labels, embeddings):
        """Parts of a labelled batch: `labels` (batch,), `embeddings` (batch, dim)."""
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

    def _parts(self, y_true, y_pred):
        embeddings = ops.convert_to_tensor(y_pred)
        parts = self._sound_parts(y_true, embeddings)
        # Mining compares, and a comparison with NaN is quietly false: a broken encoder must show.
        sound = ops.all(ops.isfinite(embeddings))
        total = ops.where(sound, parts[0].total, float("nan"))
        return [parts[0]._replace(total=total), *parts[1:]]

    def _sound_parts(self, y_true, embeddings):
        dtype = keras.backend.standardize_dtype(embeddings.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                "Embeddings must be floating point. "
                f"Received: y_pred.dtype={dtype}. The call is loss(labels, embeddings)."
            )
        # Distances of half-precision vectors are taken in float32: their squares overflow.
        embeddings = ops.cast(embeddings, "float64" if dtype == "float64" else "float32")
        shape = tuple(embeddings.shape)
        if len(shape) == 3:
            return self.tuple_parts(y_true, [embeddings[:, i] for i in range(shape[1])])
        if len(shape) != 2:
            raise ValueError(
                "Expected embeddings of shape (batch, dim), or (batch, branches, dim) for "
                f"ready-made tuples. Received: y_pred.shape={shape}"
            )
        labels = class_ids(y_true, "y_true")
        if None not in (labels.shape[0], shape[0]) and labels.shape[0] != shape[0]:
            raise ValueError(
                "Each embedding needs one label. Received: "
                f"y_true.shape={tuple(labels.shape)}, y_pred.shape={shape}"
            )
        self._warn_without_positives(y_true)
        return self.batch_parts(labels, embeddings)

    def _warn_without_positives(self, y_true):
        # Only labels that are still NumPy's can be looked at without stopping the device.
        if self._told_no_positives or ops.is_tensor(y_true):
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
        return {**super().get_config(), "reduction": self.reduction, "dtype": self.dtype}


def check_branches(branches, expected, names):
    """Raise unless there are `expected` branches."""
    if len(branches) != expected:
        raise ValueError(
            f"Expected embeddings of shape (batch, {expected}, dim): one slice for each of "
            f"{names}. Received {len(branches)} branches. Did the data set yield tuples for "
            "another model?"
        )


def measured_pairs(labels, embeddings, metric):
    """Distances of a batch to itself and the `Pairs` of its labels; tells an open `watch`."""
    partners = pairs.from_labels(labels)
    distance = distances.pairwise(embeddings, metric=metric)
    report(distance, distance, partners.positive, partners.negative)
    return distance, partners
