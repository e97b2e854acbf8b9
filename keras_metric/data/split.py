"""Splits whose parts have no class in common."""

import numbers

import numpy as np

from keras_metric._validation import check_count, check_number
from keras_metric.data.batches.class_index import number_labels


def split_by_class(y, test_size=0.5, validation_size=None, groups=None, seed=0):
    """Split rows so that no class is in two parts.

    What an embedding is worth shows on classes it never trained on; a split inside the classes
    flatters it.

    Classes go to the parts in random order. With `groups`, classes that have a group in common
    stay together (all photos of one person, all frames of one sequence), and so do classes that
    such groups link; a part then gets as many classes as the groups allow, never more than asked.

    Args:
        y: labels of any kind, `(rows,)`.
        test_size: share of the classes strictly between 0 and 1, rounded, or an integer number
            of classes. The default, half, is the custom in metric learning.
        validation_size: None for two parts, or share or number of classes for a third part.
        groups: None, or one group of any kind for each row.
        seed: integer of at least 0. The default is fixed, so that training and evaluation
            scripts agree on the parts.

    Returns:
        Arrays of row numbers in rising order: `(train, test)`, or `(train, validation, test)`.

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
    sizes = {"test_size": _number_of_classes("test_size", test_size, len(classes))}
    if validation_size is not None:
        sizes["validation_size"] = _number_of_classes(
            "validation_size", validation_size, len(classes)
        )
    if sum(sizes.values()) >= len(classes):
        raise ValueError(
            "The training part must keep at least one class. Received: "
            f"{sizes} of {len(classes)} classes in `y`"
        )
    units = np.arange(len(classes)) if groups is None else _linked(ids, groups)
    unit_sizes = np.bincount(units)
    order = np.random.default_rng(seed).permutation(len(unit_sizes))
    part_of_unit = np.zeros(len(unit_sizes), dtype="int64")
    for part, (name, wanted) in enumerate(sizes.items(), start=1):
        chosen = _fill(order[part_of_unit[order] == 0], unit_sizes, wanted)
        part_of_unit[chosen] = part
        if not chosen or not (part_of_unit == 0).any():
            raise ValueError(
                f"`groups` link classes too closely for a part of {wanted} classes. Received: "
                f"{name}={wanted}, {len(classes)} classes in {len(unit_sizes)} linked sets of up "
                f"to {unit_sizes.max()}. Ask for another size, or split by coarser labels."
            )
    part_of_row = part_of_unit[units[ids]]
    # Training, validation if asked for, test.
    return tuple(np.flatnonzero(part_of_row == part) for part in [0, 2, 1] if part <= len(sizes))


def _number_of_classes(name, size, num_classes):
    if isinstance(size, numbers.Integral):
        check_count(name, size)
        return int(size)
    check_number(name, size, above=0)
    if size >= 1:
        raise ValueError(
            f"`{name}` must be a share below 1 or an integer number of classes. "
            f"Received: {name}={size!r}"
        )
    return max(1, round(size * num_classes))


def _fill(candidates, unit_sizes, wanted):
    chosen = []
    for unit in candidates:
        if unit_sizes[unit] <= wanted:
            chosen.append(unit)
            wanted -= unit_sizes[unit]
        if wanted == 0:
            break
    return chosen


def _linked(ids, groups):
    """Number the sets of classes that groups link; one number for each class."""
    _, groups = number_labels(groups, name="groups", as_ids=False)
    if len(groups) != len(ids):
        raise ValueError(
            "`groups` must have one group for each row of `y`. Received: "
            f"len(groups)={len(groups)}, len(y)={len(ids)}"
        )
    links = np.unique(np.stack([ids, groups], axis=1), axis=0)
    lowest = np.arange(ids.max() + 1)
    while True:
        of_group = np.full(groups.max() + 1, len(lowest))
        np.minimum.at(of_group, links[:, 1], lowest[links[:, 0]])
        lower = lowest.copy()
        np.minimum.at(lower, links[:, 0], of_group[links[:, 1]])
        lower = lower[lower]  # Long chains of links shorten by half.
        if (lower == lowest).all():
            return np.unique(lowest, return_inverse=True)[1]
        lowest = lower
