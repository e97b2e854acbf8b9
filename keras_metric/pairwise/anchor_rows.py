"""Sums over the terms of each anchor: what a loss computes before its reduction."""

from typing import Any, NamedTuple

from keras import ops


class Rows(NamedTuple):
    """Sums over the terms of each anchor row, all of shape (batch,).

    `total`: the sum of the row's terms. `active`: how many of them are greater than zero; all of
    them in a loss whose terms may be negative. `valid`: the number of terms of the row. All three
    are 0 for a row without any term.
    """

    total: Any
    active: Any
    valid: Any


def single_terms(values, valid=None):
    """Rows of one term each: `values` (batch,) where `valid`; default: all are valid."""
    valid = ops.ones_like(values) if valid is None else ops.cast(valid, values.dtype)
    values = ops.where(valid > 0, values, 0)
    return Rows(values, ops.cast(values > 0, values.dtype), valid)


def masked_terms(values, mask):
    """Rows of the terms `values` (batch, terms) where `mask` is True."""
    values = ops.where(mask, values, 0)
    active = ops.cast(values > 0, values.dtype)
    return Rows(ops.sum(values, -1), ops.sum(active, -1), ops.sum(ops.cast(mask, values.dtype), -1))


def whole_batch(value, batch):
    """Parts of a loss that is one `value` for all items of a batch."""
    ones = ops.ones((batch,), dtype=value.dtype)
    return [Rows(value * ones, ones, ones)]


def bounded_square(x):
    """The square of `x`, at most 1e30, so that one huge vector makes no infinite loss."""
    return ops.square(ops.clip(x, -1e15, 1e15))
