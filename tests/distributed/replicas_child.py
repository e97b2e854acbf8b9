"""Script of test_replicas.py: loss and gradient on four logical devices and on one, write JSON.

    python replicas_child.py OUT PART PARTS

Runs every loss of the package at its defaults, and every strategy of the triplet loss, on 1 to 9
items, so that one to three of the four replicas may have no item at all.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

# The logical devices must be configured before any computation.
DEVICES = 4
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * DEVICES)
strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(DEVICES)])

import test_contract as contract  # noqa: E402

from keras_metric.layers import CrossBatchMemory  # noqa: E402

ITEMS = range(1, 10)
CASES = [c for c in contract.STEADY if not c[1] or c[0] == "TripletLoss" and "mining" in c[1]]
CASES.append(("ContrastiveLoss", {"memory": CrossBatchMemory(40)}))


def build(case):
    name, settings = case
    if name == "SimSiamLoss":
        # At this width the default predictor has one hidden unit: its gradient is zero.
        initializer = keras.initializers.RandomNormal(seed=1)
        predictor = keras.layers.Dense(contract.DIM, kernel_initializer=initializer)
        settings = {**settings, "predictor": predictor}
    return contract.build((name, settings))


def value_and_gradient(loss, labels, embeddings, weights):
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings, weights)
    return value, tape.gradient(value, embeddings)


def part_of_replica(rows):
    """Return the rows of this replica, split like Keras splits a batch."""
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    each = (tf.shape(rows)[0] + DEVICES - 1) // DEVICES
    return rows[number * each :][:each]


def compare(case):
    """Return values, the largest gradient and its error for each number of items."""
    one = build(case)
    with strategy.scope():
        many = build(case)
    has_weights = contract.weights_of(case) is not None

    def on_one_device(*batch):
        return value_and_gradient(one, *batch[:2], batch[2] if has_weights else None)

    def on_replicas(*batch):
        def replica():
            part = [part_of_replica(rows) for rows in batch]
            return value_and_gradient(many, *part[:2], part[2] if has_weights else None)

        return strategy.run(replica)

    batch = contract.targets(case), contract.rows(case), contract.WEIGHTS
    signature = [tf.TensorSpec((None, *rows.shape[1:]), rows.dtype) for rows in batch]
    functions = [
        tf.function(f, autograph=False, input_signature=signature)
        for f in (on_one_device, on_replicas)
    ]
    results = []
    for items in ITEMS:
        part = [tf.constant(rows[:items]) for rows in batch]
        value, gradient = functions[0](*part)
        values, gradients = map(strategy.experimental_local_results, functions[1](*part))
        gathered = np.concatenate([g.numpy() for g in gradients])
        results.append(
            {
                "items": items,
                "value": float(value),
                "replicas": float(sum(v.numpy() for v in values)),
                "largest": float(np.abs(gradient).max()),
                "error": float(np.abs(gathered - gradient.numpy()).max()),
            }
        )
    return results


part, parts = map(int, sys.argv[2:4])
found = {}
for case in CASES[part::parts]:
    try:
        found[contract.described(case)] = compare(case)
    except Exception as error:
        raise RuntimeError(contract.described(case)) from error
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump(found, file)
