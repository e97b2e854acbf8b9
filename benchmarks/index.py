"""Speed of `search.Index` compared with direct calls of FAISS, and of the HTTP service.

    make bench-index
    python benchmarks/index.py --items 100000 --parts flat kinds service

Times are medians of alternating runs. FAISS gets the same vectors, already of length 1, and returns
row numbers; the index checks the queries and returns ids, labels, attributes and exact distances.
Writes results/index.md.
"""

import argparse
import asyncio
import importlib.metadata
import io
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import faiss
import keras
import numpy as np

from keras_metric.search import Index

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "index.md"
DIM = 128
K = 10
# On a busy machine `--cpu-clock` measures the CPU time of this process instead of wall time.
CLOCK = time.perf_counter
PACKAGES = ("faiss-cpu", "numpy", "keras", "tensorflow", "fastapi", "uvicorn")


def seconds(function, *arguments, clock=None, **named):
    clock = clock or CLOCK
    start = clock()
    result = function(*arguments, **named)
    return clock() - start, result


def alternate(rounds, *functions):
    """The median time of each function, from alternating runs."""
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, results in zip(functions, times):
            results.append(seconds(function)[0])
    return [statistics.median(results) for results in times]


def resident():
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def embeddings(rng, count):
    """Unit vectors around 20,000 people; their spread falls with the dimension."""
    spread = (1 / np.sqrt(1 + np.arange(DIM))).astype("float32")
    people = np.random.default_rng(1).normal(size=(20_000, DIM)).astype("float32")
    who = rng.integers(len(people), size=count)
    x = (people[who] + 0.6 * rng.normal(size=(count, DIM)).astype("float32")) * spread
    return x / np.linalg.norm(x, axis=1, keepdims=True), who


def attributes(rng, count):
    regions = [f"r{n}" for n in range(1000)]
    return [
        {"region": regions[r], "year": 2000 + y, "score": s, "device": "phone" if d else "desk"}
        for r, y, s, d in zip(
            rng.integers(1000, size=count).tolist(),
            rng.integers(20, size=count).tolist(),
            rng.random(count).tolist(),
            rng.integers(2, size=count).tolist(),
        )
    ]


def measure_flat(count):
    rng = np.random.default_rng(0)
    x, who = embeddings(rng, count)
    rows = attributes(rng, count)
    labels = [f"person {n}" for n in who]
    queries, _ = embeddings(rng, 1000)
    lines = []

    index = Index(DIM)
    before = resident()
    page = 10_000
    spent = 0.0
    for start in range(0, count, page):
        part = slice(start, start + page)
        spent += seconds(index.add, x[part], labels[part], attributes=rows[part])[0]
    bytes_each = (resident() - before) / count
    lines.append(f"| add {count:,} with 4 attributes, {page:,} a call | {spent:.1f} s |")
    lines.append(f"| memory of it | {bytes_each:.0f} bytes an item |")
    print(lines[-2:], flush=True)

    raw = faiss.IndexFlatIP(DIM)
    raw.add(x)
    raw_time, own_time = alternate(
        5, lambda: raw.search(queries, K), lambda: index.search(queries, K)
    )
    same = np.mean(
        [
            {match.id for match in line} == set(row)
            for line, row in zip(index.search(queries, K), raw.search(queries, K)[1].tolist())
        ]
    )
    lines.append(f"| search 1,000 queries, k = {K}: raw FAISS | {raw_time:.3f} s |")
    lines.append(f"| the same by the index | {own_time:.3f} s, {own_time / raw_time:.3f} times |")
    lines.append(f"| queries with the same neighbours as raw FAISS | {100 * same:.1f} % |")
    one = iter(np.resize(queries, (10_000, 1, DIM)))
    raw_time, own_time = alternate(
        101, lambda: raw.search(next(one), K), lambda: index.search(next(one), K)
    )
    lines.append(f"| search one query: raw FAISS | {1000 * raw_time:.2f} ms |")
    extra = 1000 * (own_time - raw_time)
    lines.append(f"| the same by the index | {1000 * own_time:.2f} ms, {extra:+.2f} ms |")
    print(lines[-5:], flush=True)

    regions = np.array([row["region"] for row in rows])
    years = np.array([row["year"] for row in rows])
    devices = np.array([row["device"] for row in rows])
    cases = [
        ({"device": "phone"}, devices == "phone"),
        ({"year": (2003, 2004)}, (years == 2003) | (years == 2004)),
        ({"year": 2003, "device": "desk"}, (years == 2003) & (devices == "desk")),
        ({"region": "r7"}, regions == "r7"),
    ]
    lines += [
        "",
        "| filter | fraction | 1,000 queries | one query | exact |",
        "|---|---|---|---|---|",
    ]
    for where, mask in cases:
        batch, found = seconds(index.search, queries, K, where)
        single = statistics.median(
            seconds(index.search, query[None], K, where)[0] for query in queries[:21]
        )
        kept = np.flatnonzero(mask)
        inside = faiss.knn(queries, x[kept], K, metric=faiss.METRIC_INNER_PRODUCT)[1]
        exact = np.mean(
            [{m.id for m in line} == set(kept[row]) for line, row in zip(found, inside)]
        )
        lines.append(
            f"| `{where}` | {mask.mean():.2%} | {batch:.3f} s | {1000 * single:.1f} ms | "
            f"{100 * exact:.1f} % |"
        )
        print(lines[-1], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        saving, _ = seconds(index.save, Path(folder) / "index", clock=time.perf_counter)
        loading, again = seconds(Index.load, Path(folder) / "index", clock=time.perf_counter)
        num_items = len(again)
        del again
        index.keep(Path(folder) / "index")
        each = [
            seconds(
                index.add,
                x[n : n + 1],
                ["new"],
                [f"new {n}"],
                [{"year": 1}],
                clock=time.perf_counter,
            )[0]
            for n in range(200)
        ]
        index.close()
    head = [
        f"| save {num_items:,} items, flushed to the disk | {saving:.1f} s |",
        f"| load them, checksums compared | {loading:.1f} s |",
        f"| add one item to a kept index, on the disk when the call returns | "
        f"{1000 * statistics.median(each):.2f} ms |",
    ]
    end = lines.index("")
    return lines[:end] + head + lines[end:]


def measure_kinds(count):
    rng = np.random.default_rng(0)
    x, who = embeddings(rng, count)
    queries, _ = embeddings(rng, 500)
    expected = faiss.knn(queries, x, K, metric=faiss.METRIC_INNER_PRODUCT)[1].tolist()
    lines = [
        f"{count:,} items, defaults of each kind, k = {K}.",
        "",
        "| kind | add | memory in addition to the vectors | recall@10 | 500 queries | one query |",
        "|---|---|---|---|---|---|",
    ]
    for kind in ("flat", "short", "hnsw", "ivf", "pq", "ivf-pq"):
        index = Index(DIM, kind=kind)
        adding, _ = seconds(index.add, x, who)
        batch, found = seconds(index.search, queries, K)
        single = statistics.median(
            seconds(index.search, query[None], K)[0] for query in queries[:51]
        )
        hits = sum(len({m.id for m in line} & set(row)) for line, row in zip(found, expected))
        extra = 0
        if index._store.approximate is not None:
            arrays = index._store.approximate.to_arrays()[1]
            extra = sum(array.nbytes for array in arrays.values()) / count
        lines.append(
            f"| `{kind}` | {adding:.1f} s | {extra:.0f} bytes an item | "
            f"{hits / K / len(queries):.3f} | {batch:.3f} s | {1000 * single:.2f} ms |"
        )
        print(lines[-1], flush=True)
        del index
    return lines


def measure_writers(count, length):
    """One thread searches a kept index while others add to it, one item a call."""
    rng = np.random.default_rng(0)
    x, _ = embeddings(rng, count)
    queries, _ = embeddings(rng, 1000)
    lines = [
        f"{count:,} items in a folder that is kept, k = {K}, {length} seconds for each row. An "
        "addition is on the disk when its call returns.",
        "",
        "| threads that add | searches a second | slowest search | additions a second | "
        "of the thread with the fewest |",
        "|---|---|---|---|---|",
    ]
    for writers in range(5):
        index, added, times = Index(DIM), [0] * writers, []
        index.add(x, ["old"] * count)
        with tempfile.TemporaryDirectory() as folder:
            index.keep(Path(folder) / "index")
            end = time.perf_counter() + length

            def write(number, index=index, added=added, end=end):
                while time.perf_counter() < end:
                    index.add(x[:1], ["new"])
                    added[number] += 1

            threads = [threading.Thread(target=write, args=[n]) for n in range(writers)]
            for thread in threads:
                thread.start()
            while time.perf_counter() < end:
                query = queries[None, len(times) % len(queries)]
                times.append(seconds(index.search, query, K, clock=time.perf_counter)[0])
            for thread in threads:
                thread.join()
            index.close()
        lines.append(
            f"| {writers} | {len(times) / length:.0f} | {1000 * max(times):.1f} ms | "
            f"{sum(added) / length:.0f} | {min(added, default=0) / length:.0f} |"
        )
        print(lines[-1], flush=True)
    return lines


def small_encoder(path):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(64, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(DIM),
            keras.layers.UnitNormalization(),
        ]
    )
    encoder.save(path)


def measure_service(rate, length):
    """Send requests at a fixed rate, without waiting for responses; one in five enrols."""
    import httpx
    from PIL import Image

    rng = np.random.default_rng(0)
    images = []
    for _ in range(50):
        file = io.BytesIO()
        pixels = rng.integers(256, size=(16, 16, 3)).astype("uint8")
        Image.fromarray(pixels).resize((128, 128)).save(file, "JPEG")
        images.append(file.getvalue())
    headers = {"Content-Type": "image/jpeg"}
    lines = [
        "| requests a second | responses | errors | median | 99 % within | CPU time, a request |",
        "|---|---|---|---|---|---|",
    ]

    async def one(client, n, times, errors):
        path = f"/enrol?label=p{n}" if n % 5 == 0 else "/identify"
        start = time.perf_counter()
        try:
            response = await client.post(path, content=images[n % 50], headers=headers)
            succeeded = response.status_code in (200, 201)
        except httpx.TransportError:  # a refused or broken connection
            succeeded = False
        times.append(time.perf_counter() - start)
        if not succeeded:
            errors.append(n)

    async def load(url, rate):
        times, errors, tasks = [], [], []
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            start = time.perf_counter()
            for n in range(rate * length):
                await asyncio.sleep(max(0, start + n / rate - time.perf_counter()))
                tasks.append(asyncio.create_task(one(client, n, times, errors)))
            await asyncio.gather(*tasks)
            spent = time.perf_counter() - start
        return times, errors, spent

    with tempfile.TemporaryDirectory() as folder:
        small_encoder(Path(folder, "encoder.keras"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, ROOT / "examples" / "serve.py", "--encoder"]
        command += [f"{folder}/encoder.keras", "--index", f"{folder}/index"]
        command += ["--threshold", "0.01", "--port", str(port)]
        service = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
        )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(1200):
                try:
                    httpx.get(url)
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            asyncio.run(load(url, 20))
            for target in (rate, 2 * rate, 4 * rate):
                before = cpu_seconds(service.pid)
                times, errors, spent = asyncio.run(load(url, target))
                each = (cpu_seconds(service.pid) - before) / len(times)
                times.sort()
                lines.append(
                    f"| {target} | {len(times) / spent:.1f} a second | {len(errors)} | "
                    f"{1000 * times[len(times) // 2]:.0f} ms | "
                    f"{1000 * times[int(0.99 * len(times))]:.0f} ms | {1000 * each:.1f} ms |"
                )
                print(lines[-1], flush=True)
        finally:
            service.terminate()
            service.wait(60)
    return lines


def cpu_seconds(process):
    """User and system time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--kind-items", type=int, default=200_000)
    parser.add_argument("--writer-items", type=int, default=3000)
    parser.add_argument("--rate", type=int, default=50, help="requests a second")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--note", default="", help="a sentence about the run, for the page")
    parser.add_argument(
        "--parts", nargs="+", choices=["flat", "kinds", "writers", "service"],
        default=["flat", "kinds", "writers", "service"],
    )  # fmt: skip
    parser.add_argument("--cpu-clock", action="store_true", help="for a busy machine")
    arguments = parser.parse_args()
    if arguments.cpu_clock:
        global CLOCK
        CLOCK = time.process_time
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    text = [
        "# The index: speed",
        "",
        f"{len(os.sched_getaffinity(0))} cores, {faiss.omp_get_max_threads()} threads for FAISS, "
        f"{cpu()}; Python {platform.python_version()}, {versions}. {arguments.note}".strip(),
    ]
    if arguments.cpu_clock:
        text += [
            "",
            "The machine was busy: times are CPU seconds of this process; those of saving, ",
        ]
        text[-1] += "loading, keeping and of the service are wall time."
    if "flat" in arguments.parts:
        text += ["", f"## Flat: {arguments.items:,} vectors of {DIM} dimensions", "", "| | |"]
        text += ["|---|---|", *measure_flat(arguments.items)]
    if "kinds" in arguments.parts:
        text += ["", "## Kinds", "", *measure_kinds(arguments.kind_items)]
    if "writers" in arguments.parts:
        text += ["", "## Searches while threads add", ""]
        text += measure_writers(arguments.writer_items, 5)
    if "service" in arguments.parts:
        text += ["", "## examples/serve.py", ""]
        text += [
            "A network of three convolutions over 64 x 64 pixels; images of 128 x 128 as JPEG, "
            "one in five enrolled and flushed to the disk. Client and service share the machine.",
            "",
            *measure_service(arguments.rate, arguments.seconds),
        ]
    RESULTS.write_text("\n".join(text) + "\n")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
