"""Permutations that are computed at a place, not stored: the same in every thread and process."""

import numpy as np

_ROUNDS = 5
_ONE = np.uint64(1)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_SHIFTS = tuple(np.uint64(bits) for bits in (30, 27, 31))
_FACTORS = tuple(np.uint64(factor) for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def new_seed(seed):
    """Return `seed`, or for None a seed from NumPy's global generator.

    `keras.utils.set_random_seed` seeds that generator, and so a run that calls it stays
    reproducible where no seed was given.
    """
    return int(np.random.randint(2**31)) if seed is None else int(seed)


def mixed(*words):
    """Return a well-mixed 64-bit number for each row of the integer arrays `words`."""
    value = np.zeros(1, dtype="uint64")
    for word in words:
        value = _scrambled(value + np.asarray(word).astype("uint64"))
    return value


def shuffled(positions, sizes, keys):
    """Return where `positions` go in a permutation of `range(sizes)` that `keys` names.

    Element by element; each key is another permutation. A position is a place in a rectangle of
    about `sizes` cells, whose rows and columns are turned in turn (a Feistel network): that is a
    permutation of the cells, and who lands on a cell outside the range walks on until inside.
    """
    positions, sizes, keys = np.broadcast_arrays(positions, sizes, keys)
    shape = positions.shape
    value, sizes, keys = (part.reshape(-1).astype("uint64") for part in (positions, sizes, keys))
    height = np.ceil(np.sqrt(sizes.astype("float64"))).astype("uint64")
    width = (sizes + height - _ONE) // height
    value = _turned(value, height, width, keys)
    outside = np.flatnonzero(value >= sizes)
    while len(outside):
        moved = _turned(value[outside], height[outside], width[outside], keys[outside])
        value[outside] = moved
        outside = outside[moved >= sizes[outside]]
    return value.reshape(shape).astype("int64")


def _turned(value, height, width, keys):
    row, column = np.divmod(value, width)
    for _ in range(_ROUNDS):
        row = (row + _scrambled(column + keys) % height) % height
        keys = keys + _STEP
        column = (column + _scrambled(row + keys) % width) % width
        keys = keys + _STEP
    return row * width + column


def _scrambled(value):
    """The finaliser of the SplitMix64 generator."""
    value = value + _STEP
    value ^= value >> _SHIFTS[0]
    value *= _FACTORS[0]
    value ^= value >> _SHIFTS[1]
    value *= _FACTORS[1]
    value ^= value >> _SHIFTS[2]
    return value
