"""Value and gradient of a function of one tensor on any backend; comparison with a loop."""

import keras
import numpy as np
import reference

BACKEND = keras.backend.backend()
# float64 stays float64 on TensorFlow only: JAX and keras.ops on torch convert it to float32.
DOUBLE = BACKEND == "tensorflow"
DTYPE = "float64" if DOUBLE else "float32"
CLOSE = {"rtol": 1e-9, "atol": 1e-9} if DOUBLE else {"rtol": 1e-4, "atol": 1e-4}
# Central differences of a float64 loop are accurate to about 1e-8.
CLOSE_GRADIENT = {"rtol": 1e-5, "atol": 1e-6} if DOUBLE else {"rtol": 2e-3, "atol": 2e-3}


def agrees(run, loop, x, jit=BACKEND == "jax"):
    """Assert that value and gradient of `run(tensor)` equal those of the NumPy function `loop`."""
    value, gradient = value_and_gradient(run, x.astype(DTYPE), jit)
    np.testing.assert_allclose(value, loop(x), **CLOSE)
    # Random directions: a wrong element of the gradient changes the derivative along each of them.
    directions = np.random.default_rng(0).normal(size=(3, *x.shape))
    along = (directions * gradient).reshape(3, -1).sum(1)
    np.testing.assert_allclose(along, reference.slopes(loop, x, directions), **CLOSE_GRADIENT)


def value_and_gradient(function, x, jit=False):
    """`(value, d value / d x)` as NumPy; `function` takes a tensor and returns a scalar."""
    return differentiated(function, jit)(x)


def differentiated(function, jit=False):
    """Return `run(x, *rest)`: `(value, d value / d x)` of `function(x, *rest)` as NumPy.

    With `jit` the function is compiled, once for each shape of inputs.
    """
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def both(x, *rest):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = function(x, *rest)
            return value, tape.gradient(value, x)

        # Eager by default: tracing a graph takes longer than running it once.
        both = tf.function(both, jit_compile=True) if jit else both
        tensor = tf.constant
    elif BACKEND == "jax":
        import jax

        gradient_of = jax.value_and_grad(function)
        both = jax.jit(gradient_of) if jit else step_by_step(gradient_of)
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
        value, gradient = both(*(None if array is None else tensor(array) for array in inputs))
        return tuple(np.asarray(keras.ops.convert_to_numpy(v)) for v in (value, gradient))

    return run


def step_by_step(function):
    """`function` without compilation; JAX otherwise compiles a loop again at every call."""
    if BACKEND != "jax":
        return function
    import jax

    def run(*args, **kwargs):
        with jax.disable_jit():
            return function(*args, **kwargs)

    return run
