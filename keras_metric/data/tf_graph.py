"""TensorFlow only: functions of a batch compiled to graphs."""

import tensorflow as tf


def compiled_on_cpu(function):
    """Return `function` traced once for each shape and run on the CPU, from any thread.

    Called eagerly, the layers of Keras dispatch hundreds of small operations for each batch.
    """
    graph = tf.function(function)

    def call(*args):
        # The accelerator is busy with the training step.
        with tf.device("CPU:0"):
            return graph(*args)

    return call
