"""Batches from TFRecord files: decoded JPEGs per second, and resident memory over an epoch.

    python benchmarks/data.py
    python benchmarks/data.py --images 4000 --records 100000 --workers 2

Images: JPEGs of 64 x 64 in four files, read as `BalancedBatches` of 32 x 4 with
`load=ImageLoader((64, 64), feature="image")` by threads and by processes, as in `fit` (which starts
processes for each epoch; included). For comparison: Pillow in one thread, on bytes
in memory, and `tf.data` with TensorFlow's decoder, which does not balance. The rounds are
interleaved. Images per second are wall-clock times; the CPU time per image is also valid on a busy
machine.

Memory: small records, batches of 64 x 4 over one epoch; resident memory is measured 21 times.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import numpy as np
from losses import RESULTS, machine, write

SIDE, SHARDS, CLASSES, EPOCHS = 64, 4, 200, 2
GOAL = 5000


def resident():
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def write_images(folder, count):
    """Write smooth images with some noise; their JPEGs are as large as those of thumbnails."""
    import tensorflow as tf
    from PIL import Image

    rng = np.random.default_rng(0)
    stock = []
    for _ in range(500):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8"))
        image = np.asarray(coarse.resize((SIDE, SIDE), Image.BICUBIC), "int16")
        image = np.clip(image + rng.integers(-8, 9, image.shape), 0, 255).astype("uint8")
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=90)
        stock.append(stream.getvalue())
    for shard in range(SHARDS):
        with tf.io.TFRecordWriter(str(folder / f"images-{shard}.tfrecord")) as writer:
            for i in range(shard, count, SHARDS):
                features = {"image": stock[i % len(stock)], "label": i % CLASSES}
                writer.write(example(tf, features))
    return statistics.mean(map(len, stock))


def write_records(folder, count):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1000, 16)).astype("float32")
    labels = rng.integers(0, count // 20, count)
    for shard in range(SHARDS):
        with tf.io.TFRecordWriter(str(folder / f"records-{shard}.tfrecord")) as writer:
            for i in range(shard, count, SHARDS):
                features = {"x": vectors[i % 1000].tobytes(), "label": int(labels[i])}
                writer.write(example(tf, features))


def example(tf, features):
    """A serialised Example of bytes and integers."""
    kinds = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for name, value in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=kinds)).SerializeToString()


def timed(function):
    """Return the result of a function, its wall-clock seconds and its CPU seconds."""
    clock, cpu = time.perf_counter(), cpu_time()
    result = function()
    return result, time.perf_counter() - clock, cpu_time() - cpu


def cpu_time():
    """Return the CPU seconds of this process and of its child processes that have ended."""
    return sum(os.times()[:4])


def decode_balanced(folder, workers, rounds):
    """Return images, seconds and CPU seconds of each round, in threads."""
    batches = balanced(folder)
    with ThreadPool(workers) as pool:

        def epoch():
            batches.on_epoch_end()
            return sum(len(y) for _, y in pool.imap(batches.__getitem__, range(len(batches))))

        return [timed(epoch) for _ in range(rounds)]


def decode_in_processes(folder, workers, rounds):
    """Return the same for processes, each with a copy of the batches."""
    batches = balanced(folder)

    def epoch():
        batches.on_epoch_end()
        with multiprocessing.get_context("fork").Pool(workers, _hold, (batches,)) as pool:
            count = sum(len(y) for _, y in pool.imap(_held, range(len(batches))))
            pool.close()
            pool.join()
        return count

    return [timed(epoch) for _ in range(rounds)]


def balanced(folder):
    from keras_metric.data import BalancedBatches, ImageLoader, tfrecord_items

    items, labels = tfrecord_items(folder / "images-*.tfrecord")
    load = ImageLoader((SIDE, SIDE), feature="image")
    batches = BalancedBatches(items, labels, 32, 4, seed=0, load=load)
    batches[0]
    return batches


def _hold(batches):
    global _BATCHES
    _BATCHES = batches


def _held(index):
    return _BATCHES[index]


def decode_bare(folder, rounds):
    """Return the same for Pillow in one thread, on bytes in memory."""
    from PIL import Image

    from keras_metric.data import parse_example, tfrecord_items

    items, _ = tfrecord_items(folder / "images-*.tfrecord", label=None)
    stock = [parse_example(items[i])["image"][0] for i in range(min(len(items), 4000))]

    def epoch():
        for image in stock:
            np.asarray(Image.open(io.BytesIO(image)))
        return len(stock)

    return [timed(epoch) for _ in range(rounds)]


def decode_tensorflow(folder, rounds):
    """Return the same for tf.data: parse, decode and batch on all cores, without balancing."""
    import tensorflow as tf

    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def decoded(record):
        parsed = tf.io.parse_single_example(record, features)
        return tf.io.decode_jpeg(parsed["image"], channels=3), parsed["label"]

    files = sorted(str(path) for path in folder.glob("images-*.tfrecord"))
    data = tf.data.TFRecordDataset(files).map(decoded, tf.data.AUTOTUNE).batch(128).prefetch(2)

    def epoch():
        return sum(len(y) for _, y in data)

    epoch()
    return [timed(epoch) for _ in range(rounds)]


def memory(folder):
    """Return resident bytes before the files are opened, with their index, and over an epoch."""
    from keras_metric.data import BalancedBatches, parse_example, tfrecord_items

    start = resident()
    (items, labels), seconds, _ = timed(lambda: tfrecord_items(folder / "records-*.tfrecord"))

    def load(record):
        return np.frombuffer(parse_example(record)["x"][0], "float32")

    batches = BalancedBatches(items, labels, 64, 4, seed=0, load=load)
    batches[0]
    opened, resident_bytes = resident(), []
    steps = np.linspace(0, len(batches) - 1, 21).astype(int).tolist()
    _, epoch_seconds, _ = timed(lambda: _walk(batches, steps, resident_bytes))
    return {
        "records": len(items),
        "bytes": sum(path.stat().st_size for path in folder.glob("records-*.tfrecord")),
        "start": start,
        "opened": opened,
        "resident": resident_bytes,
        "index_seconds": seconds,
        "epoch_seconds": epoch_seconds,
    }


def _walk(batches, steps, resident_bytes):
    for i in range(len(batches)):
        batches[i]
        if i in steps:
            resident_bytes.append(resident())
    return len(batches)


def work(arguments):
    """Run one measurement in a separate process and print the result."""
    folder = Path(arguments.folder)
    if arguments.work == "memory":
        found = memory(folder)
    elif arguments.work == "pillow":
        found = decode_bare(folder, arguments.rounds)
    elif arguments.work == "tf.data":
        found = decode_tensorflow(folder, arguments.rounds)
    else:
        kind, workers = arguments.work.split("-")
        decode = {"threads": decode_balanced, "processes": decode_in_processes}[kind]
        found = decode(folder, int(workers), arguments.rounds)
    print(json.dumps(found))


def measure(folder, what, rounds):
    command = [sys.executable, __file__, "--work", str(what), "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--rounds", str(rounds)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def speed_table(found):
    lines = [
        "| what | images per second | CPU time per image, us |",
        "| --- | ---: | ---: |",
    ]
    for name, rounds in found.items():
        rate = statistics.median(count / seconds for count, seconds, _ in rounds)
        micro = statistics.median(1e6 * cpu / count for count, _, cpu in rounds)
        lines.append(f"| {name} | {rate:,.0f} | {micro:.0f} |")
    return "\n".join(lines)


def memory_table(found):
    values = np.array(found["resident"]) / 2**20
    parts = [
        ("before the files are opened", found["start"] / 2**20),
        ("with index, labels and plan of the first epoch", found["opened"] / 2**20),
        ("minimum over the epoch", values.min()),
        ("maximum over the epoch", values.max()),
        ("at its end", values[-1]),
    ]
    lines = ["| resident memory | MB |", "| --- | ---: |"]
    return "\n".join(lines + [f"| {name} | {value:,.1f} |" for name, value in parts])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--workers", nargs="+", type=int, default=[2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_images(folder, arguments.images)
        contenders = {"threads-1": "BalancedBatches, 1 thread"}
        for workers in arguments.workers:
            for kind in ("threads", "processes"):
                contenders[f"{kind}-{workers}"] = f"BalancedBatches, {workers} {kind}"
        contenders |= {"pillow": "Pillow, 1 thread", "tf.data": "tf.data"}
        found = {title: [] for title in contenders.values()}
        for _ in range(arguments.rounds):
            for what, title in contenders.items():
                found[title] += measure(folder, what, EPOCHS)
        print(speed_table(found), flush=True)
        write_records(folder, arguments.records)
        kept = measure(folder, "memory", 1)
        print(memory_table(kept), flush=True)
    text = [
        "# Batches from TFRecord files",
        f"JPEGs of 64 x 64, {size:,.0f} bytes each, {arguments.images:,} in {SHARDS} files; "
        f"`BalancedBatches` of 32 x 4, median of {arguments.rounds} x {EPOCHS} epochs. "
        f"Goal: {GOAL:,} per second on two cores. {machine()}. Load before the start: "
        f"{load:.1f}.",
        speed_table(found),
        f"One epoch of {kept['records']:,} records, {kept['bytes'] / 2**20:,.0f} MB of files. "
        f"Reading all labels once took {kept['index_seconds']:.0f} s; `index=` keeps them. The "
        f"epoch took {kept['epoch_seconds']:.0f} s in one thread.",
        memory_table(kept),
    ]
    path = write(arguments.out, "data.md", text)
    print(f"{path}: speed and memory of batches from files")


if __name__ == "__main__":
    main()
