"""Checks of the data files of an index, which may be untrusted input.

A checksum detects damage but not forgery: the author of a file can compute it as well. The checks
therefore compare each array with the size of its file, and names, codes and arrays with each other.
Files that pass cannot cause an error later, during a search.
"""

import json
import os

import numpy as np

from keras_metric.search.index_inputs import as_names, check_distinct
from keras_metric.search.storage.manifest import damaged
from keras_metric.search.stores.attribute_columns import KINDS


def read_array(file):
    """Return the array of a .npy file; the file must hold what its header states, and no pickle."""
    try:
        with open(file, "rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            size = stream.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
        if dtype.hasobject or size != os.path.getsize(file):
            raise ValueError(f"the header states {shape} of {dtype}, {size} bytes")
        return np.ascontiguousarray(np.load(file, allow_pickle=False))
    except OSError:
        raise
    # NumPy parses the header as Python, so damage can raise any exception.
    except Exception as error:
        raise damaged(f"The file {str(file)!r} is not an array of numbers: {error}") from error


def read_names(file):
    """Return the content of `names.json`."""
    try:
        return json.loads(file.read_text("ascii"))
    except (ValueError, RecursionError) as error:
        raise damaged(f"The file {str(file)!r} is not JSON: {error}") from error


def check_data(folder, names, arrays, dim):
    """Raise unless `names`, the content of names.json, and arrays fit each other and `dim`."""
    try:
        _check_names(names)
        size = len(names["ids"])
        _check_array(arrays, "vectors", "float32", (size, dim))
        for start in range(0, size, 65536):
            if not np.isfinite(arrays["vectors"][start : start + 65536]).all():
                raise _Misfit("vectors.npy", "it contains NaN or infinity")
        _check_codes(arrays, "labels", size, len(names["labels"]), 0)
        _check_columns(names["columns"], arrays, size)
        if names["coarse"] is not None:
            _check_slots(names["coarse"], arrays, size)
    except _Misfit as misfit:
        file, reason = misfit.args
        fault = f"The file {str(folder / file)!r} does not fit the others: {reason}"
        raise damaged(fault) from misfit.__cause__


class _Misfit(Exception):
    """A file that does not fit the others; the arguments are its name and the reason."""


def _check_names(names):
    file = "names.json"
    types = {"ids": list, "labels": list, "columns": list, "next_id": int}
    types["coarse"] = (dict, type(None))
    for part, kind in types.items():
        if not isinstance(names, dict) or not isinstance(names.get(part), kind):
            raise _Misfit(file, f"`{part}` is missing or has another type")
    for part in ("ids", "labels"):
        try:
            if any(isinstance(value, (list, dict)) for value in names[part]):
                raise TypeError("a list among the names")
            check_distinct(as_names(part, names[part]))
        except (ValueError, TypeError) as error:
            raise _Misfit(file, f"`{part}`: {error}") from error
    next_id = max((key for key in names["ids"] if isinstance(key, int)), default=-1) + 1
    if names["next_id"] < next_id:
        raise _Misfit(file, "`next_id` is the id of an item")


def _check_columns(columns, arrays, size):
    names = set()
    for number, column in enumerate(columns):
        kind = column.get("kind") if isinstance(column, dict) else None
        name = column.get("name") if isinstance(kind, str) and kind in KINDS else None
        if not isinstance(name, str) or name in names or not isinstance(column.get("values"), list):
            raise _Misfit("names.json", f"`columns[{number}]` is not an attribute")
        names.add(name)
        if kind == "string":
            if not all(isinstance(value, str) for value in column["values"]):
                raise _Misfit("names.json", f"`columns[{number}]` does not contain strings")
            _check_codes(arrays, f"column-{number}-codes", size, len(column["values"]), -1)
            continue
        for array, dtype in KINDS[kind].arrays.items():
            _check_array(arrays, f"column-{number}-{array}", dtype, (size,))
        if kind == "number":
            whole = arrays[f"column-{number}-numbers"][arrays[f"column-{number}-whole"]]
            # NaN stands for a missing value.
            if not (np.isnan(whole) | ((whole == np.rint(whole)) & np.isfinite(whole))).all():
                raise _Misfit(f"column-{number}-numbers.npy", "it does not contain whole numbers")
        elif not np.isin(arrays[f"column-{number}-flags"], (-1, 0, 1)).all():
            raise _Misfit(f"column-{number}-flags.npy", "it does not contain flags")


def _check_slots(coarse, arrays, size):
    for part in ("trained_on", "removed"):
        if type(coarse.get(part)) is not int or coarse[part] < 0:
            raise _Misfit("names.json", f"`coarse` has no number `{part}`")
    rows, slots = arrays.get("coarse-row-of-slot"), arrays.get("coarse-slot-of-row")
    number = len(rows) if isinstance(rows, np.ndarray) and rows.ndim == 1 else 0
    _check_array(arrays, "coarse-row-of-slot", "int64", (number,))
    _check_array(arrays, "coarse-slot-of-row", "int64", (size,))
    fit = not size or (slots.min() >= 0 and slots.max() < number)
    if not fit or not np.array_equal(rows[slots], np.arange(size)):
        raise _Misfit("coarse-slot-of-row.npy", "its slots are not those of the items")
    structure = arrays.get("coarse-structure")
    if not isinstance(structure, np.ndarray) or structure.dtype != "uint8" or structure.ndim != 1:
        raise _Misfit("coarse-structure.npy", "it is missing or does not contain bytes")


def _check_codes(arrays, name, size, number, least):
    _check_array(arrays, name, "int32", (size,))
    codes = arrays[name]
    if size and not least <= codes.min() <= codes.max() < number:
        raise _Misfit(f"{name}.npy", "it contains codes without a name")


def _check_array(arrays, name, dtype, shape):
    array = arrays.get(name)
    if array is None:
        raise _Misfit(f"{name}.npy", "it is missing")
    if array.dtype != dtype or array.shape != shape:
        raise _Misfit(f"{name}.npy", f"{array.dtype} {array.shape} instead of {dtype} {shape}")
