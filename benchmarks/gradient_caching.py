"""Gradient caching of a batch of 4,096 in chunks of 256: peak memory and time of a training step.

    python benchmarks/gradient_caching.py
    python benchmarks/gradient_caching.py --backends tensorflow jax torch --turns 3

Conv-4 without batch normalization on 28 x 28 x 1, SupConLoss, SGD. Every case runs in a separate
process; the cases alternate. Memory is the growth of the largest resident set after imports,
creation of the model and a step of 32 items. Time is the median of all rounds of 4,096 items, as
wall time and as CPU time of all threads, which depends less on other processes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from losses import RESULTS, machine, write

LARGE, SMALL = 4096, 256
CASES = {
    "plain 256": (SMALL, None),
    "plain 4096": (LARGE, None),
    "chunks of 256": (LARGE, SMALL),
}


def work(case, rounds):
    """Run one case in this process and print the measurements as JSON."""
    import resource

    import keras
    import numpy as np
    from keras import layers

    import keras_metric

    batch, chunk_size = CASES[case]
    keras.utils.set_random_seed(0)
    blocks = [
        layer
        for _ in range(4)
        for layer in (layers.Conv2D(32, 3, padding="same"), layers.ReLU(), layers.MaxPooling2D(2))
    ]
    backbone = keras.Sequential([keras.Input((28, 28, 1)), *blocks, layers.Flatten()])
    model = keras_metric.EmbeddingModel(backbone, 64, chunk_size=chunk_size)
    jit = keras.backend.backend() == "jax"
    loss = keras_metric.losses.SupConLoss()
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit)
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, 28, 28, 1), dtype="float32"), np.arange(batch) % (batch // 4)
    model.train_on_batch(x[:32], y[:32])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.train_on_batch(x, y)
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    spent = {name: [] for name in clocks}
    for _ in range(rounds):
        starts = {name: clock() for name, clock in clocks.items()}
        for _ in range(LARGE // batch):
            model.train_on_batch(x, y)
        for name, clock in clocks.items():
            spent[name].append(clock() - starts[name])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({**spent, "bytes": [grown * 1024]}))


def measure(backend, case, rounds):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--work", case, "--rounds", str(rounds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(found):
    lines = [
        "| backend | step | memory, MB | seconds | to 16 plain | CPU seconds | to 16 plain |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for backend, cases in found.items():
        medians = {case: medians_of(turns) for case, turns in cases.items()}
        for case, answer in medians.items():
            times = LARGE // CASES[case][0]
            cells = [backend, f"{times} x {case}" if times > 1 else case]
            cells.append(f"{answer['bytes'] / 2**20:,.0f}")
            for clock in ("wall", "cpu"):
                seconds, plain = answer[clock], medians["plain 256"][clock]
                cells += [f"{seconds:.2f}", f"{seconds / plain:.2f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def medians_of(turns):
    """Return the medians of the measurements of all turns of a case."""
    return {name: statistics.median(sum((t[name] for t in turns), [])) for name in turns[0]}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="steps in each turn")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.work, arguments.rounds)
    found = {}
    for backend in arguments.backends:
        found[backend] = {case: [] for case in CASES}
        for _ in range(arguments.turns):
            for case in CASES:
                found[backend][case].append(measure(backend, case, arguments.rounds))
        print(table({backend: found[backend]}), flush=True)
    text = [
        "# Gradient caching: a batch of 4,096 in chunks of 256",
        "Conv-4 of 32 filters without batch normalization, 28 x 28 x 1, SupConLoss, SGD: growth of "
        "the resident set, and time of a training step of `EmbeddingModel("
        f"chunk_size=256)`, median of {arguments.turns} turns of {arguments.rounds}. TensorFlow "
        f"without XLA. {machine()}.",
        table(found),
    ]
    path = write(arguments.out, "gradient_caching.md", text)
    print(f"{path}: memory and time")


if __name__ == "__main__":
    main()
