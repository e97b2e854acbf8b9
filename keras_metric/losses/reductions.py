"""Reductions: from the rows of a loss to one number."""

import keras
from keras import ops

from keras_metric._validation import row_weights

# In addition to Keras's own: the sum over all rows divided by the sum of these counts.
OVER_COUNTS = {"mean_active": "active", "mean_valid": "valid"}


class _Reduce(keras.losses.Loss):
    """Keras's own reduction of finished rows, through its public interface."""

    def call(self, y_true, y_pred):
        return y_pred


def reduce_rows(parts, reduction, sample_weight, name, dtype):
    """One number (or one for each row) from the parts of a loss; the parts are summed."""
    first = parts[0].total
    weight = None
    if sample_weight is not None:
        weight = ops.cast(row_weights(sample_weight, first.shape[0]), first.dtype)
        if len(weight.shape) == 2:
            weight = ops.squeeze(weight, axis=1)
    if reduction not in OVER_COUNTS:
        rows = sum(part.total / ops.maximum(part.active, 1) for part in parts)
        return _Reduce(reduction=reduction, name=name, dtype=dtype)(rows, rows, weight)
    batch = ops.cast(ops.shape(first)[0], first.dtype)
    rows = 0
    for part in parts:
        total, count = part.total, getattr(part, OVER_COUNTS[reduction])
        if weight is not None:
            total, count = total * weight, count * (weight if len(weight.shape) else 1)
        count = ops.sum(count)
        rows = rows + total * (batch / ops.stop_gradient(ops.where(count > 0, count, 1)))
    # Keras's mean, not a finished number: under tf.distribute it scales rows.
    return _Reduce(reduction="sum_over_batch_size", name=name, dtype=dtype)(rows, rows)


def count_once(rows, reduction):
    """How often (batch,) to add a number to each row so that `reduction` adds it once.

    Where the rows are not divided by their counts, the number is added to each row.
    """
    if reduction not in OVER_COUNTS:
        return ops.maximum(rows.active, 1)
    count = getattr(rows, OVER_COUNTS[reduction])
    return ops.where(ops.sum(count) > 0, count, 1 / ops.cast(ops.shape(count)[0], count.dtype))
