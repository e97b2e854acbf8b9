"""Loss and gradient on two logical devices beside one: a script for tests, writes JSON."""

import json
import sys

import numpy as np
import tensorflow as tf

# Devices have to be split before anything runs on them.
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

from keras_metric import layers, losses  # noqa: E402

ROWS, DIM, CLASSES, FIRST = 23, 6, 5, 12


def with_memory():
    memory = layers.CrossBatchMemory(40)
    memory.build((None, DIM))
    return losses.ContrastiveLoss(2.0, memory=memory)


# Rows of one's own anchors; of a queue that everybody fills alike; the batch as a whole.
CASES = {
    "semi-hard": losses.TripletLoss,
    "weighted": losses.TripletLoss,
    "memory": with_memory,
    "proxy-anchor": lambda: losses.ProxyAnchorLoss(CLASSES, embedding_dim=DIM, initializer="ones"),
}
rng = np.random.default_rng(0)
Z = rng.normal(size=(ROWS, DIM)).astype("float32")
Y = rng.integers(0, CLASSES, ROWS).astype("int32")
W = rng.uniform(0.2, 3, ROWS).astype("float32")


def value_and_slope(loss, labels, embeddings, weights):
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings, weights)
    return value, tape.gradient(value, embeddings)


found = {}
for name, make in CASES.items():
    weighted = name == "weighted"
    value, slope = value_and_slope(make(), Y, tf.constant(Z), W if weighted else None)
    with strategy.scope():
        loss = make()

    def step(loss=loss, weighted=weighted):
        first = tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 0)
        labels, embeddings, weights = (
            tf.cond(first, lambda x=x: tf.constant(x[:FIRST]), lambda x=x: tf.constant(x[FIRST:]))
            for x in (Y, Z, W)
        )
        return value_and_slope(loss, labels, embeddings, weights if weighted else None)

    values, slopes = tf.function(lambda: strategy.run(step), autograph=False)()
    values = strategy.experimental_local_results(values)
    slopes = np.concatenate([s.numpy() for s in strategy.experimental_local_results(slopes)])
    found[name] = {
        "value": float(value),
        "shares": [float(v) for v in values],
        "error": float(np.abs(slopes - slope.numpy()).max()),
        "largest": float(np.abs(slopes).max()),
    }
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump(found, file)
