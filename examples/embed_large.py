"""Embed a large folder of images with a saved encoder, into Milvus; go on where it was broken off.

    pip install "keras_metric[large,milvus]"
    python examples/embed_large.py PHOTOS --encoder runs/mnist/encoder.keras
    python examples/embed_large.py PHOTOS --encoder encoder.keras --uri http://localhost:19530
    python examples/embed_large.py --short          # draws a folder, and stops halfway once

Ray Data does the work: decoding runs in tasks on every core, the encoder in a few actors that keep
it loaded, on accelerators if there are any, and images stream from the one to the other, so that
memory does not grow with the folder. A task that dies is done again. The same script runs on a
cluster, with `ray start` on its machines and `--address auto` here, where all see the folder. Of
the other engines, Spark wants Java beside Python, Dask has no stage that keeps a model loaded, and
the loaders of Keras, PyTorch and TensorFlow end with one machine.

An id in the index is the path below the folder, its label the folder that the image is in. What is
in the index already is left out: start the script again after a kill, or with new images.
"""

import argparse
import os
import time
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()
# Disables Ray's usage statistics.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="images, at any depth")
    parser.add_argument("--encoder", type=Path, help="a saved encoder: encoder.keras")
    parser.add_argument("--index", type=Path, default=Path("runs/embed_large/index"))
    parser.add_argument(
        "--uri", help="address of Milvus; default: a file beside the index, INDEX.db"
    )
    parser.add_argument("--encoders", type=int, default=1, help="actors that keep the encoder")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for each of them")
    parser.add_argument("--batch", type=int, default=256, help="images that the encoder takes")
    parser.add_argument("--address", help="of a Ray cluster; default: this machine alone")
    parser.add_argument("--stop-after", type=int, help="embed no more than so many images now")
    parser.add_argument("--short", action="store_true", help="64 drawn images, to see it run")
    arguments = parser.parse_args()
    if not arguments.short and not (arguments.folder and arguments.encoder):
        parser.error("name a folder and --encoder, or say --short")
    return arguments


def walk(folder):
    """Paths of the images below `folder`, in order, and their paths from there."""
    for where, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(ENDINGS):
                path = os.path.join(where, name)
                yield path, os.path.relpath(path, folder)


def decode(batch, shape):
    """Images as the encoder wants them; of a broken file, zeros and what is wrong."""
    from keras_metric.data import ImageLoader

    load = ImageLoader(shape[:2], "grayscale" if shape[2] == 1 else "rgb")
    images = np.zeros((len(batch["path"]), *shape), "uint8")
    broken = []
    for image, path in zip(images, batch["path"]):
        try:
            image[...] = load(path)
            broken.append("")
        except ValueError as error:
            broken.append(str(error))
    return {"id": batch["id"], "image": images, "broken": np.array(broken, object)}


class Embed:
    """An actor: loads the encoder once and embeds one batch after the other."""

    def __init__(self, encoder, batch):
        import keras

        import keras_metric  # noqa: F401 - the encoder's layers

        self.encoder, self.batch = keras.saving.load_model(encoder), batch

    def __call__(self, batch):
        images = batch["image"]
        # One size of batch, since the encoder is compiled for each.
        filled = np.zeros((self.batch, *images.shape[1:]), images.dtype)
        filled[: len(images)] = images
        embeddings = self.encoder.predict_on_batch(filled)[: len(images)]
        return {"id": batch["id"], "embedding": embeddings, "broken": batch["broken"]}


def open_index(path, encoder, uri):
    from keras_metric.search import Index

    if (path / "manifest.json").exists():
        return Index.load(path, encoder=encoder, uri=uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, which is the index's own.
    index = Index(encoder=encoder, store="milvus", uri=uri or f"{path}.db")
    index.save(path)
    return index


def embed(files, shape, arguments):
    """Yield (ids, embeddings, errors) of the files, as they are ready."""
    import ray

    here = {} if arguments.address else {"include_dashboard": False}
    ray.init(address=arguments.address, log_to_driver=False, **here)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = [{"path": path, "id": id} for path, id in files]
    data = (
        ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // 1024))
        .map_batches(
            decode,
            fn_kwargs={"shape": shape},
            batch_size=arguments.batch,
            batch_format="numpy",
        )
        .map_batches(
            Embed,
            fn_constructor_args=(str(arguments.encoder.resolve()), arguments.batch),
            batch_size=arguments.batch,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=arguments.encoders),
            num_gpus=arguments.gpus,
        )
    )
    for batch in data.iter_batches(batch_size=1024, batch_format="numpy"):
        whole = np.array([not text for text in batch["broken"]])
        errors = [text for text in batch["broken"] if text]
        yield batch["id"][whole].tolist(), batch["embedding"][whole], errors
    ray.shutdown()


def fill(index, files, shape, arguments):
    """Put the files into the index, batch by batch."""
    start, done = time.perf_counter(), 0
    for ids, embeddings, errors in embed(files, shape, arguments):
        # Each batch is in Milvus before the next: a kill loses what was on its way, no more.
        if ids:
            index.add(embeddings, [os.path.dirname(id) or "." for id in ids], ids)
        done += len(ids)
        rate = done / (time.perf_counter() - start)
        print(f"{done:,} of {len(files):,} embedded, {rate:,.0f} a second", flush=True)
        for error in errors:
            print(f"left out: {error}", flush=True)


def run(arguments):
    import keras

    import keras_metric  # noqa: F401 - the encoder's layers

    encoder = keras.saving.load_model(arguments.encoder)
    index = open_index(arguments.index, encoder, arguments.uri)
    there = set(index.ids())
    files = [(path, id) for path, id in walk(arguments.folder) if id not in there]
    print(f"{len(there):,} images are in the index, {len(files):,} are not", flush=True)
    files = files[: arguments.stop_after]
    if files:
        shape = tuple(getattr(encoder, "backbone", encoder).input_shape[1:])
        fill(index, files, shape, arguments)
    print(f"{len(index):,} images are in the index at {arguments.index}", flush=True)
    return index


def draw(folder):
    """64 images of four kinds, one file that is none, and an encoder that was never trained."""
    import keras
    from PIL import Image

    import keras_metric

    rng = np.random.default_rng(0)
    for kind in range(4):
        (folder / f"kind{kind}").mkdir(parents=True, exist_ok=True)
        plain = rng.integers(0, 256, (4, 4, 3), "uint8")
        for i in range(16):
            noisy = np.clip(plain + rng.normal(0, 20, plain.shape), 0, 255).astype("uint8")
            image = Image.fromarray(noisy).resize((32, 32))
            image.save(folder / f"kind{kind}" / f"{i:02}.png")
    (folder / "kind0" / "broken.png").write_bytes(b"no image")
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Flatten(),
        ]
    )
    model = keras_metric.EmbeddingModel(backbone, 32)
    model(np.zeros((1, 16, 16, 3)))
    model.encoder.save(folder.parent / "encoder.keras")


def main():
    arguments = parse_arguments()
    try:
        import pymilvus  # noqa: F401
        import ray.data  # noqa: F401
    except ImportError as error:
        raise SystemExit(f'{error}: pip install "keras_metric[large,milvus]"') from None
    if not arguments.short:
        run(arguments).close()
        return
    arguments.folder = arguments.index.parent / "images"
    draw(arguments.folder)
    arguments.encoder = arguments.index.parent / "encoder.keras"
    arguments.batch = 16
    arguments.stop_after = 24
    run(arguments).close()
    arguments.stop_after = None
    index = run(arguments)
    ids = index.ids()
    items = index.get(ids)
    nearest = index.search(np.stack([item.embedding for item in items]), k=2)
    same = np.mean([found[1].label == item.label for found, item in zip(nearest, items)])
    print(f"the nearest other image is of the same kind for {same:.3f} (chance 0.238)")
    index.close()


if __name__ == "__main__":
    main()
