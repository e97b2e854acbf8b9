"""Attributes of items: checked once, then held as one list for each name."""

import math
import numbers

import numpy as np

from keras_metric._validation import shown

# Stands where an item lacks an attribute; None could be a value that somebody means.
MISSING = object()
# A float64 tells integers apart up to here; larger numbers are names and should be strings.
LARGEST_INTEGER = 2**53

_KINDS = {str: "string", bool: "flag", int: "number", float: "number"}


def as_table(attributes, count):
    """Turn a list of dicts into `{name: (kind, values)}`, `MISSING` where a dict lacks the name."""
    if attributes is None:
        return {}
    if isinstance(attributes, dict) or not isinstance(attributes, (list, tuple)):
        raise TypeError(
            "`attributes` must be a list of dicts, one for each row. Received: "
            f"attributes of type {type(attributes).__name__}"
        )
    if len(attributes) != count:
        raise ValueError(
            f"`attributes` must have one dict for each of the {count} rows. Received: "
            f"len(attributes)={len(attributes)}"
        )
    names = {}
    for row in attributes:
        if not isinstance(row, dict):
            raise TypeError(f"`attributes` must hold dicts. Received: {shown(row)}")
        names.update(row)
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"Names of attributes must be strings. Received: {shown(name)}")
    return {name: _column(name, [row.get(name, MISSING) for row in attributes]) for name in names}


def rows_of(table, count):
    """Turn a table back into a list of dicts."""
    rows = [{} for _ in range(count)]
    for name, (_, values) in table.items():
        for row, value in zip(rows, values, strict=True):
            if value is not MISSING:
                row[name] = value
    return rows


def as_value(name, value):
    """Return an attribute's value as a plain string, bool, int or float."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral) and abs(value) <= LARGEST_INTEGER:
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        value = float(value)
        if math.isfinite(value):
            return value
    raise ValueError(
        "An attribute must be a string, a finite number (integers up to 2**53 in size; larger ones "
        f"as strings), True or False. Received: {name:.200}={shown(value)}. Leave out what is "
        "unknown."
    )


def kind_of(value):
    """The kind of a plain value: "string", "number" or "flag"."""
    return _KINDS[type(value)]


def check_kind(name, kind, known):
    """Raise if an attribute of one kind meets a value of another."""
    if kind != known:
        raise TypeError(
            f"The attribute {shown(name)} holds values of the kind {known!r} in this index. "
            f"Received one of the kind {kind!r}. Convert it, or use another name."
        )


def _column(name, values):
    types = set(map(type, values)) - {type(MISSING)}
    plain = types <= {str} or types <= {bool}
    if not plain:
        # Numbers are looked at one by one: NaN, infinity and huge integers hide among them.
        values = [v if v is MISSING else as_value(name, v) for v in values]
        types = set(map(type, values)) - {type(MISSING)}
    kinds = {_KINDS[kind] for kind in types}
    if len(kinds) > 1:
        raise TypeError(
            f"The attribute {shown(name)} must be of one kind. Received values of the kinds "
            f"{sorted(kinds)}"
        )
    return kinds.pop(), values
