"""Changes that turn valid arguments into unusual or invalid ones, and what a call may do then.

A `Recipe` is a call of a public name with valid inputs. Each input is of a kind, and each kind has
two sets of changes. After a change of SAME (a list, a wider integer, a strided view) the result
must be equal. After a change of ODD the call returns a finite result, or it raises a ValueError or
TypeError in this package that names the argument.
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
HUGE = 1e18  # its square is finite in float32


class Recipe(NamedTuple):
    """`call(**inputs)` with valid `inputs`, `{argument: (kind, value)}`.

    `by_row`: inputs with a value for each row; a case shortens all of them together.
    `also`: names that an error may use instead of an argument's name.
    `keras`: the call passes through a Keras layer or model, which raises its own errors.
    `nan`: NaN is a documented result of finite inputs.
    `exact`: the result of the same values in another form is equal.
    `skip`: changes that are not made; a comment gives the reason.
    `jax`: False for calls that take too long on JAX.
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


def _swapped(value):
    return value.astype(value.dtype.newbyteorder())


def _pandas(value):
    import pandas

    return pandas.Series(value) if value.ndim == 1 else pandas.DataFrame(value)


def _put(value, what, dtype=None):
    """A copy of an array with another last element."""
    if dtype is None:
        dtype = "float64" if value.dtype.kind in "iu" else value.dtype
    result = np.array(value, dtype)
    result.reshape(-1)[-1] = what
    return result


def _read_only(value):
    value = value.copy()
    value.flags.writeable = False
    return value


def _as_rank(rank):
    def change(value):
        return value.reshape(*value.shape, *(1,) * (rank - value.ndim))

    return lambda v: change(v) if v.ndim < rank else v[None]


_VIEWS = {"a strided view": lambda v: np.repeat(v, 2, axis=0)[::2], "read only": _read_only}
_FLOAT64 = {"float64": lambda v: v.astype("float64")}
_LIST = {"a list": lambda v: v.tolist()}
# The result after these changes is equal.
SAME = {
    "vectors": {
        **{**_VIEWS, **_FLOAT64, **_LIST},
        "Fortran order": np.asfortranarray,
        "a tuple of arrays": tuple,
        "a data frame": _pandas,
    },
    "labels": {
        **{**_VIEWS, **_LIST},
        "a column": lambda v: v[:, None],
        "int64": lambda v: v.astype("int64"),
        "int8": lambda v: v.astype("int8"),
        "uint16": lambda v: v.astype("uint16"),
        "a tuple": lambda v: tuple(v.tolist()),
        "a series": _pandas,
    },
    "scores": {**_VIEWS, **_FLOAT64, **_LIST, "a series": _pandas},
    "flags": {"booleans": lambda v: v.astype(bool), **_FLOAT64, **_LIST, "a series": _pandas},
    "samples": {**_VIEWS, **_FLOAT64, "a data frame": _pandas},
    "images": _VIEWS,
    "text": {},
    "setting": {},
}
SAME["views"] = {"a strided view": _VIEWS["a strided view"], **_FLOAT64, **_LIST}
SAME["rows"] = {name: SAME["labels"][name] for name in ("a list", "int64", "a series")}
SAME["ids"] = {**SAME["labels"], "negative": lambda v: v - 100, "far apart": lambda v: v * 10**6}
SAME["any labels"] = {
    **SAME["ids"],
    "strings": lambda v: np.array([f"class {label:03}" for label in v]),
    "objects": lambda v: np.array([f"class {label:03}" for label in v], object),
    "64 bits": lambda v: v.astype("int64") + 2**40,
    "unsigned 64 bits": lambda v: v.astype("uint64") + np.uint64(2**63),
}
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
    "rank 3": _as_rank(3),
    "rank 4": _as_rank(4),
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
# Views (items, branches, dim); images (items, height, width, channels).
ODD["views"] = ODD["images"] = {**_ODD, **_NUMBERS}
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

# Values for every setting: none of them may end in an error of another package.
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
# Values that every argument refuses.
INVALID_EVERYWHERE = ("NaN", "an object")
ODD["setting"] = {name: (lambda v, value=value: value) for name, value in SETTINGS.items()}
# Numbers of rows that all inputs are shortened to.
ROWS_LEFT = (0, 1, 2)


def cases(recipe):
    """Every `(argument, change)` of a recipe; `("rows", n)` shortens the inputs to n rows."""
    for argument, (kind, _) in recipe.inputs.items():
        yield from ((argument, f"= {name}") for name in SAME[kind])
        yield from ((argument, name) for name in ODD[kind] if name not in recipe.skip)
    if recipe.by_row:
        yield from (("rows", count) for count in ROWS_LEFT)


def valid_inputs(recipe):
    return {name: value for name, (_, value) in recipe.inputs.items()}


def changed(recipe, argument, change):
    """The inputs of a recipe after a change, and whether the result must be equal."""
    inputs = valid_inputs(recipe)
    if argument == "rows":
        return inputs | {name: inputs[name][:change] for name in recipe.by_row}, False
    kind, value = recipe.inputs[argument]
    same = change.startswith("= ")
    make = SAME[kind][change[2:]] if same else ODD[kind][change]
    return {**inputs, argument: make(value)}, same


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
    """`(result, None)` or `(None, error)`; warnings to the user are allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return recipe.call(**inputs), None
        except Exception as error:
            return None, error


def names_one_of(names, text):
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names)


def fault_of_error(error, names, through_keras=False):
    """The fault of an error as text, empty if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}"
    if through_keras and "/keras/src/trainers/" in frames[-1].filename:
        return ""  # On torch and JAX Keras reads the shape of y before it calls the model.
    if type(error) not in (ValueError, TypeError):
        return f"{type(error).__name__} from {where}: {error}"
    ours = frames[-1].filename.startswith(PACKAGE)
    if through_keras and not any(frame.filename.startswith(PACKAGE) for frame in frames):
        return ""  # Keras refused it before it reached this package.
    of_keras = re.search("/keras/src/|/optree/", frames[-1].filename)
    if not ours and not (through_keras and of_keras):
        return f"{type(error).__name__} of {where}, which is not ours: {error}"
    if through_keras and "Arguments received by" in str(error):
        return ""  # Keras lists them.
    if ours and not names_one_of(names, str(error)):
        return f"{where} names none of {sorted(names)}: {error}"
    return ""


def fault_of_case(recipe, argument, change, baseline):
    """The fault of the call after a change as text, empty if there is none."""
    inputs, same = changed(recipe, argument, change)
    finite = numbers_are_finite(inputs)
    result, error = run(recipe, inputs)
    if error is not None:
        if same and recipe.exact:
            return f"the same values in another form raise {error!r}"
        return fault_of_error(error, {*recipe.inputs, *recipe.also}, recipe.keras)
    if finite and not recipe.nan and not numbers_are_finite(result):
        return f"finite numbers give {result!r}"
    if same and recipe.exact and not agree(result, baseline):
        return f"the same values in another form give {result!r} instead of {baseline!r}"
    return ""


def agree(one, other):
    """Whether two results are equal except for rounding."""
    if isinstance(one, Mapping):
        # Keys may hold labels, which differ between the forms.
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
