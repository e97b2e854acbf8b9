"""Permutations that are computed at a place, not stored: the same in every thread and process."""

import numpy as np

_ROUNDS = 6


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

    Element by element; each key is another permutation. A Feistel network is a permutation of
    a power of four; values that land outside the range walk on until they are inside.
    """
    positions, sizes, keys = np.broadcast_arrays(positions, sizes, keys)
    shape = positions.shape
    value, sizes, keys = (a.reshape(-1).astype("uint64") for a in (positions, sizes, keys))
    bits = np.frexp((sizes - np.uint64(1)).astype("float64"))[1]
    half = np.maximum((bits + 1) // 2, 1).astype("uint64")
    outside = np.arange(len(value))
    while len(outside):
        value[outside] = _network(value[outside], half[outside], keys[outside])
        outside = outside[value[outside] >= sizes[outside]]
    return value.reshape(shape).astype("int64")


def _network(value, half, keys):
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for turn in range(_ROUNDS):
        scrambled = _scrambled(right + keys + np.uint64(turn << 40))
        left, right = right, left ^ (scrambled & mask)
    return (left << half) | right


def _scrambled(value):
    """The finaliser of the SplitMix64 generator."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
