"""Limits for the complexity of the losses: calls, files, nesting, and depth of the classes."""

import os
import sys

import keras
import numpy as np
import pytest

import keras_metric
from keras_metric import losses

PACKAGE = os.path.dirname(keras_metric.__file__) + os.sep


def traced(call):
    """Number of calls, set of files, and depth of the package's own frames during `call()`."""
    calls, files, depth, deepest = 0, set(), 0, 0

    def profile(frame, event, _):
        nonlocal calls, depth, deepest
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if event == "call":
            calls, depth = calls + 1, depth + 1
            deepest = max(deepest, depth)
            files.add(frame.f_code.co_filename[len(PACKAGE) :])
        elif event == "return":
            depth -= 1

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return calls, files, deepest


@pytest.mark.parametrize("convert", [np.asarray, keras.ops.convert_to_tensor])
def test_a_default_triplet_loss_is_short(convert):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends trace the loss another number of times")
    y = convert(np.repeat(np.arange(8, dtype="int32"), 2))
    x = convert(np.random.default_rng(0).normal(size=(16, 8)).astype("float32"))
    loss = losses.TripletLoss()
    loss(y, x)  # Lazy initialization of Keras and TensorFlow.
    calls, files, depth = traced(lambda: loss(y, x))
    # A lower limit, so that the test fails if nothing is recorded.
    assert 30 < calls <= 60, calls
    assert len(files) <= 9, sorted(files)
    assert depth <= 14


@pytest.mark.parametrize("name", losses.__all__)
def test_a_loss_has_at_most_three_own_classes(name):
    thing = getattr(losses, name)
    own = [base for base in thing.__mro__ if base.__module__.startswith("keras_metric")]
    assert len(own) <= 3, own
    # One line of ancestors: no base class is initialized by name.
    assert all(len(base.__bases__) == 1 for base in own)
