"""What every custom gradient needs, so that it works alike on all backends."""

from keras import ops


def unwatched(tensors):
    """The same tensors for the inside of a custom gradient.

    In eager TensorFlow a tape would keep every matrix of the forward pass otherwise.
    """
    return tuple(ops.stop_gradient(tensor) for tensor in tensors)


def incoming_gradient(args, upstream):
    """The argument of a custom gradient: torch hands it over by name, the others by position."""
    return args[0] if upstream is None else upstream
