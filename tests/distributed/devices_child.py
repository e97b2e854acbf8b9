"""Script of test_devices.py: train small models on several devices or processes, write NPZ.

    python devices_child.py SETUP OUT [--rank R --port P] [--cases NAME ...]

SETUP: "one" device; "mirrored", two devices of tf.distribute; "workers", one of two processes of
tf.distribute; "data" and "model", two devices of JAX; "processes", one of two processes of JAX. The
file contains for each case the loss and the gradient of the first step, the mean loss of the other
19 steps, the final weights, and the total change of the weights.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import re

parser = argparse.ArgumentParser()
parser.add_argument("setup")
parser.add_argument("out")
parser.add_argument("--rank", type=int, default=0)
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--cases", nargs="*")
parser.add_argument("--timeout", type=float, default=0)
arguments = parser.parse_args()
SETUP, RANK = arguments.setup, arguments.rank
if arguments.timeout:
    # Print a traceback if replicas wait for each other without end.
    faulthandler.dump_traceback_later(arguments.timeout, exit=True)
if SETUP == "workers":
    workers = [f"127.0.0.1:{arguments.port + i}" for i in range(2)]
    task = {"type": "worker", "index": RANK}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
if SETUP in ("data", "model"):
    two = "--xla_force_host_platform_device_count=2"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {two}"

import keras  # noqa: E402
import numpy as np  # noqa: E402

STEPS, BATCH, CLASSES, SIDE = 20, 24, 6, 5
ON_JAX = keras.backend.backend() == "jax"


def start():
    """Create the devices; return the strategy of tf.distribute, or None."""
    if SETUP == "workers":
        import tensorflow as tf

        return tf.distribute.MultiWorkerMirroredStrategy()
    if SETUP == "mirrored":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, halves)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    if SETUP == "processes":
        keras.distribution.initialize(f"127.0.0.1:{arguments.port}", 2, RANK)
    if SETUP in ("data", "processes"):
        # Each process provides its own half of a batch.
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=SETUP == "data")
        )
    if SETUP == "model":
        mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"])
        layout = keras.distribution.LayoutMap(mesh)
        layout[".*dense_wide.*kernel"] = (None, "model")
        keras.distribution.set_distribution(
            keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
        )
    return None


STRATEGY = start()
if SETUP != "one":
    # Fail if only one device is available.
    number = len(keras.distribution.list_devices()) if ON_JAX else STRATEGY.num_replicas_in_sync
    assert number == 2, number

from keras_metric import layers, losses  # noqa: E402
from keras_metric.models import EmbeddingModel  # noqa: E402

CASES = {
    "all": lambda: losses.TripletLoss(mining="all"),
    "semi-hard": losses.TripletLoss,
    "multi-similarity": lambda: losses.MultiSimilarityLoss(mining="multi-similarity"),
    "sup-con": losses.SupConLoss,
    "proxy-anchor": lambda: losses.ProxyAnchorLoss(CLASSES),
    "memory": lambda: losses.ContrastiveLoss(2.0, memory=layers.CrossBatchMemory(40)),
    "weighted": lambda: losses.WeightedSum(
        [(0.5, losses.TripletLoss(mining="hard")), (2, losses.ContrastiveLoss(2.0))]
    ),
}
# Its gradient is large: a larger learning rate amplifies rounding errors.
RATES = {"proxy-anchor": 0.01}
# Cases with batches of odd size. Keras requires an even size of the first batch of `fit`.
UNEVEN = ("semi-hard", "memory", "weighted")


def model_of(name):
    keras.utils.set_random_seed(1)
    backbone = keras.Sequential(
        [keras.Input((SIDE,)), keras.layers.Dense(16, "tanh", name="dense_wide")]
    )
    model = EmbeddingModel(backbone, 8)
    # Twenty eager steps take less time than compilation; JAX always compiles.
    eager, jit = SETUP == "one" and not ON_JAX, "auto" if ON_JAX else False
    optimizer = keras.optimizers.SGD(RATES.get(name, 0.1))
    model.compile(optimizer, CASES[name](), jit_compile=jit, run_eagerly=eager)
    return model


def batches(name):
    """Yield the batches of all steps: `(x, y)`, or `(x, y, weights)`."""
    rng = np.random.default_rng(7)
    for step in range(STEPS):
        uneven = name in UNEVEN and step > 1 and not ON_JAX
        rows = BATCH - 1 if uneven else BATCH
        y = rng.integers(0, CLASSES, BATCH).astype("int32")
        x = rng.normal(y[:, None] % 3, 1.0, (BATCH, SIDE)).astype("float32")
        w = rng.random(BATCH).astype("float32")
        yield tuple(part[:rows] for part in ((x, y, w) if name == "weighted" else (x, y)))


def data_of(steps, part=None):
    """Return a tf.data.Dataset of the batches, or of their first (0) or second (1) half."""
    import tensorflow as tf

    def half_of(batch):
        half = (len(batch[0]) + 1) // 2
        rows = {None: slice(None), 0: slice(half), 1: slice(half, None)}[part]
        return tuple(array[rows] for array in batch)

    signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in steps[0])
    data = tf.data.Dataset.from_generator(lambda: map(half_of, steps), output_signature=signature)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return data.with_options(options)


def train_here(model, steps):
    """Train on the part of this process of each batch; return the mean loss."""
    losses = []
    for batch in steps:
        if SETUP == "processes":
            half = len(batch[0]) // 2
            batch = [part[RANK * half :][:half] for part in batch]
        if SETUP == "one":
            losses.append(float(model.train_on_batch(*batch, return_dict=True)["loss"]))
        else:
            x, y, weight = (*batch, None)[:3]
            settings = {"batch_size": len(x), "shuffle": False, "verbose": 0}
            history = model.fit(x, y, sample_weight=weight, **settings).history
            losses += history["loss"]
    # `fit` computes this mean.
    return np.average(losses, weights=[len(batch[0]) for batch in steps])


def train_with_workers(model, steps):
    """Train with the loop of docs/scale.md, because `fit` fails with several workers."""
    import tensorflow as tf

    if model not in train_with_workers.steps:
        train_with_workers.steps[model] = tf.function(
            lambda batch: STRATEGY.run(model.train_step, args=(batch,)), reduce_retracing=True
        )
    model.reset_metrics()
    for batch in STRATEGY.distribute_datasets_from_function(lambda _: data_of(steps, RANK)):
        logs = train_with_workers.steps[model](batch)
    return float(STRATEGY.experimental_local_results(logs["loss"])[0])


train_with_workers.steps = {}


def train(model, steps):
    if SETUP == "mirrored":
        return model.fit(data_of(steps), verbose=0, shuffle=False).history["loss"][0]
    return (train_with_workers if SETUP == "workers" else train_here)(model, steps)


found = {}


def weights():
    """Return the values of all floating-point weights."""
    return {
        # Remove the numbers that Keras appends to the names of repeated layers.
        f"{i} {re.sub(r'_[0-9]+', '', weight.path)}": keras.ops.convert_to_numpy(weight.value)
        for i, weight in enumerate(model.weights)
        if weight.dtype.startswith("float")
    }


def record(case, what, values):
    found.update({f"{case}|{what}|{name}": value for name, value in values.items()})


for case in arguments.cases or CASES:
    with contextlib.nullcontext() if STRATEGY is None else STRATEGY.scope():
        model = model_of(case)
        if SETUP == "workers":
            model.optimizer.build(model.trainable_variables)
    steps = list(batches(case))
    before = weights()
    found[f"{case}|loss 1|"] = np.array(train(model, steps[:1]))
    after = weights()
    # The step of SGD is the learning rate times the gradient.
    rate = RATES.get(case, 0.1)
    record(case, "gradient", {name: (before[name] - after[name]) / rate for name in before})
    found[f"{case}|loss 20|"] = np.array(train(model, steps[1:]))
    record(case, "weights", weights())
    record(case, "change", {name: value - before[name] for name, value in weights().items()})
if SETUP == "workers":
    # Runs on the chief only; the other worker does not wait.
    from keras_metric.callbacks import RetrievalEvaluator

    x, y = next(batches("all"))
    logs, evaluator = {}, RetrievalEvaluator(x, y, k=(1,))
    evaluator.set_params({})
    evaluator.set_model(model)
    evaluator.on_epoch_end(0, logs)
    found["recall"] = np.array(logs.get("val_recall_at_1", -1))
np.savez(arguments.out, **found)
