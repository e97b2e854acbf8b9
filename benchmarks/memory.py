"""Peak memory of loss and gradient, and time for a large reference set.

    make bench
    python benchmarks/memory.py --every         # every loss, at 2,048
    python benchmarks/memory.py --batches 1024 --losses "triplet all"

Each measurement is the growth of the resident set in a new process, after imports and a small
batch. On CPUs only; needs the extras `jax` and `parity`.
"""

import argparse
import statistics
from pathlib import Path

from compared_losses import names
from engine import ENGINES
from losses import (
    LARGEST,
    LOSSES,
    RESULTS,
    engines_here,
    machine,
    of_engine,
    shown,
    worker_of,
    write,
)


def measure_memory(engines, losses, batch, per_class=4):
    """Return `{(loss, engine): bytes or a word}`, each from a new process."""
    memory = {}
    for loss in losses:
        for engine in engines:
            if engine.startswith("gemm") or batch > LARGEST.get(engine, batch):
                continue
            worker = worker_of(engine)
            answer = worker.measure(
                {
                    "measure": "memory",
                    "loss": of_engine(engine, loss),
                    "data": {"batch": batch, "per_class": per_class, "dim": 128},
                }
            )
            worker.close()
            print(f"batch {batch}, {loss}: {engine} done", flush=True)
            if "missing" not in answer:
                memory[loss, engine] = answer.get("bytes", answer.get("error"))
    return memory


def measure_references(engines):
    """Return `{engine: milliseconds or a word}` for 256 anchors and 65,536 references."""
    result = {}
    for engine in engines:
        if not engine.startswith("ours"):
            continue
        worker = worker_of(engine)
        case = {
            "measure": "time",
            "loss": "triplet semi-hard",
            "data": {"batch": 256, "per_class": 4, "dim": 128, "references": 65536},
        }
        answers = [worker.measure(case) for _ in range(3)]
        worker.close()
        times = [answer["seconds"] for answer in answers if "seconds" in answer]
        result[engine] = 1e3 * statistics.median(times) if times else answers[0].get("error")
    return result


def memory_table(memory, engines, losses, batches):
    ours = [engine for engine in engines if not engine.startswith("gemm")]
    lines = ["| loss | batch | " + " | ".join(ours) + " |", "| --- |" + " ---: |" * (len(ours) + 1)]
    for loss in losses:
        for batch in batches:
            cells = []
            for engine in ours:
                value = memory[batch].get((loss, engine))
                if isinstance(value, (int, float)):
                    value = value / (4 * batch * batch)
                cells.append(shown(value))
            lines.append(f"| {loss} | {batch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", help="default: 4096; --every: 2048")
    parser.add_argument("--every", action="store_true", help="every loss of the package")
    parser.add_argument("--losses", nargs="+", help="default: triplet losses and similar ones")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    engines = engines_here(arguments.engines)
    every = arguments.every
    losses = arguments.losses or (names() if every else list(LOSSES))
    batches = arguments.batches or [2048 if every else 4096]
    memory = {batch: measure_memory(engines, losses, batch) for batch in batches}
    text = [
        "# Peak memory, in multiples of B x B x 4 bytes",
        "Growth of the resident set in a new process for loss and gradient, 4 per class, "
        f"dimension 128. {machine()}.",
        "A distance matrix is 1. The B x B x B tensors of the other libraries are B: out of reach.",
        memory_table(memory, engines, losses, batches),
    ]
    if not every:
        against = ", ".join(f"{e} {shown(v)}" for e, v in measure_references(engines).items())
        text += [
            "# A large reference set",
            "Semi-hard triplets of 256 anchors against 65,536 references of the same 64 classes, "
            "so 1,024 positives for each anchor; loss and gradient of both sides, milliseconds "
            f"(median of 3): {against}.",
        ]
    path = write(arguments.out, "every_memory.md" if every else "memory.md", text)
    print(f"{path}: peak memory")


if __name__ == "__main__":
    main()
