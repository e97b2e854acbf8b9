"""Time of a training step including data, compared with classification with the same backbone.

    python benchmarks/fit.py                              # all engines; half an hour on two cores
    python benchmarks/fit.py --backend tensorflow --rounds 15

The backbone is the Conv-4 of the few-shot literature on 28 x 28 images, in Keras and in PyTorch.
The reference is classification of the same images with a dense softmax head, which measures the
framework without metric learning. Each engine runs in a separate process; the steps alternate and
the result is the median of the rounds, so that other processes slow down all steps equally. On a
shared machine set OMP_NUM_THREADS=1 for PyTorch: the waiting time of its threads counts as CPU
time. Needs the extras `jax` and `parity`.
"""

import argparse
import os
import statistics
from pathlib import Path

import losses
from fit_engine import CLASSES, ENGINES, PER_CLASS, SKIPPED, steps_of

RESULTS = losses.RESULTS
# Names of the engines in the tables; "torch" is Keras on PyTorch.
NAMES = {"pml": "PyTorch, pytorch-metric-learning"}
NAMES |= {engine: f"Keras, {engine}" for engine in ENGINES if engine != "pml"}
PLAIN, PLAIN_DATASET = "classification", "classification, PyDataset"


def measure(engines, selected, rounds, **case):
    """Return `{(engine, step): [(seconds, CPU seconds) of each round] or an error}`."""
    workers = {engine: losses.Worker("fit_engine.py", engine) for engine in engines}
    found = {(e, s): [] for e in engines for s in steps_of(e) if selected is None or s in selected}
    for turn in range(rounds):
        for (engine, step), seconds in found.items():
            if not isinstance(seconds, list):
                continue
            answer = workers[engine].measure({"step": step, **case})
            if "seconds" in answer:
                seconds.append((answer["seconds"], answer["cpu"]))
            else:
                found[engine, step] = answer["error"]
        print(f"round {turn + 1} of {rounds}: done", flush=True)
    for worker in workers.values():
        worker.close()
    return found


def median(found, engine, step, clock=0):
    """Return the median of the wall time (0) or CPU time (1) of a step, or None."""
    rounds = found.get((engine, step))
    return statistics.median(r[clock] for r in rounds) if isinstance(rounds, list) else None


def ratio(found, engine, step, to, clock=0):
    """Return the ratio of two medians, or None if one of them is missing."""
    ours, theirs = (median(found, engine, s, clock) for s in (step, to))
    return None if None in (ours, theirs) else ours / theirs


def table(found):
    lines = [
        "| framework | step | ms | CPU ms | ratio | CPU ratio | to PyDataset |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (engine, step), rounds in found.items():
        name = f"| {NAMES.get(engine, engine)} | {step} | "
        if not isinstance(rounds, list):
            lines.append(f"{name}{rounds} | | | | |")
            continue
        cells = [losses.shown(1e3 * median(found, engine, step, clock)) for clock in (0, 1)]
        cells += [
            losses.shown(ratio(found, engine, step, to, clock), 2)
            for to, clock in ((PLAIN, 0), (PLAIN, 1), (PLAIN_DATASET, 0))
        ]
        lines.append(name + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(found):
    """Return the ratios of the triplet step to each reference as Markdown."""
    parts = []
    for engine, step in [(e, s) for e, s in found if s in ("TripletModel", "TripletMarginLoss")]:
        for to in (PLAIN, PLAIN_DATASET):
            wall, computed = (ratio(found, engine, step, to, clock) for clock in (0, 1))
            if wall is not None:
                parts.append(f"- {NAMES[engine]}, to {to}: {wall:.2f} ({computed:.2f})")
    return (
        "Ratio of a step with the triplet loss to a classification step of the same framework, by "
        "wall time (by CPU time):\n\n" + "\n".join(parts)
    )


def plot(found, path):
    from matplotlib.figure import Figure

    bars = [key for key, rounds in found.items() if isinstance(rounds, list)][::-1]
    figure = Figure(figsize=(8, 0.3 * len(bars) + 1), layout="constrained")
    axes = figure.add_subplot()
    colors = {engine: f"C{i}" for i, engine in enumerate(ENGINES)}
    for position, (engine, step) in enumerate(bars):
        alpha = 0.5 if step.startswith(PLAIN) else 1
        axes.barh(position, 1e3 * median(found, engine, step), color=colors[engine], alpha=alpha)
    axes.set_yticks(range(len(bars)), [f"{engine}: {step}" for engine, step in bars])
    axes.set(xlabel="milliseconds a step")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--only", nargs="+", help="names of steps; default: all")
    parser.add_argument("--jit", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found = measure(
        arguments.backend,
        arguments.only,
        arguments.rounds,
        batch=arguments.batch,
        steps=arguments.steps,
        jit=arguments.jit,
    )
    text = [
        "# A training step",
        f"Conv-4 (four blocks of 3 x 3 convolution with 64 filters, batch normalization, ReLU, max "
        f"pooling), random images 28 x 28 x 1 of {CLASSES:,} classes, batch {arguments.batch} "
        f"({arguments.batch // PER_CLASS} classes x {PER_CLASS}), float32, Adam, "
        f"jit_compile={arguments.jit}. Medians of {arguments.rounds} interleaved rounds of "
        f"{arguments.steps} steps each, after {SKIPPED} warm-up steps. "
        f"{losses.machine()}. Load average at the end: {os.getloadavg()[2]:.1f} (15 minutes).",
        f"`classification` is a dense softmax head of {CLASSES:,} classes and "
        "`fit(x, y, batch_size=...)` on NumPy arrays, without metrics; `PyDataset` uses a data set "
        "that returns random rows of the same arrays, `tf.data` uses shuffled slices. Our models "
        "have their default loss and use `data.BalancedBatches`, except for `arrays`. PyTorch runs "
        "a loop over a `DataLoader` without workers, with `MPerClassSampler`, "
        "`TripletMarginMiner` (semi-hard) and `TripletMarginLoss`.",
        "`CPU ms` is the CPU time of all threads of the process, which depends less on other "
        "processes; it includes the waiting time of PyTorch's threads. `ratio`: to "
        "`classification` of the same framework.",
        table(found),
        ratios(found),
    ]
    path = losses.write(arguments.out, "fit.md", text)
    plot(found, arguments.out / "fit.png")
    print(f"{path}, {arguments.out / 'fit.png'}: table and bars")


if __name__ == "__main__":
    main()
