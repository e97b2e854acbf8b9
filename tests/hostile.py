"""Values that no careful caller would pass, and what an answer to them must be like.

A `Recipe` says how a public name is called with sound inputs. Each input is of a kind, and each
kind has its changes: those under which the answer must stay what it was (a list, another width of
integer, a strided view), and those under which anything goes that a user can read: a finite answer,
or a ValueError or TypeError raised by this package that names the argument.
"""

import math
import re
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_metric

PACKAGE = str(Path(keras_metric.__file__).parent)
HUGE = 1e18  # its square is a float32


class Recipe(NamedTuple):
    """`call(**inputs)` with sound `inputs`, `{argument: (kind, value)}`.

    `by_row`: the inputs whose rows belong together and are cut off together.
    `also`: names that a message may use instead of an argument's.
    `keras`: the call goes through a Keras layer or model, which has errors of its own.
    `nan`: NaN is a documented answer, also to sound numbers: nothing could be measured.
    `exact`: the answer to the same values in another form is the same.
    `skip`: changes that are not made; a comment gives the reason.
    `jax`: False for what takes too long there.
    """

    call: Callable
    inputs: Mapping[str, tuple[str, Any]] = {}
    by_row: tuple = ()
    also: tuple = ()
    keras: bool = False
    nan: bool = False
    exact: bool = True
    jax: bool = True
    skip: tuple = ()


def _strided(value):
    wide = np.repeat(value, 2, axis=0)
    return wide[::2]


def _swapped(value):
    return value.astype(value.dtype.newbyteorder())


def _pandas(value):
    import pandas

    return pandas.Series(value) if value.ndim == 1 else pandas.DataFrame(value)


def _put(value, what, dtype=None):
    if dtype is None:
        dtype = "float64" if value.dtype.kind in "iu" else value.dtype
    result = np.array(value, dtype)
    result.reshape(-1)[-1] = what
    return result


def _read_only(value):
    value = value.copy()
    value.flags.writeable = False
    return value


# Under these an answer is what it was.
SAME = {
    "vectors": {
        "a strided view": _strided,
        "Fortran order": np.asfortranarray,
        "read only": _read_only,
        "float64": lambda v: v.astype("float64"),
        "a list": lambda v: v.tolist(),
        "a tuple of arrays": lambda v: tuple(v),
        "a data frame": _pandas,
    },
    "labels": {
        "a strided view": _strided,
        "read only": _read_only,
        "a column": lambda v: v[:, None],
        "int64": lambda v: v.astype("int64"),
        "int8": lambda v: v.astype("int8"),
        "uint16": lambda v: v.astype("uint16"),
        "a list": lambda v: v.tolist(),
        "a tuple": lambda v: tuple(v.tolist()),
        "a series": _pandas,
    },
    "scores": {
        "a strided view": _strided,
        "read only": _read_only,
        "float64": lambda v: v.astype("float64"),
        "a list": lambda v: v.tolist(),
        "a series": _pandas,
    },
    "flags": {
        "booleans": lambda v: v.astype(bool),
        "float64": lambda v: v.astype("float64"),
        "a list": lambda v: v.tolist(),
        "a series": _pandas,
    },
}
SAME["ids"] = {**SAME["labels"], "negative": lambda v: v - 100, "far apart": lambda v: v * 10**6}
SAME["any labels"] = {
    **SAME["ids"],
    "strings": lambda v: np.array([f"class {label:03}" for label in v]),
    "objects": lambda v: np.array([f"class {label:03}" for label in v], object),
    "64 bits": lambda v: v.astype("int64") + 2**40,
    "unsigned 64 bits": lambda v: v.astype("uint64") + np.uint64(2**63),
}
SAME["samples"] = {
    name: SAME["vectors"][name] for name in ("a strided view", "read only", "a data frame")
}
SAME["samples"]["float64"] = SAME["vectors"]["float64"]

_ODD = {
    "none": lambda v: None,
    "a string": lambda v: "no such thing",
    "a number": lambda v: 3,
    "a dict": lambda v: {"a": 1},
    "a generator": lambda v: (row for row in v),
    "a set": lambda v: {1, 2},
    "an object": lambda v: object(),
    "an empty list": lambda v: [],
    "a ragged list": lambda v: [[1.0, 2.0], [3.0]],
    "rank 0": lambda v: np.asarray(v.reshape(-1)[0]),
    "rank 3": lambda v: v.reshape(*v.shape, *(1,) * (3 - v.ndim)) if v.ndim < 3 else v[None],
    "rank 4": lambda v: v.reshape(*v.shape, *(1,) * (4 - v.ndim)) if v.ndim < 4 else v[None],
    "a row less": lambda v: v[:-1],
    "a row more": lambda v: np.concatenate([v, v[:1]]),
    "no rows": lambda v: v[:0],
    "strings of letters": lambda v: np.full(v.shape, "x"),
    "objects without order": lambda v: _put(v, None, object),
    "complex": lambda v: v.astype("complex64"),
    "dates": lambda v: np.full(v.shape, np.datetime64("2020-01-01")),
    "records": lambda v: np.zeros(v.shape, [("a", "f4")]),
    "big endian": _swapped,
}
_NUMBERS = {
    "NaN": lambda v: _put(v, np.nan),
    "infinity": lambda v: _put(v, np.inf),
    "minus infinity": lambda v: _put(v, -np.inf),
    "all NaN": lambda v: np.full(v.shape, np.nan, "float32"),
    "huge": lambda v: v * np.float32(HUGE),
    "one huge": lambda v: _put(v, HUGE),
    "tiny": lambda v: v * np.float32(1e-30),
    "zeros": np.zeros_like,
    "all equal": np.ones_like,
    "float16": lambda v: v.astype("float16"),
    "integers": lambda v: (10 * v).astype("int32"),
    "bytes": lambda v: np.abs(10 * v).astype("uint8"),
    "booleans": lambda v: v > 0,
}
ODD = {
    "vectors": {
        **_ODD,
        **_NUMBERS,
        "rank 1": lambda v: v.reshape(-1)[: len(v)],
        "no width": lambda v: v[:, :0],
        "one wide": lambda v: v[:, :1],
        "a zero vector": lambda v: np.where(np.arange(len(v))[:, None] == 1, 0, v),
    },
    "labels": {
        **_ODD,
        "one-hot": lambda v: np.eye(4, dtype="int32")[v % 4],
        "floats": lambda v: v.astype("float32"),
        "NaN": lambda v: _put(v, np.nan, "float32"),
        "infinity": lambda v: _put(v, np.inf, "float64"),
        "booleans": lambda v: v > 0,
        "strings": lambda v: v.astype(str),
        "bytes": lambda v: v.astype("S2"),
        "huge": lambda v: _put(v, 2**40, "int64"),
        "beyond 64 bits": lambda v: [10**30, *v.tolist()[1:]],
        "largest unsigned": lambda v: _put(v, 2**64 - 1, "uint64"),
        "smallest": lambda v: _put(v, -(2**63), "int64"),
        "negative": lambda v: v - 100,
        "one class": np.zeros_like,
        "all different": lambda v: np.arange(len(v), dtype=v.dtype),
        "mixed types": lambda v: [1, "b", 2.5, *v.tolist()[3:]],
    },
}
ODD["scores"] = ODD["flags"] = {**_ODD, **_NUMBERS, "rank 2": lambda v: np.stack([v, v], 1)}
ODD["ids"] = ODD["any labels"] = ODD["rows"] = ODD["labels"]
ODD["samples"] = ODD["vectors"]
# (items, branches, dim), and pictures (items, height, width, channels).
ODD["views"] = ODD["images"] = {**_ODD, **_NUMBERS}
SAME["views"] = {name: SAME["vectors"][name] for name in ("a strided view", "float64", "a list")}
SAME["images"] = {name: SAME["vectors"][name] for name in ("a strided view", "read only")}
SAME["rows"] = {name: SAME["labels"][name] for name in ("a list", "int64", "a series")}
SAME["text"] = {}
ODD["text"] = {
    name: _ODD[name] for name in ("none", "a number", "a dict", "a set", "an object", "a generator")
} | {
    "empty": lambda v: "",
    "nothing there": lambda v: "no/such/path",
    "a null": lambda v: "a\0b",
    "very long": lambda v: "x" * 5000,
    "a folder above": lambda v: "..",
    "a list": lambda v: [v],
}

# For settings: whatever they are, none of these may end in an error from below.
SETTINGS = {
    "None": None,
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "a string": "no such thing",
    "a list": [],
    "a dict": {},
    "True": True,
    "an object": object(),
    "an array": np.ones((2, 2), "float32"),
}
# Those that no argument can have a use for.
NOTHING_TAKES = ("NaN", "an object")
SAME["setting"] = {}
ODD["setting"] = {name: (lambda v, value=value: value) for name, value in SETTINGS.items()}
# A number of rows that are left, of all inputs together.
CUTS = (0, 1, 2)


def cases(recipe):
    """Every `(argument, change)` of a recipe's inputs; `("rows", n)` cuts all of them."""
    for argument, (kind, _) in recipe.inputs.items():
        if kind in SAME:
            yield from ((argument, f"= {name}") for name in SAME[kind])
            yield from ((argument, name) for name in ODD[kind] if name not in recipe.skip)
    if recipe.by_row:
        yield from (("rows", count) for count in CUTS)


def changed(recipe, argument, change):
    """The inputs of a recipe after a change, and whether the answer must stay the same."""
    inputs = {name: value for name, (_, value) in recipe.inputs.items()}
    if argument == "rows":
        return {
            name: value[:change] if name in recipe.by_row else value
            for name, value in inputs.items()
        }, False
    kind, value = recipe.inputs[argument]
    same = isinstance(change, str) and change.startswith("= ")
    make = SAME[kind][change[2:]] if same else ODD[kind][change]
    return {**inputs, argument: make(value)}, same


def sound(inputs):
    """Whether every number among the inputs is finite."""
    return all(numbers_are_finite(value) for value in inputs.values())


def numbers_are_finite(value):
    """Whether every float in a structure of arrays, tensors and numbers is finite."""
    if isinstance(value, Mapping):
        return all(numbers_are_finite(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return all(numbers_are_finite(part) for part in value)
    if keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    if isinstance(value, (float, np.ndarray, np.generic)):
        array = np.asarray(value)
        return array.dtype.kind not in "fc" or bool(np.isfinite(array.astype("complex128")).all())
    return True


def run(recipe, inputs):
    """`(answer, None)` or `(None, error)`; warnings to the user are no fault here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return recipe.call(**inputs), None
        except Exception as error:
            return None, error


def fault_of_error(error, names, through_keras=False):
    """What is wrong with an error, or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}"
    if type(error) not in (ValueError, TypeError):
        return f"{type(error).__name__} from {where}: {error}"
    ours = frames[-1].filename.startswith(PACKAGE)
    if through_keras and not any(frame.filename.startswith(PACKAGE) for frame in frames):
        return ""  # Keras refused it before we saw it.
    if not ours and not (through_keras and "/keras/src/" in frames[-1].filename):
        return f"{type(error).__name__} of {where}, which is not ours: {error}"
    text = str(error)
    if through_keras and "Arguments received by" in text:
        return ""  # Keras lists them.
    if ours and not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names):
        return f"{where} names none of {sorted(names)}: {text}"
    return ""


def fault_of_case(recipe, argument, change, baseline):
    """What is wrong with the answer to a change, or nothing."""
    inputs, same = changed(recipe, argument, change)
    finite = sound(inputs)
    answer, error = run(recipe, inputs)
    if error is not None:
        if same and recipe.exact:
            return f"the same in another form raises {error!r}"
        return fault_of_error(error, {*recipe.inputs, *recipe.also}, recipe.keras)
    if finite and not recipe.nan and not numbers_are_finite(answer):
        return f"finite numbers in, and out comes {answer!r}"
    if same and recipe.exact and not agree(answer, baseline):
        return f"the same in another form gives {answer!r} instead of {baseline!r}"
    return ""


def agree(one, other):
    """Whether two answers are equal but for rounding."""
    if isinstance(one, Mapping):
        # Keys may hold a label, which another form spells in another way.
        return len(one) == len(other) and all(map(agree, one.values(), other.values()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(agree, one, other))
    if keras.ops.is_tensor(one):
        one, other = keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
    if isinstance(one, (float, np.ndarray, np.generic)):
        one, other = np.asarray(one), np.asarray(other)
        if one.dtype.kind not in "biuf" or one.shape != other.shape:
            return one.shape == other.shape
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))
    return True
