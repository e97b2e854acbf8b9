"""Ids and labels: strings and integers, checked before anything changes."""

import numbers

import numpy as np
from keras import ops

from keras_metric._validation import rows_hint, shown


def as_names(name, value, count=None):
    """Return ids or labels as a list of plain strings and integers, `count` of them."""
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
        raise TypeError(
            f"`{name}` must be a list of strings or integers. Received: {name}={shown(value)}. A "
            "single one goes into a list."
        )
    names = list(value)
    if count is not None and len(names) != count:
        raise ValueError(
            f"`{name}` must have one entry for each of the {count} rows. Received: "
            f"len({name})={len(names)}"
        )
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
    """Raise if an id stands twice in one call."""
    if len(set(ids)) < len(ids):
        seen = set()
        twice = next(key for key in ids if key in seen or seen.add(key))
        raise ValueError(
            f"`ids` must differ from each other. Received: {shown(twice)} twice. Nothing was "
            "changed."
        )
