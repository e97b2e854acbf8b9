"""Value and gradient of a function of one tensor, on whichever backend runs."""

import keras
import numpy as np


def value_and_gradient(function, x, jit=False):
    """`(value, d value / d x)` as NumPy; `function` takes a tensor and returns a scalar."""
    return differentiated(function, jit)(x)


def differentiated(function, jit=False):
    """`run(x, *rest)` gives `(value, d value / d x)` of `function(x, *rest)` as NumPy.

    With `jit` the function is compiled, once for each shape that `run` meets.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def both(x, *rest):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = function(x, *rest)
            return value, tape.gradient(value, x)

        # Eager unless asked for: tracing a graph takes longer than running it once.
        both = tf.function(both, jit_compile=True) if jit else both
        tensor = tf.constant
    elif backend == "jax":
        import jax

        slope_of = jax.value_and_grad(function)
        both = jax.jit(slope_of) if jit else step_by_step(slope_of)
        tensor = jax.numpy.asarray
    else:
        import torch

        def both(x, *rest):
            x.requires_grad_(True)
            value = function(x, *rest)
            value.backward()
            return value, x.grad

        def tensor(x):
            return torch.tensor(np.asarray(x))

    def run(*inputs):
        value, slope = both(*(None if array is None else tensor(array) for array in inputs))
        return tuple(np.asarray(keras.ops.convert_to_numpy(v)) for v in (value, slope))

    return run


def step_by_step(function):
    """`function` as it stands; on JAX a loop would else be compiled anew at every call."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    def run(*args, **kwargs):
        with jax.disable_jit():
            return function(*args, **kwargs)

    return run
