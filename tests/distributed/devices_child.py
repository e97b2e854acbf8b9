"""Trains small models on the devices of one set-up and writes what came of it: a script for tests.

    python devices_child.py SETUP OUT [--rank R --port P] [--cases NAME ...]

SETUP: "one" device; "mirrored", two devices of tf.distribute; "workers", one of two processes of
it; "data" and "model", two devices of JAX; "processes", one of two processes of JAX. Written are,
for each case, the loss and the gradient of the first step, the mean loss of the 19 others, the
weights after all of them, and the way that they have come.
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
parser.add_argument("--patience", type=float, default=0)
arguments = parser.parse_args()
SETUP, RANK = arguments.setup, arguments.rank
if arguments.patience:
    # Replicas that wait for each other for ever say where.
    faulthandler.dump_traceback_later(arguments.patience, exit=True)
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
    """Make the devices; returns the strategy that models are made in, if there is one."""
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
        # Each process brings its own half of a batch.
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
    # A set-up that fell back to one device would prove nothing.
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
# Its gradient is steep: at a larger rate the training is chaotic, and rounding grows.
RATES = {"proxy-anchor": 0.01}
# Batches that two devices cannot share evenly. Keras wants the first that `fit` sees to be even.
UNEVEN = ("semi-hard", "memory", "weighted")


def model_of(name):
    keras.utils.set_random_seed(1)
    backbone = keras.Sequential(
        [keras.Input((SIDE,)), keras.layers.Dense(16, "tanh", name="dense_wide")]
    )
    model = EmbeddingModel(backbone, 8)
    # Twenty small steps take less time than it takes to compile one; JAX has no choice.
    eager, jit = SETUP == "one" and not ON_JAX, "auto" if ON_JAX else False
    optimizer = keras.optimizers.SGD(RATES.get(name, 0.1))
    model.compile(optimizer, CASES[name](), jit_compile=jit, run_eagerly=eager)
    return model


def batches(name):
    """The batches of all steps: `(x, y)`, or `(x, y, weights)`."""
    rng = np.random.default_rng(7)
    for step in range(STEPS):
        uneven = name in UNEVEN and step > 1 and not ON_JAX
        rows = BATCH - 1 if uneven else BATCH
        y = rng.integers(0, CLASSES, BATCH).astype("int32")
        x = rng.normal(y[:, None] % 3, 1.0, (BATCH, SIDE)).astype("float32")
        w = rng.random(BATCH).astype("float32")
        yield tuple(part[:rows] for part in ((x, y, w) if name == "weighted" else (x, y)))


def data_of(steps, share=None):
    """Batches as a tf.data.Dataset; of each the first or the second half with `share` 0 or 1."""
    import tensorflow as tf

    def mine(batch):
        half = (len(batch[0]) + 1) // 2
        cut = {None: slice(None), 0: slice(half), 1: slice(half, None)}[share]
        return tuple(part[cut] for part in batch)

    signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in steps[0])
    data = tf.data.Dataset.from_generator(lambda: map(mine, steps), output_signature=signature)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return data.with_options(options)


def train_here(model, steps):
    """Steps with what this process has of each batch; returns the mean loss."""
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
    # As `fit` takes the mean.
    return np.average(losses, weights=[len(batch[0]) for batch in steps])


def train_with_workers(model, steps):
    """The loop of docs/scale.md: Keras's own `fit` fails under several workers."""
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
    """The values of all weights of real numbers; those of a queue are of the past."""
    return {
        # Keras numbers the names of what is made twice in one process.
        f"{i} {re.sub(r'_[0-9]+', '', weight.path)}": keras.ops.convert_to_numpy(weight.value)
        for i, weight in enumerate(model.weights)
        if weight.dtype.startswith("float")
    }


def note(case, what, values):
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
    # The step of plain SGD is the rate times the gradient.
    rate = RATES.get(case, 0.1)
    note(case, "gradient", {name: (before[name] - after[name]) / rate for name in before})
    found[f"{case}|loss 20|"] = np.array(train(model, steps[1:]))
    note(case, "weights", weights())
    note(case, "way", {name: value - before[name] for name, value in weights().items()})
if SETUP == "workers":
    # The chief alone, and none waits for another.
    from keras_metric.callbacks import RetrievalEvaluator

    x, y = next(batches("all"))
    logs, evaluator = {}, RetrievalEvaluator(x, y, k=(1,))
    evaluator.set_params({})
    evaluator.set_model(model)
    evaluator.on_epoch_end(0, logs)
    found["recall"] = np.array(logs.get("val_recall_at_1", -1))
np.savez(arguments.out, **found)
