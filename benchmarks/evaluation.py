"""Retrieval metrics compared with pytorch-metric-learning, FAISS and the matrix product.

    make bench
    python benchmarks/evaluation.py --rounds 3

Leave-one-out over embeddings of length 1, in the classes of Stanford Online Products' test set
(60,502 items, 11,316 classes of 2 to 12) and in a smaller set. Every call runs in a new process
after imports and a warm-up; the contenders are interleaved. CPU seconds are those of all threads;
on a busy machine they are more reliable than elapsed seconds. Extra memory is the growth of the
resident set over that of the data and the libraries (Linux). Needs the extra `parity`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

# Items, dimension, classes, and the noise in tenths that makes recall@1 about 0.78 and 0.65.
CASES = {"60,502 x 512": (60_502, 512, 11_316, 22), "10,000 x 128": (10_000, 128, 1_870, 16)}
# The last one searches as many neighbours as recall@1000 needs.
CONTENDERS = ("keras_metric", "pml", "faiss", "gemm", "faiss deep")
# Results that both libraries have.
AGREE = {"recall_at_1", "recall_at_1000", "precision_at_1", "r_precision", "map_at_r"}
AGREE |= {"mean_average_precision_at_r"}
WHAT = {
    "keras_metric": "`retrieval_metrics(k=(1, 10, 100, 1000))`: recall, precision, NDCG, "
    "R-precision, MAP, MAP@R, MRR",
    "pml": '`AccuracyCalculator(k="max_bin_count")`: precision@1, R-precision, MAP@R',
    "faiss": "`IndexFlatL2`, as many neighbours as the largest class: indices, no metric",
    "gemm": "X X' in float32, 1,024 rows at a time",
    "faiss deep": "`IndexFlatL2`, 1,001 neighbours: the search that recall@1000 needs",
}


def make_data(items, dim, classes, tenths):
    """Embeddings of length 1 whose recall@1 is about that of a trained network."""
    import numpy as np

    rng = np.random.default_rng(0)
    sizes = np.full(classes, 2)
    # Add the other items to classes with fewer than 12: 2 to 12 items, as in the data set.
    while (missing := items - sizes.sum()) > 0:
        chosen = rng.permutation(np.flatnonzero(sizes < 12))[:missing]
        sizes[chosen] += 1
    labels = rng.permutation(np.repeat(np.arange(classes), sizes))
    x = rng.standard_normal((classes, dim), "float32")[labels]
    x += tenths / 10 * rng.standard_normal((items, dim), "float32")
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


def prepared(contender):
    """Return a function of (embeddings, labels) that returns results to print."""
    import numpy as np

    if contender == "keras_metric":
        from keras_metric.evaluation import retrieval_metrics

        return lambda x, y: retrieval_metrics(x, y, k=(1, 10, 100, 1000))
    if contender == "pml":
        import torch
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

        names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
        calculator = AccuracyCalculator(
            include=names, k="max_bin_count", device=torch.device("cpu")
        )
        return lambda x, y: calculator.get_accuracy(torch.from_numpy(x), torch.from_numpy(y))
    if contender == "gemm":

        def product(x, y):
            out = np.empty((1024, len(x)), "float32")
            for start in range(0, len(x), 1024):
                rows = x[start : start + 1024]
                np.matmul(rows, x.T, out=out[: len(rows)])
            return {}

        return product
    import faiss

    def search(x, y):
        index = faiss.IndexFlatL2(x.shape[1])
        index.add(x)
        depth = 1001 if contender == "faiss deep" else int(np.bincount(y).max())
        index.search(x, min(depth, len(x)))
        return {}

    return search


def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def worker(contender, *case):
    function = prepared(contender)
    function(*make_data(512, case[1], 64, 16))
    x, y = make_data(*case)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, start, cpu = kilobytes("VmRSS"), time.perf_counter(), time.process_time()
    result = function(x, y)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = kilobytes("VmHWM") - before
    shown = {key: float(value) for key, value in result.items()}
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mb": peak / 1024, "result": shown}))


def run_worker(contender, case):
    command = [sys.executable, __file__, "--worker", contender, *map(str, case)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def table(answers, name):
    lines = [
        f"## {name}",
        "",
        "| | seconds | ours / it | CPU seconds | ours / it | extra memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for contender, found in answers.items():
        cells = []
        for clock in ("seconds", "cpu"):
            times = [answer[clock] for answer in found]
            pairs = zip(answers["keras_metric"], found)
            ratio = statistics.median(own[clock] / other[clock] for own, other in pairs)
            cells += [f"{statistics.median(times):.2f} ({min(times):.2f})", f"{ratio:.2f}"]
        cells.append(f"{max(answer['mb'] for answer in found):,.0f}")
        lines.append(f"| {contender} | " + " | ".join(cells) + " |")
    results = {who: answers[who][0]["result"] for who in ("keras_metric", "pml")}
    for who, result in results.items():
        lines += [
            "",
            f"{who}: " + ", ".join(f"{k} {v:.6f}" for k, v in result.items() if k in AGREE),
        ]
    return "\n".join(lines)


def main():
    if "--worker" in sys.argv:
        contender, *numbers = sys.argv[2:]
        worker(contender, *map(int, numbers))
        return
    from losses import RESULTS, machine, write

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    text = [
        "# Retrieval metrics",
        f"Leave-one-out, {arguments.rounds} interleaved rounds, each call in a new process "
        "(faiss deep: one): medians, minima in brackets, and medians of the ratios of each round. "
        f"{machine()}, faiss-cpu {metadata.version('faiss-cpu')}.",
        "\n".join(f"- {name}: {what}" for name, what in WHAT.items()),
    ]
    for name in arguments.cases:
        answers = {}
        for number in range(arguments.rounds):
            for contender in arguments.contenders:
                if contender == "faiss deep" and number:
                    continue
                answer = run_worker(contender, CASES[name])
                answers.setdefault(contender, []).append(answer)
                print(name, contender, {k: answer[k] for k in ("seconds", "cpu", "mb")}, flush=True)
        text.append(table(answers, name))
    print(write(arguments.out, "evaluation.md", text))


if __name__ == "__main__":
    main()
