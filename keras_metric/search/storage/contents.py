"""What the files of a saved index may hold: they are checked as input from a stranger.

A checksum tells damage, not intent: whoever makes a file makes its checksum too. So no file is
believed: an array is as large as its file, a number of a label is one of the labels, an id stands
once. What passes here cannot fail later, in the middle of a search.
"""

import json
import os

import numpy as np

from keras_metric.search.ids import as_names, check_distinct
from keras_metric.search.stores.columns import KINDS

# What an array of a column holds.
_COLUMN_TYPES = {"codes": "int32", "numbers": "float64", "whole": "bool", "flags": "int8"}


def read_array(file):
    """Return the array of a .npy file, which holds what its header says, and no pickle."""
    try:
        with open(file, "rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(stream)
            said = stream.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
        if dtype.hasobject or said != os.path.getsize(file):
            raise ValueError(f"the header says {shape} of {dtype}, {said} bytes")
        return np.ascontiguousarray(np.load(file, allow_pickle=False))
    except OSError:
        raise
    # NumPy reads the header as Python, and raises whatever the damage causes.
    except Exception as error:
        raise ValueError(
            f"The file {str(file)!r} is no array of numbers as keras_metric writes them: {error}. "
            "Nothing was changed."
        ) from error


def read_names(file):
    """Return what `names.json` says."""
    try:
        return json.loads(file.read_text("ascii"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"The file {str(file)!r} is no JSON: {error}. Nothing was changed."
        ) from error


def check_contents(folder, names, arrays, dim):
    """Raise unless names and arrays fit each other and the width `dim`."""
    wanted = {"ids": list, "labels": list, "columns": list, "next_id": int}
    for part, kind in wanted.items():
        if not isinstance(names, dict) or not isinstance(names.get(part), kind):
            raise _damaged(folder, "names.json", f"`{part}` is missing or of another kind")
    if not isinstance(names.get("coarse"), (dict, type(None))):
        raise _damaged(folder, "names.json", "`coarse` is of another kind")
    size = len(names["ids"])
    for part in ("ids", "labels"):
        _check_names(folder, part, names[part])
    next_id = max((key for key in names["ids"] if isinstance(key, int)), default=-1) + 1
    if names["next_id"] < next_id:
        raise _damaged(folder, "names.json", "`next_id` is the id of an item")
    _check_array(folder, arrays, "vectors", "float32", (size, dim))
    for start in range(0, size, 65536):
        if not np.isfinite(arrays["vectors"][start : start + 65536]).all():
            raise _damaged(folder, "vectors.npy", "it holds NaN or infinity")
    _check_codes(folder, arrays, "labels", size, len(names["labels"]), 0)
    _check_columns(folder, names["columns"], arrays, size)
    if names["coarse"] is not None:
        _check_slots(folder, names["coarse"], arrays, size)


def _check_columns(folder, columns, arrays, size):
    seen = set()
    for number, column in enumerate(columns):
        sound = isinstance(column, dict) and isinstance(column.get("kind"), str)
        sound = sound and column["kind"] in KINDS
        name = column.get("name") if sound else None
        if not isinstance(name, str) or name in seen or not isinstance(column.get("values"), list):
            raise _damaged(folder, "names.json", f"`columns[{number}]` is no attribute")
        seen.add(name)
        if column["kind"] == "string":
            if not all(isinstance(value, str) for value in column["values"]):
                raise _damaged(folder, "names.json", f"`columns[{number}]` holds no strings")
            _check_codes(folder, arrays, f"column-{number}-codes", size, len(column["values"]), -1)
            continue
        for array in KINDS[column["kind"]].arrays:
            _check_array(folder, arrays, f"column-{number}-{array}", _COLUMN_TYPES[array], (size,))
        if column["kind"] == "number":
            whole = arrays[f"column-{number}-numbers"][arrays[f"column-{number}-whole"]]
            # NaN stands for a missing one.
            if not (np.isnan(whole) | ((whole == np.rint(whole)) & np.isfinite(whole))).all():
                raise _damaged(folder, f"column-{number}-numbers.npy", "it holds no whole numbers")
        if column["kind"] == "flag":
            flags = arrays[f"column-{number}-flags"]
            if not np.isin(flags, (-1, 0, 1)).all():
                raise _damaged(folder, f"column-{number}-flags.npy", "it holds no flags")


def _check_slots(folder, coarse, arrays, size):
    for part in ("trained_on", "removed"):
        if type(coarse.get(part)) is not int or coarse[part] < 0:
            raise _damaged(folder, "names.json", f"`coarse` has no number `{part}`")
    rows, slots = arrays.get("coarse-row-of-slot"), arrays.get("coarse-slot-of-row")
    number = len(rows) if isinstance(rows, np.ndarray) and rows.ndim == 1 else 0
    _check_array(folder, arrays, "coarse-row-of-slot", "int64", (number,))
    _check_array(folder, arrays, "coarse-slot-of-row", "int64", (size,))
    fit = not size or (slots.min() >= 0 and slots.max() < number)
    if not fit or not np.array_equal(rows[slots], np.arange(size)):
        raise _damaged(folder, "coarse-slot-of-row.npy", "its slots are not those of the items")
    structure = arrays.get("coarse-structure")
    if not isinstance(structure, np.ndarray) or structure.dtype != "uint8" or structure.ndim != 1:
        raise _damaged(folder, "coarse-structure.npy", "it is missing or no bytes")


def _check_names(folder, part, values):
    try:
        if any(isinstance(value, (list, dict)) for value in values):
            raise TypeError("a list among the names")
        check_distinct(as_names(part, values))
    except (ValueError, TypeError) as error:
        raise _damaged(folder, "names.json", f"`{part}`: {error}") from error


def _check_codes(folder, arrays, name, size, number, least):
    _check_array(folder, arrays, name, "int32", (size,))
    codes = arrays[name]
    if size and not least <= codes.min() <= codes.max() < number:
        raise _damaged(folder, f"{name}.npy", "it numbers names that are not there")


def _check_array(folder, arrays, name, dtype, shape):
    array = arrays.get(name)
    if array is None:
        raise _damaged(folder, f"{name}.npy", "it is missing")
    if array.dtype != dtype or array.shape != shape:
        raise _damaged(
            folder, f"{name}.npy", f"{array.dtype} {array.shape} instead of {dtype} {shape}"
        )


def _damaged(folder, file, what):
    return ValueError(
        f"The file {file!r} of the index {str(folder)!r} does not fit the others: {what}. Restore "
        "the folder from a copy; nothing was changed."
    )
