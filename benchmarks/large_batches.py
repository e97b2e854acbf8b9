"""Time and peak memory of contrastive losses for batches of 1,024 to 65,536.

    python benchmarks/large_batches.py                     # about half an hour on two cores
    python benchmarks/large_batches.py --batches 1024 16384 --rounds 3

Beside each loss stands the same loss in a few lines of the framework, which holds matrices (batch,
batch), and the bare matrix product. Each case runs in a process of its own, with value and gradient
of both branches. Peak memory is the growth of the resident set after a small batch, so that the
framework, compilers and thread pools are not counted. Needs the extras `jax` and `parity`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from losses import RESULTS, machine, shown, write

DIM, TEMPERATURE = 128, 0.1
LOSSES = ("ClipLoss", "NTXentLoss", "SigLipLoss")
ENGINES = ("tensorflow", "tensorflow-xla", "jax", "torch")
KINDS = ("ours", "plain", "product")
LIMIT = 900  # seconds for one case
# A plain loss needs about three matrices (batch, batch), and the gradient of each.
LARGEST_PLAIN = 16384


def plain_tensorflow(name, a, b):
    import tensorflow as tf

    logits, rows = tf.matmul(a, b, transpose_b=True), tf.range(tf.shape(a)[0])
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    if name == "product":
        return tf.reduce_sum(logits)
    logits = logits / TEMPERATURE
    if name == "ClipLoss":
        both = entropy(rows, logits) + entropy(rows, tf.transpose(logits))
        return tf.reduce_mean(both) / 2
    if name == "SigLipLoss":
        logits = logits - 10
        signs = 2 * tf.eye(tf.shape(a)[0]) - 1
        return -tf.reduce_mean(tf.reduce_sum(tf.math.log_sigmoid(signs * logits), axis=1))
    half = tf.shape(a)[0] // 2
    masked = tf.linalg.set_diag(logits, tf.fill([tf.shape(a)[0]], -1e9))
    return tf.reduce_mean(entropy(tf.math.floormod(rows + half, 2 * half), masked))


def plain_jax(name, a, b):
    import jax
    from jax import numpy as jnp

    logits, rows = a @ b.T, jnp.arange(len(a))
    if name == "product":
        return jnp.sum(logits)
    logits = logits / TEMPERATURE
    if name == "ClipLoss":
        both = jax.nn.logsumexp(logits, 0) + jax.nn.logsumexp(logits, 1)
        return jnp.mean(both / 2 - jnp.diagonal(logits))
    if name == "SigLipLoss":
        signs = 2 * jnp.eye(len(a)) - 1
        return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(signs * (logits - 10)), axis=1))
    own = (rows + len(a) // 2) % len(a)
    masked = jnp.where(jnp.eye(len(a), dtype=bool), -1e9, logits)
    return jnp.mean(jax.nn.logsumexp(masked, 1) - logits[rows, own])


def plain_torch(name, a, b):
    import torch
    from torch.nn import functional

    logits, rows = a @ b.T, torch.arange(len(a))
    if name == "product":
        return logits.sum()
    logits = logits / TEMPERATURE
    if name == "ClipLoss":
        entropy = functional.cross_entropy
        return (entropy(logits, rows) + entropy(logits.T, rows)) / 2
    if name == "SigLipLoss":
        signs = 2 * torch.eye(len(a)) - 1
        return -functional.logsigmoid(signs * (logits - 10)).sum(1).mean()
    masked = logits.fill_diagonal_(-1e9)
    return functional.cross_entropy(masked, (rows + len(a) // 2) % len(a))


def loss_of(kind, name, backend):
    """A function of two matrices of unit vectors; a NT-Xent batch is both of them, joined."""
    plain = {"tensorflow": plain_tensorflow, "jax": plain_jax, "torch": plain_torch}[backend]
    if kind != "ours":
        return lambda a, b: plain("product" if kind == "product" else name, a, b)
    from keras import ops

    from keras_metric import losses

    loss = getattr(losses, name)(temperature=TEMPERATURE)
    if name == "NTXentLoss":
        half = ops.shape
        return lambda a, b: loss(ops.arange(half(a)[0]) % (half(a)[0] // 2), a)
    return lambda a, b: loss(ops.arange(ops.shape(a)[0]), ops.stack([a, b], axis=1))


def compiled(engine, function):
    """A function of two NumPy matrices that returns both gradients as NumPy arrays."""
    import numpy as np

    if engine == "torch":
        import torch

        def run(*arrays):
            tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
            gradients = torch.autograd.grad(function(*tensors), tensors, allow_unused=True)
            return [np.asarray(g) for g in gradients if g is not None]

        return run
    if engine == "jax":
        import jax

        step = jax.jit(jax.value_and_grad(function, (0, 1)))
        return lambda *arrays: [np.asarray(g) for g in step(*map(jax.numpy.asarray, arrays))[1]]
    import tensorflow as tf

    @tf.function(jit_compile=engine == "tensorflow-xla")
    def step(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            value = function(a, b)
        return tape.gradient(value, [a, b])

    return lambda *arrays: [np.asarray(g) for g in step(*map(tf.constant, arrays)) if g is not None]


def resident(key):
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0]) * 1024


def unit_vectors(batch):
    import numpy as np

    rng = np.random.default_rng(0)
    a = rng.normal(size=(batch, DIM)).astype("float32")
    b = a + 0.5 * rng.normal(size=a.shape).astype("float32")
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]


def measure(kind, name, engine, batch, rounds):
    """In a process of its own: prints seconds of each round, and bytes."""
    import time

    run = compiled(engine, loss_of(kind, name, engine.split("-")[0]))
    a, b = unit_vectors(batch)
    # NT-Xent compares one matrix with itself.
    pair = (a, a) if name == "NTXentLoss" else (a, b)
    run(*(x[:256] for x in pair))
    before, seconds = resident("VmRSS"), []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run(*pair)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds[1:], "bytes": resident("VmHWM") - before}))


def answer(*case):
    """The result of `measure` in a new process, or a word."""
    backend = case[2].split("-")[0]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--case", *map(str, case)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return "no end"
    return json.loads(done.stdout.splitlines()[-1]) if not done.returncode else "out of memory"


def plot(results, batches, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(LOSSES), figsize=(11, 6.5), sharex=True, sharey="row")
    styles = {"ours": "-", "plain": "--", "product": ":"}
    for column, name in enumerate(LOSSES):
        for number, engine in enumerate(ENGINES):
            for kind in KINDS:
                found = [(n, results.get((kind, name, engine, n))) for n in batches]
                found = [(n, r) for n, r in found if isinstance(r, dict)]
                if not found:
                    continue
                sizes, rows = zip(*found)
                values = (
                    [statistics.median(row["seconds"]) for row in rows],
                    [max(row["bytes"], 1e6) / 1e6 for row in rows],
                )
                for axis, ys in zip(axes[:, column], values):
                    label = f"{engine}, {kind}"
                    axis.loglog(
                        sizes, ys, styles[kind], color=f"C{number}", marker=".", label=label
                    )
        axes[0, column].set_title(name)
        axes[1, column].set_xlabel("batch")
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, MB")
    for axis in axes.ravel():
        axis.set_xticks(batches, [f"{n:,}" for n in batches], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(ENGINES), frameon=False)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def table(results, batches):
    head = ["loss", "batch", *(f"{engine} {kind}" for engine in ENGINES for kind in KINDS)]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name in LOSSES:
        for batch in batches:
            cells = []
            for engine in ENGINES:
                for kind in KINDS:
                    found = results.get((kind, name, engine, batch), "not run")
                    if isinstance(found, dict):
                        seconds = statistics.median(found["seconds"])
                        found = f"{shown(seconds, 2)} s, {max(found['bytes'], 0) / 1e6:,.0f} MB"
                    cells.append(found)
            lines.append(f"| {name} | {batch:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 4096, 16384, 65536])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--case", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        kind, name, engine, batch, rounds = chosen.case
        return measure(kind, name, engine, int(batch), int(rounds))
    results = {}
    for batch in chosen.batches:
        rounds = chosen.rounds if batch <= LARGEST_PLAIN else 1
        for name in chosen.losses:
            for engine in chosen.engines:
                for kind in KINDS if batch <= LARGEST_PLAIN else ("ours",):
                    # The product alone is the same for all losses.
                    if kind == "product" and name != LOSSES[0]:
                        continue
                    case = kind, name, engine, batch
                    results[case] = answer(*case, rounds)
                    print(*case, results[case], flush=True)
    text = [
        "# Contrastive losses of large batches",
        f"Value and gradient, dimension {DIM}, median of {chosen.rounds} (one above "
        f"{LARGEST_PLAIN:,}), and growth of the resident set. {machine()}.",
        "`plain` is the loss in a few lines of the framework, with matrices (batch, batch). It is "
        f"measured up to {LARGEST_PLAIN:,}: at 65,536 one such matrix takes 17 GB. `product` is "
        "the matrix product with its gradient, the same for all losses.",
        table(results, chosen.batches),
        "![Time and memory](large_batches.png)",
    ]
    path = write(chosen.out, "large_batches.md", text)
    plot(results, chosen.batches, chosen.out / "large_batches.png")
    print(f"{path}, {chosen.out / 'large_batches.png'}: time and peak memory")


if __name__ == "__main__":
    main()
