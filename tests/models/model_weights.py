"""Weights and outputs of models as NumPy arrays, and the comparison of two models."""

import numpy as np
from keras import ops


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def weights(model):
    """Return the weights of a model, or a list of arrays unchanged."""
    if isinstance(model, (list, tuple)):
        return model
    return [numpy(ops.convert_to_tensor(w)) for w in model.weights]


def check_same_weights(found, expected, rtol=0, atol=0):
    """Compare the weights of two models or two lists of arrays; exactly by default."""
    for a, b in zip(weights(found), weights(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
