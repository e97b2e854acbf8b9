"""Seeded permutations computed element by element, without storing them.

The same arguments give the same result in every thread and process.
"""

import numpy as np

_ROUNDS = 5
_ONE = np.uint64(1)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_SHIFTS = tuple(np.uint64(bits) for bits in (30, 27, 31))
_FACTORS = tuple(np.uint64(factor) for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def hash_words(*words):
    """Return a 64-bit hash for each row of the integer arrays `words`."""
    value = np.zeros(1, dtype="uint64")
    for word in words:
        value = _split_mix(value + np.asarray(word).astype("uint64"))
    return value


def permuted(positions, sizes, keys):
    """Return where a permutation of `range(sizes)`, chosen by `keys`, moves `positions`.

    The arguments are broadcast; each key selects another permutation. A Feistel network permutes
    the cells of a rectangle of at least `sizes` cells: it shifts rows and columns alternately. It
    is applied again to the positions that leave the range (cycle walking).
    """
    positions, sizes, keys = np.broadcast_arrays(positions, sizes, keys)
    shape = positions.shape
    value, sizes, keys = (part.reshape(-1).astype("uint64") for part in (positions, sizes, keys))
    height = np.ceil(np.sqrt(sizes.astype("float64"))).astype("uint64")
    width = (sizes + height - _ONE) // height
    value = _feistel(value, height, width, keys)
    outside = np.flatnonzero(value >= sizes)
    while len(outside):
        moved = _feistel(value[outside], height[outside], width[outside], keys[outside])
        value[outside] = moved
        outside = outside[moved >= sizes[outside]]
    return value.reshape(shape).astype("int64")


def _feistel(value, height, width, keys):
    row, column = np.divmod(value, width)
    for _ in range(_ROUNDS):
        row = (row + _split_mix(column + keys) % height) % height
        keys = keys + _STEP
        column = (column + _split_mix(row + keys) % width) % width
        keys = keys + _STEP
    return row * width + column


def _split_mix(value):
    """The output function of the SplitMix64 generator."""
    value = value + _STEP
    for shift, factor in zip(_SHIFTS, _FACTORS):
        value ^= value >> shift
        value *= factor
    value ^= value >> _SHIFTS[2]
    return value
