"""Time and peak memory of a training step with many classes, compared with a plain softmax.

    python benchmarks/classes.py                              # some minutes on two cores
    python benchmarks/classes.py --classes 10000 --engines ours softmax

A step is forward, backward and the update of the class vectors by SGD, of a batch of 128 random
embeddings of dimension 128. Each measurement runs in a separate process. Memory is the growth of
the resident set since the imports, without the weights, so it includes compiled code. A case
for which the free memory is too small is left out. Needs the extra `parity`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from fit_engine import clocks, elapsed
from losses import RESULTS, machine, shown, write

from keras_metric_startup import hide_tensorflow_startup_messages

BATCH, DIM = 128, 128
# All components of the class vectors: random numbers would need more memory than a step.
START = 0.05
# Engine: its name in the plot, the style of its line, and how many bytes it needs, approximately,
# for each class.
ENGINES = {
    "product": ("matrix product with gradient", {"color": "0.4", "linestyle": ":"}, 2600),
    "softmax": ("plain softmax, TensorFlow", {"color": "tab:orange", "marker": "s"}, 4200),
    "pml": ("ArcFace, pytorch-metric-learning", {"color": "tab:red", "marker": "s"}, 6200),
    "ours": ("ArcFaceLoss", {"color": "tab:blue", "marker": "o"}, 1700),
    "ours-0.1": ("ArcFaceLoss(sample_rate=0.1)", {"color": "tab:cyan", "marker": "o"}, 1200),
}
# Bytes that other processes may need while a case runs.
MARGIN = 8e9


def status(field):
    """A field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise KeyError(field)


def free_memory():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])


def batch_of(classes):
    import numpy as np

    rng = np.random.default_rng(0)
    z = rng.normal(size=(BATCH, DIM)).astype("float32")
    return z, rng.integers(0, classes, BATCH).astype("int32")


def tensorflow_step(kind, classes):
    """A step of the plain softmax over the classes, or of the products only.

    Without XLA, like the step of `fit` by default.
    """
    import tensorflow as tf

    z, y = map(tf.constant, batch_of(classes))
    weights = tf.Variable(tf.fill((classes, DIM), START))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            if kind == "product":
                value = tf.reduce_sum(tf.square(tf.matmul(z, weights, transpose_b=True)))
            else:
                unit = tf.linalg.l2_normalize(weights, axis=1)
                logits = 64 * tf.matmul(tf.linalg.l2_normalize(z, axis=1), unit, transpose_b=True)
                value = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        weights.assign_sub(0.1 * tape.gradient(value, weights))
        return value

    return lambda: float(step())


def pml_step(classes):
    import torch
    from pytorch_metric_learning import losses

    z, y = map(torch.tensor, batch_of(classes))
    loss = losses.ArcFaceLoss(classes, DIM)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        value = loss(z, y.long())
        value.backward()
        optimizer.step()
        return value.item()

    return step


def our_step(classes, rate):
    """A step of `fit`."""
    import keras

    import keras_metric

    encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Activation("linear")])
    model = keras_metric.EmbeddingModel(encoder, embedding_dim=None)
    start = keras.initializers.Constant(START)
    loss = keras_metric.losses.ArcFaceLoss(
        classes, embedding_dim=DIM, initializer=start, sample_rate=rate
    )
    model.compile(keras.optimizers.SGD(0.1), loss)
    z, y = batch_of(classes)

    class Clock(keras.callbacks.Callback):
        """Measures each step; reading the loss waits for it."""

        def on_train_batch_begin(self, batch, logs=None):
            self.start = clocks()

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            self.seconds = elapsed(self.start)

    clock = Clock()

    def step():
        model.fit(z, y, batch_size=BATCH, verbose=0, callbacks=[clock])
        return clock.seconds

    return step


def measure(engine, classes, rounds):
    """Seconds of a step, and bytes beyond the weights."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    hide_tensorflow_startup_messages()
    timed_inside = engine.startswith("ours")
    if engine == "pml":
        import pytorch_metric_learning  # noqa: F401
    else:
        import keras_metric  # noqa: F401
    before = status("VmRSS") + 4 * DIM * classes
    if timed_inside:
        step = our_step(classes, float(engine.partition("-")[2] or 1))
    else:
        step = pml_step(classes) if engine == "pml" else tensorflow_step(engine, classes)
    step()
    # Resets the peak of the resident set, which includes the initializer of the weights.
    Path("/proc/self/clear_refs").write_text("5")
    times = []
    for _ in range(rounds):
        start = clocks()
        inside = step()
        times.append(inside if timed_inside else elapsed(start))
    seconds, cpu = map(statistics.median, zip(*times))
    return {"seconds": seconds, "cpu": cpu, "bytes": status("VmHWM") - before}


def result_of(engine, classes, rounds):
    """The measurement in a new process, or why there is none."""
    if free_memory() < classes * ENGINES[engine][2] + MARGIN:
        return "out of memory"
    command = [sys.executable, __file__, "--child", engine, str(classes), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-1000:])
        return "out of memory" if done.returncode < 0 else "error"
    return json.loads(done.stdout.splitlines()[-1])


def table(results, engines, sizes, key, factor, digits):
    lines = ["| classes | " + " | ".join(engines) + " |", "| ---: |" + " ---: |" * len(engines)]
    for size in sizes:
        cells = []
        for engine in engines:
            value = results[engine, size]
            cells.append(shown(value if isinstance(value, str) else factor * value[key], digits))
        lines.append(f"| {size:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results, engines, sizes, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, key, factor, label in (
        (panels[0], "seconds", 1, "seconds for a training step"),
        (panels[1], "bytes", 1e-9, "GB beyond the weights"),
    ):
        for engine in engines:
            points = [(size, results[engine, size]) for size in sizes]
            points = [(size, factor * v[key]) for size, v in points if not isinstance(v, str)]
            if points:
                axes.loglog(*zip(*points), label=ENGINES[engine][0], **ENGINES[engine][1])
        axes.set_xlabel("classes")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main():
    if sys.argv[1:2] == ["--child"]:
        engine, classes, rounds = sys.argv[2:]
        print(json.dumps(measure(engine, int(classes), int(rounds))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [10**4, 10**5, 10**6, 10**7]
    parser.add_argument("--classes", type=int, nargs="+", default=sizes)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    sizes, engines = arguments.classes, arguments.engines
    results = {}
    for size in sizes:
        for engine in engines:
            rounds = arguments.rounds if size < 10**7 else min(arguments.rounds, 2)
            results[engine, size] = result_of(engine, size, rounds)
            print(f"{size:,} classes, {engine}: {results[engine, size]}", flush=True)
    text = [
        "# Training step with many classes",
        f"Batch {BATCH}, dimension {DIM}, SGD, float32. Medians of {arguments.rounds} steps (2 for "
        f"10 million classes) in a separate process for each number. {machine()}.",
        "`product`: the product of the batch and the class vectors, with its gradient. `softmax`: "
        "`tf.nn.sparse_softmax_cross_entropy_with_logits` of normalised vectors, in a "
        "`tf.function`. `pml`: ArcFaceLoss of pytorch-metric-learning. `ours`: `ArcFaceLoss` in "
        "`fit` of an `EmbeddingModel` without a network; `ours-0.1`: with `sample_rate=0.1`. "
        "`out of memory`: the free memory of this machine, which other processes use too, is too "
        "small.",
        "Seconds:",
        table(results, engines, sizes, "seconds", 1, 3),
        "CPU seconds of all threads, which depend less on other processes:",
        table(results, engines, sizes, "cpu", 1, 3),
        "GB beyond the weights, including compiled code; a matrix (batch, "
        "classes) of a million classes has 0.51 GB, and so does the gradient of the class vectors:",
        table(results, engines, sizes, "bytes", 1e-9, 2),
        "![Time and memory by number of classes](classes.png)",
    ]
    path, plot_path = write(arguments.out, "classes.md", text), arguments.out / "classes.png"
    plot(results, engines, sizes, plot_path)
    print(f"{path}, {plot_path}: tables and curves")


if __name__ == "__main__":
    main()
