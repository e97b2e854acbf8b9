"""Functions of a batch, compiled by whichever backend runs."""

import keras
from keras import ops


def compiled_on_cpu(function, whole=True):
    """Return `function` compiled once for each shape and run on the CPU, from any thread.

    Called eagerly, the layers of Keras dispatch hundreds of small operations for each batch. The
    accelerator is left to the training step. `whole=False` says that XLA cannot compile it.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(function)
    elif backend == "jax" and whole:
        import jax

        function = jax.jit(function)

    def call(x, *args):
        with keras.device("cpu:0"):
            return function(ops.convert_to_tensor(x), *args)

    return call
