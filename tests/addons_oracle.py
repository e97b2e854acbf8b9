"""Losses and gradients of tensorflow-addons, for the tests of another process.

It cannot be imported beside Keras 3, so this file runs under a Python of its own. Reads one JSON
object {"x": [[...]], "y": [...], "calls": [[loss, arguments], ...]} and prints a JSON list of
[value, gradient].
"""

import json
import os
import sys


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import tensorflow as tf
    import tensorflow_addons as tfa

    case = json.load(sys.stdin)
    x, y = tf.constant(case["x"], tf.float32), tf.constant(case["y"], tf.int32)
    results = []
    for name, arguments in case["calls"]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = getattr(tfa.losses, name)(**arguments)(y, x)
        slope = tf.convert_to_tensor(tape.gradient(value, x))
        results.append([float(value), slope.numpy().tolist()])
    json.dump(results, answers)


if __name__ == "__main__":
    main()
