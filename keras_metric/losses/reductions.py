"""What a loss gives for each anchor row, and how rows become one number."""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_metric._validation import row_weights


class Rows(NamedTuple):
    """Sums over the terms of each anchor row, all of shape (batch,).

    `total`: the sum of the row's terms. `active`: how many of them are greater than zero; all of
    them in a loss whose terms have a sign. `valid`: how many terms the row has at all. A row
    without a partner is 0 in all three.
    """

    total: Any
    active: Any
    valid: Any


def single_terms(values, valid=None):
    """Rows that have one term each: `values` (batch,), where `valid` (all, if left out)."""
    ones = ops.ones_like(values)
    valid = ones if valid is None else ops.cast(valid, values.dtype)
    values = ops.where(valid > 0, values, 0)
    return Rows(values, ops.cast(values > 0, values.dtype), valid)


def masked_terms(values, mask):
    """Rows of the terms `values` (batch, terms) where `mask` is True."""
    values = ops.where(mask, values, 0)
    active = ops.cast(values > 0, values.dtype)
    return Rows(ops.sum(values, -1), ops.sum(active, -1), ops.sum(ops.cast(mask, values.dtype), -1))


def bounded_square(x):
    """The square of `x`, which stops growing at 1e30: one huge vector is no infinite loss."""
    return ops.square(ops.clip(x, -1e15, 1e15))


class _Reduce(keras.losses.Loss):
    """Keras's own reduction of finished rows, reached by its public way."""

    def call(self, y_true, y_pred):
        return y_pred


# Ours, beside Keras's own: sum over all rows, divided by the sum of the rows' counts.
OVER_COUNTS = {"mean_active": "active", "mean_valid": "valid"}


def often_enough(rows, reduction):
    """How often (batch,) a number counts in each row to be added once by the `reduction`.

    To each row of its own, where the rows are not divided by their counts.
    """
    if reduction not in OVER_COUNTS:
        return ops.maximum(rows.active, 1)
    count = getattr(rows, OVER_COUNTS[reduction])
    return ops.where(ops.sum(count) > 0, count, 1 / ops.cast(ops.shape(count)[0], count.dtype))


def reduce_rows(parts, reduction, sample_weight, name, dtype):
    """One number (or one a row) from the parts of a loss; the parts add up."""
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
        rows = rows + total * (batch / _positive_sum(count))
    # The rows go through Keras's mean: under tf.distribute it scales rows, not finished numbers.
    return _Reduce(reduction="sum_over_batch_size", name=name, dtype=dtype)(rows, rows)


def _positive_sum(count):
    total = ops.sum(count)
    return ops.stop_gradient(ops.where(total > 0, total, 1))
