"""Time of loss and gradient, compared with other libraries and with the matrix product.

    make bench                                     # all sizes; an hour on two cores
    python benchmarks/losses.py --every            # every loss, at 128 and 1,024
    python benchmarks/losses.py --batches 128 1024 --rounds 9

Each engine runs in a separate process. The engines alternate with one call per round, and the
result is the median of the rounds, so that other processes slow down all engines equally. Needs the
extras `jax` and `parity`; tensorflow-addons runs with the interpreter in KERAS_METRIC_TFA_PYTHON
(Python 3.11 with tensorflow-cpu 2.15, tensorflow-addons 0.23, numpy below 2), and is skipped
without it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from compared_losses import names
from engine import ENGINES

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LOSSES = (
    "triplet all",
    "triplet semi-hard",
    "triplet semi-hard-all",
    "triplet hard",
    "contrastive",
    "lifted structure",
    "quadruplet",
)
# The largest batch of an engine; its B x B x B tensors would need tens of gigabytes, or hours.
LARGEST = {"pml": 1024, "tfa": 1024}
# From this batch on, an engine runs after all others have stopped, because it needs most of the
# memory.
SEPARATE = {"tfa": 1024}
# The most similar loss of a library that does not have the same rule.
SUBSTITUTES = {"triplet semi-hard": {"pml": "triplet semi-hard-all"}}


class Worker:
    """A worker process that measures one engine."""

    def __init__(self, script, *arguments, python=sys.executable):
        self.command = [python, str(HERE / script), *arguments]
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def measure(self, case):
        try:
            self.process.stdin.write(json.dumps(case) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            # The operating system kills a process that needs all memory; start a new one.
            self.close()
            self.start()
            return {"error": "out of memory"}

    def close(self):
        self.process.kill()
        self.process.wait()


def worker_of(engine):
    """Return a `Worker` for one of `ENGINES`."""
    peer = engine == "tfa"
    python = os.environ["KERAS_METRIC_TFA_PYTHON"] if peer else sys.executable
    return Worker("engine.py", engine, python=python)


def is_slow(seconds):
    """Return whether an engine is so slow that three rounds are enough."""
    return len(seconds) >= 3 and statistics.median(seconds) > 2


def engines_here(selected):
    found = [engine for engine in ENGINES if engine in selected]
    if "KERAS_METRIC_TFA_PYTHON" not in os.environ and "tfa" in found:
        print("tensorflow-addons is skipped: KERAS_METRIC_TFA_PYTHON is not set")
        found.remove("tfa")
    return found


def of_engine(engine, loss):
    return SUBSTITUTES.get(loss, {}).get(engine, loss)


def measure_times(engines, losses, shapes, rounds):
    """Return `{(loss, batch, per_class, engine): milliseconds or a word}`."""
    times = {}
    for batch in dict.fromkeys(batch for batch, _ in shapes):
        able = [engine for engine in engines if batch <= LARGEST.get(engine, batch)]
        separate = [[engine] for engine in able if batch >= SEPARATE.get(engine, batch + 1)]
        together = [engine for engine in able if [engine] not in separate]
        for group in (together, *separate):
            workers = {engine: worker_of(engine) for engine in group}
            for loss in losses:
                for per_class in [k for b, k in shapes if b == batch]:
                    data = {"batch": batch, "per_class": per_class, "dim": 128}
                    for engine, value in interleaved(workers, loss, data, rounds).items():
                        times[loss, batch, per_class, engine] = value
                    done = f"batch {batch}, {per_class} per class, {loss}"
                    print(f"{done}: {', '.join(group)} done", flush=True)
            for worker in workers.values():
                worker.close()
    return times


def interleaved(workers, loss, data, rounds):
    """Return `{engine: milliseconds or a word}` of one loss and one batch."""
    seconds, result = {engine: [] for engine in workers}, {}
    for _ in range(rounds):
        for engine, worker in workers.items():
            if engine in result or is_slow(seconds[engine]):
                continue
            name = "gemm" if engine.startswith("gemm") else of_engine(engine, loss)
            answer = worker.measure({"measure": "time", "loss": name, "data": data})
            if "seconds" in answer:
                seconds[engine].append(answer["seconds"])
            else:
                result[engine] = "–" if "missing" in answer else answer["error"].split(":")[0]
    medians = {e: 1e3 * statistics.median(s) for e, s in seconds.items() if s}
    return {**medians, **result}


def write(folder, name, text):
    """Write the parts of a Markdown file, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n\n".join(text) + "\n")
    return path


def machine():
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    packages = ("tensorflow", "keras", "jax", "torch", "pytorch-metric-learning", "numpy")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{os.cpu_count()} cores, {model}; Python {platform.python_version()}, {versions}"


def shown(value, digits=1):
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:,.{digits}f}"


def table(times, engines, losses, shapes):
    lines = ["| loss | batch | per class | " + " | ".join(engines) + " |"]
    lines.append("| --- |" + " ---: |" * (len(engines) + 2))
    for loss in losses:
        for batch, per_class in shapes:
            cells = []
            for engine in engines:
                value = times.get((loss, batch, per_class, engine))
                if value is None and batch > LARGEST.get(engine, batch):
                    value = "out of reach"
                cells.append(shown(value))
            lines.append(f"| {loss} | {batch} | {per_class} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Engine: its name in the plot and the style of its line.
STYLES = {
    "gemm-xla": ("X X' only, TensorFlow XLA", {"color": "0.2", "linestyle": ":"}),
    "gemm-jax": ("X X' only, JAX", {"color": "0.6", "linestyle": ":"}),
    "ours": ("keras_metric, TensorFlow graph", {"color": "tab:cyan", "marker": "o"}),
    "ours-xla": ("keras_metric, TensorFlow XLA", {"color": "tab:blue", "marker": "o"}),
    "ours-jax": ("keras_metric, JAX", {"color": "tab:green", "marker": "o"}),
    "ours-torch": ("keras_metric, PyTorch", {"color": "tab:olive", "marker": "o"}),
    "pml": ("pytorch-metric-learning", {"color": "tab:red", "marker": "s"}),
    "tfa": ("tensorflow-addons", {"color": "tab:orange", "marker": "s"}),
}


def plot(times, engines, losses, batches, path):
    from matplotlib.figure import Figure

    columns = min(4, len(losses) + 1)
    rows = -(-(len(losses) + 1) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, loss in zip(panels, losses):
        for engine in engines:
            name, style = STYLES[engine]
            points = [(b, times.get((loss, b, 4, engine))) for b in batches]
            points = [(b, t) for b, t in points if isinstance(t, float)]
            if points:
                axes.loglog(*zip(*points), label=name, **style)
        axes.set_title(loss, fontsize=10)
        axes.set_xticks(batches, [f"{b:,}" for b in batches])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    for axes in panels[len(losses) :]:
        axes.set_axis_off()
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    panels[len(losses)].legend(lines.values(), lines.keys(), loc="center", frameon=False)
    figure.supxlabel("batch, 4 per class")
    figure.supylabel("milliseconds for loss and gradient")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--per-class", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--every", action="store_true", help="every loss of the package")
    parser.add_argument("--losses", nargs="+", help="default: triplet losses and similar ones")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--name", help="of the page; default: losses, or every_loss")
    arguments = parser.parse_args()
    every = arguments.every
    losses = arguments.losses or (names() if every else list(LOSSES))
    engines = engines_here(arguments.engines)
    batches = arguments.batches or ([128, 1024] if every else [128, 512, 1024, 4096])
    shapes = [(b, k) for b in batches for k in arguments.per_class or ([4] if every else [4, 16])]
    times = measure_times(engines, losses, shapes, arguments.rounds)
    text = [
        "# Loss and gradient, milliseconds",
        f"Medians of {arguments.rounds} interleaved rounds, dimension 128, unit vectors. "
        f"{machine()}.",
        "`gemm` is X X' of the batch with its gradient. `pml` does not have the semi-hard rule of "
        "tensorflow-addons; the row shows its own rule (every triplet of the band). `out of "
        "reach`: needs B x B x B memory at this size. tensorflow-addons ran after the others for "
        "1,024 and more, because it needs most of 23 GB. Engines slower than two seconds ran three "
        "rounds.",
        table(times, engines, losses, shapes),
    ]
    name = arguments.name or ("every_loss" if every else "losses")
    path, plot_path = write(arguments.out, f"{name}.md", text), arguments.out / f"{name}.png"
    plot(times, engines, losses, batches, plot_path)
    print(f"{path}, {plot_path}: tables and curves")


if __name__ == "__main__":
    main()
