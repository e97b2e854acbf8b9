"""Masks of the positions that a pooling layer uses."""

from keras import ops


def check_steps(mask, sequence):
    """Raise if `mask` is not of the shape (batch, steps) of `sequence`."""
    if not _fits(mask.shape, sequence.shape[:2]):
        raise ValueError(
            "The mask must have the batch and steps of the sequence to pool. Received: "
            f"mask.shape={tuple(mask.shape)}, sequence.shape={tuple(sequence.shape)}. Pool inside "
            "the backbone, or pass a `pooling` layer whose `call` has no argument `mask`."
        )


def position_mask(mask, x, features_first):
    """Return `mask` as booleans of the shape of `x`: True for positions to use.

    `mask` is None, or a tensor `(batch, steps)`; for a map, of any leading part of (batch,
    positions). 0 or False marks padding. `features_first`: whether axis 1 of `x` is the features.

    Returns None without a mask, and for a map whose mask has other positions: layers that change
    the size of a map, such as TimeDistributed(Conv2D), return the mask of their input. Raises
    ValueError if the mask of a sequence has other steps.
    """
    if mask is None:
        return None
    shape = tuple(x.shape)
    if len(shape) == 3:
        check_steps(mask, x)
    if not _fits(mask.shape, (shape[0], *shape[2:]) if features_first else shape[:-1]):
        return None
    keep = ops.cast(mask, "bool")
    if features_first:
        keep = ops.expand_dims(keep, 1)
    for _ in range(len(shape) - len(keep.shape)):
        keep = ops.expand_dims(keep, -1)
    return ops.logical_and(keep, ops.ones_like(x, dtype="bool"))


def _fits(given, expected):
    """Whether the shape `given` is the beginning of `expected`; None matches any size."""
    return 2 <= len(given) <= len(expected) and all(
        m == n for m, n in zip(given, expected) if None not in (m, n)
    )
