"""Losses and training steps on a GPU: time and peak device memory.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --batches 1024 --rounds 15

The losses in float32 without TensorFloat-32, the training steps in mixed_float16 (PyTorch: autocast
with a gradient scaler). Each engine runs in a separate process; the engines alternate. Peak memory
is reported by the framework in a new process. Needs GPU builds of TensorFlow, JAX or PyTorch, and
the extra `parity`; engines without a GPU are skipped.
"""

import argparse
import statistics
import sys
from pathlib import Path

import fit
import losses
from fit_engine import PER_CLASS, SKIPPED, steps_of
from gpu_engine import ENGINES

ROWS = ("gemm", *losses.LOSSES)


def worker(engine, device):
    return losses.Worker("gpu_engine.py", engine, device)


def devices(engines, device):
    """Return `{engine: name of its GPU}` for the engines that have one."""
    found = {}
    for engine in engines:
        process = worker(engine, device)
        answer = process.measure({"measure": "device"})
        process.close()
        if "error" in answer:
            print(f"{fit.NAMES[engine]} is skipped: {answer['error']}")
        elif answer["device"] or device == "cpu":
            found[engine] = answer["device"] or "cpu"
    return found


def loss_case(engine, loss, batch):
    data = {"batch": batch, "per_class": PER_CLASS, "dim": 128}
    return {"measure": "loss", "loss": losses.of_engine(engine, loss), "data": data}


def fit_case(step, batch, steps, half):
    settings = {"steps": steps, "half": half, "jit": "auto"}
    return {"measure": "fit", "step": step, "batch": batch, **settings}


def measure(cases, device, rounds):
    """Return `{row: {engine: (milliseconds or a word, peak bytes)}}` of all cases."""
    result = {row: {} for row in cases}
    engines = {engine for row in cases.values() for engine in row}
    workers = {engine: worker(engine, device) for engine in ENGINES if engine in engines}
    for row, of_engines in cases.items():
        seconds, peaks = {engine: [] for engine in of_engines}, {}
        for _ in range(rounds):
            for engine, case in of_engines.items():
                if engine in result[row]:
                    continue
                answer = workers[engine].measure(case)
                if "seconds" in answer:
                    seconds[engine].append(answer["seconds"])
                    peaks[engine] = answer["peak"]
                    continue
                word = "–" if "missing" in answer else answer["error"].split(":")[0]
                result[row][engine] = (word, None)
                # The state of the device is undefined after a failure.
                workers[engine].close()
                workers[engine] = worker(engine, device)
        for engine in of_engines:
            if engine in result[row]:
                continue
            if peaks[engine] is not None:
                fresh = worker(engine, device)
                peaks[engine] = fresh.measure(of_engines[engine]).get("peak")
                fresh.close()
            result[row][engine] = (1e3 * statistics.median(seconds[engine]), peaks[engine])
        print(f"{', '.join(map(str, row))}: done", flush=True)
    for process in workers.values():
        process.close()
    return result


def table(result, engines):
    lines = ["| what | batch | " + " | ".join(fit.NAMES[e] for e in engines) + " |"]
    lines.append("| --- |" + " ---: |" * (len(engines) + 1))
    for (what, batch), of_engines in result.items():
        cells = []
        for engine in engines:
            time, peak = of_engines.get(engine, (None, None))
            cells.append(losses.shown(time, 2) + (f" ({peak / 2**20:,.0f} MiB)" if peak else ""))
        lines.append(f"| {what} | {batch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="*", default=[1024, 4096, 8192])
    parser.add_argument("--fit-batches", type=int, nargs="*", default=[128, 1024])
    parser.add_argument("--losses", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--backend", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=50, help="training steps of a turn")
    parser.add_argument("--out", type=Path, default=losses.RESULTS)
    # For testing the benchmark without a GPU.
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    found = devices(arguments.backend, arguments.device)
    if not found:
        print("No engine has a GPU; nothing was measured.")
        sys.exit(0)
    engines = list(found)
    cases = {
        (loss, batch): {e: loss_case(e, loss, batch) for e in engines}
        for batch in arguments.batches
        for loss in arguments.losses
    }
    by_loss = measure(cases, arguments.device, arguments.rounds)
    cases = {}
    # float16 on a CPU takes minutes per step.
    half = arguments.device == "gpu"
    for batch in arguments.fit_batches:
        for ours, theirs in ((fit.PLAIN, fit.PLAIN), ("TripletModel", "TripletMarginLoss")):
            of_engines = {e: ours if ours in steps_of(e) else theirs for e in engines}
            cases[ours, batch] = {
                e: fit_case(s, batch, arguments.steps, half) for e, s in of_engines.items()
            }
    by_step = measure(cases, arguments.device, arguments.rounds)
    text = [
        "# On a GPU",
        f"Medians of {arguments.rounds} interleaved rounds, milliseconds. In brackets: peak device "
        "memory in a new process, if the framework reports it. "
        + "; ".join(f"{fit.NAMES[e]}: {name}" for e, name in found.items())
        + f". {losses.machine()}.",
        "# Loss and gradient",
        f"Float32 without TensorFloat-32, dimension 128, {PER_CLASS} per class. `gemm` is X X' of "
        "the batch with its gradient.",
        table(by_loss, engines),
        "# A training step",
        f"{'mixed_float16' if half else 'float32'}, Conv-4 on 28 x 28 images, steps as in "
        f"`fit.py`: {arguments.steps} per round after {SKIPPED} warm-up steps.",
        table(by_step, engines),
    ]
    path = losses.write(arguments.out, "gpu.md", text)
    print(f"{path}: tables of {', '.join(sorted(set(found.values())))}")


if __name__ == "__main__":
    main()
