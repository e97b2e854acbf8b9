"""Losses and gradients of tensorflow-addons, for the tests of another process.

It cannot be imported together with Keras 3, so this file runs under a separate interpreter. It
reads a JSON list of requests {"loss", "arguments", "x", "y", "dtype", "sparse"}, the last two
optional, and prints a JSON list of [value, gradient]. A "distance_metric" in METRICS is replaced by
the function.
"""

import json
import os
import sys

METRICS = {
    # Not a distance: it can be negative, and its diagonal is not zero.
    "minus product": lambda matmul, x: 0.3 - matmul(x, x),
    "skew": lambda matmul, x: matmul(x, x[:, ::-1]) + matmul(x**2, 0 * x + 1),
}


def answer(tf, losses, loss, arguments, x, y, dtype="float32", sparse=False):
    x, y = tf.constant(x, dtype), tf.constant(y)
    chosen = METRICS.get(arguments.get("distance_metric"))
    if chosen:

        def metric(x):
            return chosen(lambda a, b: tf.matmul(a, b, transpose_b=True), x)

        arguments = {**arguments, "distance_metric": metric}
    if sparse:
        y = tf.sparse.from_dense(y)
    thing = getattr(losses, loss)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = thing(**arguments)(y, x) if isinstance(thing, type) else thing(y, x, **arguments)
        total = tf.reduce_sum(value)
    # The gradient of a gather is an IndexedSlices.
    gradient = tf.convert_to_tensor(tape.gradient(total, x))
    return [tf.cast(v, "float64").numpy().tolist() for v in (value, gradient)]


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import tensorflow as tf
    import tensorflow_addons as tfa

    # Tracing its functions for each shape takes longer than running them eagerly.
    tf.config.run_functions_eagerly(True)
    json.dump([answer(tf, tfa.losses, **question) for question in json.load(sys.stdin)], answers)


if __name__ == "__main__":
    main()
