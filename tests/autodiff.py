"""Value and gradient of a function of one tensor, on whichever backend runs."""

import keras
import numpy as np


def value_and_gradient(function, x, jit=False):
    """`(value, d value / d x)` as NumPy; `function` takes a tensor and returns a scalar."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def run(tensor):
            with tf.GradientTape() as tape:
                tape.watch(tensor)
                value = function(tensor)
            return value, tape.gradient(value, tensor)

        # Eager unless asked for: tracing a graph takes longer than running it once.
        compiled = tf.function(run, jit_compile=True) if jit else run
        value, slope = compiled(tf.constant(x))
    elif backend == "jax":
        import jax

        run = jax.value_and_grad(function)
        value, slope = (jax.jit(run) if jit else run)(jax.numpy.asarray(x))
    else:
        import torch

        tensor = torch.tensor(np.asarray(x), requires_grad=True)
        value = function(tensor)
        value.backward()
        slope = tensor.grad
    return np.asarray(keras.ops.convert_to_numpy(value)), np.asarray(
        keras.ops.convert_to_numpy(slope)
    )
