"""Checks of the arguments of `Index`: vectors, ids, labels, attributes and `where` conditions."""

import math
import numbers
from collections import namedtuple

import numpy as np
from keras import ops

from keras_metric._validation import as_array, is_numeric, rows_hint, shown

# Marks an item that lacks an attribute.
MISSING = object()
# A float64 represents every integer up to this size exactly.
LARGEST_INTEGER = 2**53

_KINDS = {str: "string", bool: "flag", int: "number", float: "number"}
# For each method of Index that takes embeddings: arguments to propose to a caller with raw inputs.
_CALLS = {
    "add": "encoder.predict(images), labels",
    "replace": "encoder.predict(images), labels, ids",
    "enrol": "encoder.predict(images), label",
    "search": "encoder.predict(images)",
    "staged_search": "encoder.predict(images), stages",
    "verify": "encoder.predict(image[None]), id",
    "identify": "encoder.predict(images)",
    "calibrate": "encoder.predict(images), labels",
}

# Condition `value in values`; all values are of one kind. An empty `values` matches no item.
AnyOf = namedtuple("AnyOf", ["name", "kind", "values"])
# Condition `low <= value <= high`; None is an open end.
Between = namedtuple("Between", ["name", "kind", "low", "high"])


def as_vectors(name, value, dim, method="add"):
    """Return `value` as a finite, contiguous float32 array `(rows, dim)`, without a copy if it is.

    Errors about raw inputs propose to embed them first and then call `method` of the index.
    """
    array = as_array(name, value)
    embed_first = f"Embed raw inputs first: `index.{method}({_CALLS[method]})`."
    if array.ndim != 2 or array.shape[1] != dim:
        vector = array.ndim == 1 and is_numeric(array)
        raise ValueError(
            f"`{name}` must have shape (rows, {dim}), the width of this index. Received: "
            f"{name}.shape={array.shape}. "
            + ("A single vector becomes a row by vector[None]." if vector else embed_first)
        )
    if array.dtype.kind == "b" or not is_numeric(array):
        raise TypeError(
            f"`{name}` must be numbers. Received: {name}.dtype={array.dtype}. {embed_first}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(array, "float32")
        # The sum needs no mask, and is finite only if every value is. It can also overflow.
        if np.isfinite(array.sum()):
            return array
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"`{name}` must be finite float32. Received: NaN or infinity in row "
            f"{int(np.argmin(finite))}. The encoder diverged, or a zero vector was normalized."
        )
    return array


def as_names(name, value, count=None):
    """Return ids or labels as a list of plain strings and integers, of length `count` if given."""
    if ops.is_tensor(value):
        value = ops.convert_to_numpy(value)
    if isinstance(value, np.ndarray):
        if value.ndim == 2 and value.shape[1] == 1:
            value = value[:, 0]
        if value.ndim != 1:
            raise ValueError(
                f"`{name}` must have shape (rows,). Received: {name}.shape={value.shape}."
                f"{rows_hint(value)}"
            )
        value = value.tolist()
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise TypeError(f"`{name}` must be a list of strings or integers. Received: {shown(value)}")
    names = list(value)
    if count is not None and len(names) != count:
        raise ValueError(f"`{name}` must have {count} entries, one per row. Received: {len(names)}")
    if set(map(type, names)) <= {int, str}:
        return names
    return [as_name(name, entry) for entry in names]


def as_name(name, value):
    """Return one id or label as a plain string or integer."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise TypeError(f"`{name}` must be strings or integers. Received: {shown(value)}")


def check_distinct(ids):
    """Return `ids`; raise if one occurs more than once."""
    if len(set(ids)) < len(ids):
        found = set()
        duplicate = next(key for key in ids if key in found or found.add(key))
        raise ValueError(
            f"`ids` must differ. Received {shown(duplicate)} more than once. Nothing was changed."
        )
    return ids


def as_table(attributes, count):
    """Return `{name: (kind, values)}` for a list of dicts; a missing value is `MISSING`."""
    if attributes is None:
        return {}
    if isinstance(attributes, dict) or not isinstance(attributes, (list, tuple)):
        raise TypeError(f"`attributes` must be a list of dicts. Received: {shown(attributes)}")
    if len(attributes) != count:
        received = f"Received: {len(attributes)}"
        raise ValueError(f"`attributes` must have {count} dicts, one per row. {received}")
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
    """Return the list of dicts from which `as_table` made a table."""
    rows = [{} for _ in range(count)]
    for name, (_, values) in table.items():
        for row, value in zip(rows, values, strict=True):
            if value is not MISSING:
                row[name] = value
    return rows


def check_kind(name, kind, expected):
    """Raise if the kind of an attribute is not the one that the index has for it."""
    if kind != expected:
        raise TypeError(
            f"The attribute {shown(name)} holds values of the kind {expected!r} in this index. "
            f"Received one of the kind {kind!r}. Convert it, or use another name."
        )


def kind_of(value):
    """The kind of a plain value: "string", "number" or "flag"."""
    return _KINDS[type(value)]


def as_clauses(where):
    """Return `{"region": "r3", "age": (20, 40), "sex": ["f", "m"]}` as a tuple of conditions."""
    if where is None:
        return ()
    if not isinstance(where, dict):
        raise TypeError(
            '`where` must be a dict such as {"region": "r3", "age": (20, 40), "sex": ["f", "m"]}. '
            f"Received: where={shown(where)}"
        )
    return tuple(_clause(name, condition) for name, condition in where.items())


def _column(name, values):
    types = set(map(type, values)) - {type(MISSING)}
    if not (types <= {str} or types <= {bool}):
        # Numbers are checked one by one: some may be NaN, infinite or huge integers.
        values = [v if v is MISSING else _plain(name, v) for v in values]
        types = set(map(type, values)) - {type(MISSING)}
    return _one_kind(name, types), values


def _plain(name, value):
    """An attribute's value as a plain string, bool, int or float."""
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
        "An attribute must be a string, a finite number (integers up to 2**53, larger ones as "
        f"strings) or a bool. Received: {name:.200}={shown(value)}. Leave out unknown values."
    )


def _clause(name, condition):
    if not isinstance(name, str):
        raise TypeError(f"Names in `where` must be strings. Received: {shown(name)}")
    if isinstance(condition, tuple):
        return _between(name, condition)
    if isinstance(condition, (list, set, frozenset, np.ndarray)):
        values = tuple(_plain(name, value) for value in condition)
        return AnyOf(name, _one_kind(name, map(type, values)), values)
    value = _plain(name, condition)
    return AnyOf(name, kind_of(value), (value,))


def _between(name, condition):
    if len(condition) != 2 or condition == (None, None):
        raise ValueError(
            "A tuple in `where` is a closed range (low, high), None for an open end; a list means "
            f"any of its values. Received: {name:.200}={shown(condition)}"
        )
    low, high = (end if end is None else _plain(name, end) for end in condition)
    kind = _one_kind(name, [type(end) for end in (low, high) if end is not None])
    if kind == "flag":
        raise TypeError(f"True and False have no range. Received: {name:.200}={shown(condition)}")
    if low is not None and high is not None and low > high:
        raise ValueError(f"A range must not be empty. Received: {name:.200}={shown(condition)}")
    return Between(name, kind, low, high)


def _one_kind(name, types):
    kinds = {_KINDS[kind] for kind in types}
    if len(kinds) > 1:
        raise TypeError(f"Values of {shown(name)} must be of one kind. Received: {sorted(kinds)}")
    return kinds.pop() if kinds else None
