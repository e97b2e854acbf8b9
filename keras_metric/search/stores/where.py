"""`where=`: the conditions that narrow a search, read once into clauses."""

from collections import namedtuple

import numpy as np

from keras_metric._validation import shown
from keras_metric.search.attributes import as_value, kind_of

# One of `values`, all of one kind; equality is one value. No value: no item.
AnyOf = namedtuple("AnyOf", ["name", "kind", "values"])
# `low <= value <= high`; None is an open end.
Between = namedtuple("Between", ["name", "kind", "low", "high"])


def as_clauses(where):
    """Read `{"region": "r3", "age": (20, 40), "sex": ["f", "m"]}` into clauses that all hold."""
    if where is None:
        return ()
    if not isinstance(where, dict):
        raise TypeError(
            '`where` must be a dict such as {"region": "r3", "age": (20, 40), "sex": ["f", "m"]}. '
            f"Received: where={shown(where)}"
        )
    return tuple(_clause(name, condition) for name, condition in where.items())


def _clause(name, condition):
    if not isinstance(name, str):
        raise TypeError(f"Names in `where` must be strings. Received: {shown(name)}")
    if isinstance(condition, tuple):
        return _between(name, condition)
    if isinstance(condition, (list, set, frozenset, np.ndarray)):
        values = tuple(as_value(name, value) for value in condition)
        return AnyOf(name, _one_kind(name, values), values)
    value = as_value(name, condition)
    return AnyOf(name, kind_of(value), (value,))


def _between(name, condition):
    if len(condition) != 2 or condition == (None, None):
        raise ValueError(
            "A tuple in `where` is a closed range (low, high), None for an open end; a list means "
            f"any of its values. Received: {name:.200}={shown(condition)}"
        )
    low, high = (end if end is None else as_value(name, end) for end in condition)
    kind = _one_kind(name, [end for end in (low, high) if end is not None])
    if kind == "flag":
        raise TypeError(f"True and False have no range. Received: {name:.200}={shown(condition)}")
    if low is not None and high is not None and low > high:
        raise ValueError(f"A range must rise. Received: {name:.200}={shown(condition)}")
    return Between(name, kind, low, high)


def _one_kind(name, values):
    kinds = {kind_of(value) for value in values}
    if len(kinds) > 1:
        raise TypeError(
            f"A condition must be of one kind. Received: {name:.200} with {sorted(kinds)}"
        )
    return kinds.pop() if kinds else None
