"""Splits by class, and a check that the parts of a split have nothing in common."""

import hashlib
import itertools
import numbers

import keras
import numpy as np

from keras_metric._validation import as_array, check_count, check_number
from keras_metric.data.batches.class_index import number_labels
from keras_metric.data.batches.row_reader import column_as_array


def split_by_class(y, test_size=0.5, validation_size=None, groups=None, seed=0):
    """Split rows so that no class is in two parts.

    The quality of an embedding is measured on classes that it was not trained on; results on the
    training classes are too good.

    Classes are assigned to the parts in random order. With `groups`, classes that have a group in
    common are in the same part (all photos of one person, all frames of one sequence), and so are
    classes that are connected through several groups. A part then gets as many classes as the
    groups allow, at most the requested number.

    Args:
        y: labels of any kind, `(rows,)`.
        test_size: fraction of the classes strictly between 0 and 1, rounded, or an integer number
            of classes. Default 0.5, as usual in metric learning.
        validation_size: None for two parts, or fraction or number of classes of a third part.
        groups: None, or one group of any kind for each row.
        seed: integer of at least 0. The default is fixed, so that training and evaluation
            scripts use the same parts.

    Returns:
        Arrays of row numbers in ascending order: `(train, test)`, or `(train, validation, test)`.

    Raises:
        ValueError: a part would be empty.

    Example:
    >>> import numpy as np
    >>> from keras_metric.data import split_by_class
    >>> y = np.array(["owl", "hen", "owl", "jay", "emu", "hen"])
    >>> train, test = split_by_class(y, test_size=0.5)
    >>> len(set(y[train])), len(set(y[test])), bool(set(y[train]) & set(y[test]))
    (2, 2, False)
    """
    check_count("seed", seed, at_least=0)
    classes, ids = number_labels(y)
    sizes = {"test_size": test_size}
    if validation_size is not None:
        sizes["validation_size"] = validation_size
    sizes = {name: _number_of_classes(name, size, len(classes)) for name, size in sizes.items()}
    if sum(sizes.values()) >= len(classes):
        raise ValueError(
            "The training part must keep at least one class. Received: "
            f"{sizes} of {len(classes)} classes in `y`"
        )
    sets = np.arange(len(classes)) if groups is None else _connected(ids, groups)
    set_sizes = np.bincount(sets)
    order = np.random.default_rng(seed).permutation(len(set_sizes))
    part_of_set = np.zeros(len(set_sizes), dtype="int64")
    for part, (name, size) in enumerate(sizes.items(), start=1):
        chosen = _fill(order[part_of_set[order] == 0], set_sizes, size)
        part_of_set[chosen] = part
        if not chosen or not (part_of_set == 0).any():
            raise ValueError(
                f"`groups` connect classes too closely for a part of {size} classes. Received: "
                f"{name}={size}, {len(classes)} classes in {len(set_sizes)} connected sets of up "
                f"to {set_sizes.max()}. Use another size, or split by coarser labels."
            )
    part_of_row = part_of_set[sets[ids]]
    # Training, validation if there is one, test.
    return tuple(np.flatnonzero(part_of_row == part) for part in [0, 2, 1] if part <= len(sizes))


def check_no_leak(*parts, y=None, groups=None, x=None):
    """Raise if two parts of a split have a row, a class, a group, or a copy of a sample in common.

    Run it once before the first training: with a copy of a test image among the training images,
    or one person in both parts, all evaluation results are too good.

    Args:
        *parts: two or more arrays of row numbers, as `split_by_class` returns them.
        y: None, or labels of all rows, of any kind; no class may be in two parts.
        groups: None, or one group for each row; no group may be in two parts.
        x: None, or the samples, an array with a row for each (or a dict, tuple or list of
            arrays); no row may be equal, bit for bit, to a row of another part.

    Raises:
        ValueError: two parts have something in common; the message names it and the rows.

    Example:
    >>> import numpy as np
    >>> from keras_metric.data import check_no_leak
    >>> y = np.array(["owl", "hen", "owl", "hen"])
    >>> check_no_leak([0, 2], [1, 3], y=y)
    >>> check_no_leak([0, 1], [2, 3], y=y)
    Traceback (most recent call last):
    ...
    ValueError: Parts 0 and 1 must have no class in common. Received: class 'owl' in rows 0 and 2.
    """
    parts = [as_array("parts", part) for part in parts]
    # An empty list has the dtype of floats.
    parts = [part.astype("int64") if part.shape == (0,) else part for part in parts]
    if len(parts) < 2:
        raise ValueError(f"There must be at least two parts. Received: {len(parts)}")
    for part in parts:
        if part.ndim != 1 or part.dtype.kind not in "iu":
            raise TypeError(
                "`parts` must be arrays of row numbers, shape (rows,). Received: dtype "
                f"{part.dtype}, shape {part.shape}. A mask becomes row numbers by "
                "np.flatnonzero(mask)."
            )
    rows = np.concatenate(parts)
    _check_disjoint("row", parts, {row: row for row in rows.tolist()})
    for what, labels in (("class", y), ("group", groups)):
        if labels is not None:
            names, ids = number_labels(labels, name=what, as_ids=what == "class")
            _check_rows(rows, len(ids), what)
            names = names.tolist()
            _check_disjoint(what, parts, {row: names[ids[row]] for row in rows.tolist()})
    if x is not None:
        arrays = [as_array("x", part) for part in keras.tree.flatten(column_as_array(x))]
        for array in arrays:
            if array.ndim == 0:
                raise ValueError(f"`x` must have rows. Received: x={x!r}")
            _check_rows(rows, len(array), "x")
        _check_disjoint(
            "copy of a sample", parts, {row: _digest(arrays, row) for row in rows.tolist()}
        )


def _number_of_classes(name, size, num_classes):
    if isinstance(size, numbers.Integral):
        check_count(name, size)
        return int(size)
    check_number(name, size, above=0)
    if size >= 1:
        raise ValueError(f"`{name}` must be a fraction below 1 or an integer. Received: {size!r}")
    return max(1, round(size * num_classes))


def _fill(candidates, set_sizes, size):
    """Return the first candidates whose sizes fit into `size` classes."""
    chosen = []
    for candidate in candidates:
        if set_sizes[candidate] <= size:
            chosen.append(candidate)
            size -= set_sizes[candidate]
        if size == 0:
            break
    return chosen


def _connected(ids, groups):
    """Number the sets of classes that groups connect; returns one number for each class."""
    _, groups = number_labels(groups, name="groups", as_ids=False)
    if len(groups) != len(ids):
        received = f"len(groups)={len(groups)}, len(y)={len(ids)}"
        raise ValueError(f"`groups` must have one group for each row. Received: {received}")
    edges = np.unique(np.stack([ids, groups], axis=1), axis=0)
    lowest = np.arange(ids.max() + 1)
    while True:
        of_group = np.full(groups.max() + 1, len(lowest))
        np.minimum.at(of_group, edges[:, 1], lowest[edges[:, 0]])
        lower = lowest.copy()
        np.minimum.at(lower, edges[:, 0], of_group[edges[:, 1]])
        lower = lower[lower]  # Halves the length of long chains.
        if (lower == lowest).all():
            return np.unique(lowest, return_inverse=True)[1]
        lowest = lower


def _check_rows(rows, number, what):
    if len(rows) and not 0 <= rows.min() <= rows.max() < number:
        raise ValueError(
            f"`parts` must number rows from 0 to {number - 1}, those of `{what}`. Received: rows "
            f"from {rows.min()} to {rows.max()}"
        )


def _check_disjoint(what, parts, keys):
    first_rows = [{} for _ in parts]
    for rows, part in zip(first_rows, parts):
        for row in part.tolist():
            rows.setdefault(keys[row], row)
    for (i, one), (j, other) in itertools.combinations(enumerate(first_rows), 2):
        common = one.keys() & other.keys()
        if common:
            key = min(common, key=one.get)
            named = f"{what} {key!r} in " if what in ("class", "group") else ""
            raise ValueError(
                f"Parts {i} and {j} must have no {what} in common. Received: {named}rows "
                f"{one[key]} and {other[key]}."
            )


def _digest(arrays, row):
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        sample = array[row : row + 1]
        # The bytes of an object array are memory addresses.
        is_object = sample.dtype.hasobject
        digest.update(repr(sample.tolist()).encode() if is_object else sample.tobytes())
    return digest.digest()
