"""One-shot classification of characters on Omniglot.

    python examples/omniglot.py --data omniglot_background_28.npz   # the last 200 of 964 held out
    python examples/omniglot.py --data omniglot                     # the official folders
    python examples/omniglot.py --data ... --loss ProxyAnchorLoss --steps 1000
    python examples/omniglot.py                                     # without data: synthetic

An encoder is trained on some characters and tested on others: Recall@1 among all their drawings,
and one-shot accuracy among 5 or 20 characters, with one reference drawing each. The results are
compared with raw pixels and with the untrained network.

Rotations by 90 degrees and mirror images of a character are separate classes, eight for each
character. Each drawing is rotated, shifted, scaled and sheared at random, with a random stroke
width. Pooling before normalization and ReLU halves the computation without changing the maximum.
After 20 % of the steps, half of each batch consists of characters that the encoder confuses.
"""

import argparse
import inspect
import os
import sys
import time
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np
from keras import layers

import keras_metric
from keras_metric import callbacks, data, datasets, evaluation, losses, viz

SIDE = 28
# Losses of two views, of graded pairs, and losses that only regularize another loss.
EXCLUDED = (
    "BarlowTwinsLoss",
    "CenterLoss",
    "ClipLoss",
    "CosineRegressionLoss",
    "IntraPairVarianceLoss",
    "SigLipLoss",
    "SimSiamLoss",
    "ThresholdConsistentMarginLoss",
    "VICRegLoss",
)
LOSSES = sorted(n for n in losses.__all__ if n.endswith("Loss") and n not in EXCLUDED)
# Losses that use the norm of an embedding.
UNNORMALIZED = ("AdaFaceLoss", "LargeMarginSoftmaxLoss", "SphereFaceLoss")
# Arguments that differ from the defaults.
SETTINGS = {"SupConLoss": {"temperature": 0.05}}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the .npz, or the official folder")
    parser.add_argument("--loss", choices=LOSSES, default="SupConLoss", metavar="NAME")
    parser.add_argument("--steps", type=int, help="default: 4,500, 16 minutes on two cores")
    parser.add_argument("--held-out", type=int, help="test characters; default: 200")
    parser.add_argument("--no-rotations", action="store_true", help="nor mirror images")
    parser.add_argument("--out", type=Path, default=Path("runs/omniglot"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    return parser.parse_args()


def load_drawings(path, held_out, seed):
    """Return drawings in 0 to 1 (items, SIDE, SIDE, 1) and labels, for training and test."""
    folder = os.environ.get("KERAS_METRIC_DATA")
    if path is None and folder and Path(folder, "omniglot_background_28.npz").exists():
        path = Path(folder, "omniglot_background_28.npz")
    if path is None:
        print("no --data: using synthetic characters")
        x, y = make_characters(160, 12, np.random.default_rng(seed))
        held_out = held_out or 40
    elif path.is_dir():
        parts = datasets.read_omniglot(path)
        if held_out is None:  # the official split: other alphabets
            train, test = parts["train"], parts["test"]
            return read(train.paths), train.labels, read(test.paths), test.labels
        x, y = read(parts["train"].paths), parts["train"].labels
    else:
        with np.load(path) as file:
            x, y = file["x"].astype("float32")[..., None] / 255, file["y"].astype("int64")
    kept = y < len(np.unique(y)) - (held_out or 200)
    if len(np.unique(y[kept])) < 2 or not (~kept).any():
        sys.exit(f"--held-out {held_out} leaves no training characters. Use a smaller number.")
    return x[kept], y[kept], x[~kept], y[~kept]


def read(paths):
    """Read the official drawings, black on white, 105 x 105 pixels."""
    load = data.ImageLoader((105, 105), "grayscale")
    images = [load(path) for path in paths]
    small = [
        keras.ops.image.resize(np.stack(images[i : i + 500]), (SIDE, SIDE), antialias=True)
        for i in range(0, len(images), 500)
    ]
    return 1 - np.concatenate([keras.ops.convert_to_numpy(part) for part in small]) / 255


def make_characters(number, each, rng):
    """Return characters of two to four curves; each drawing moves the control points slightly."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2, indexing="ij"), -1)
    t = np.linspace(0, 1, 40)[:, None]
    bezier = np.concatenate([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)
    images = []
    for _ in range(number):
        points = rng.uniform(-0.9, 0.9, (rng.integers(2, 5), 3, 2))
        for _ in range(each):
            angle, size = rng.normal(0, 0.2), rng.uniform(0.7, 1.1)
            rotation = size * np.array(
                [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
            )
            curves = bezier @ (points + rng.normal(0, 0.12, points.shape)) @ rotation
            curves = curves.reshape(-1, 2) + rng.uniform(-0.2, 0.2, 2)
            distance = np.linalg.norm(grid[:, :, None] - curves, axis=-1).min(-1)
            images.append(np.clip(1.5 - distance / 0.06, 0, 1))
    images = np.array(images, "float32")[..., None]
    return images, np.repeat(np.arange(number), each)


def build_backbone(seed):
    keras.utils.set_random_seed(seed)
    blocks = []
    for filters, has_pooling in ((32, True), (128, True), (192, True), (320, False)):
        blocks.append(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        if has_pooling:
            blocks.append(layers.MaxPooling2D(2))
        blocks += [layers.BatchNormalization(momentum=0.95), layers.ReLU()]
    return keras.Sequential(
        [layers.Input((SIDE, SIDE, 1)), *blocks, layers.Flatten(), layers.Dropout(0.2)],
        name="backbone",
    )


def build_model(name, num_classes, steps, seed):
    kind = getattr(losses, name)
    settings = dict(SETTINGS.get(name, {}))
    if "num_classes" in _arguments(kind):
        settings["num_classes"] = num_classes
    model = keras_metric.EmbeddingModel(
        build_backbone(seed), 128, normalize=name not in UNNORMALIZED
    )
    warmup = min(200, steps // 5)
    learning_rate = keras.optimizers.schedules.CosineDecay(
        1e-4, steps - warmup, warmup_target=2e-3, warmup_steps=warmup
    )
    # The moving average of the weights over some hundred steps is better than the last weights.
    optimizer = keras.optimizers.AdamW(
        learning_rate, weight_decay=5e-3, use_ema=True, ema_momentum=0.99
    )
    model.compile(optimizer, kind(**settings), jit_compile=False)
    return model


def _arguments(kind):
    return inspect.signature(kind).parameters


def rotations_and_mirrors(x):
    """Return four rotations by 90 degrees of the drawings and of their mirror images."""
    return [np.rot90(part, k, axes=(1, 2)) for part in (x, x[:, :, ::-1]) for k in range(4)]


def with_rotated_classes(x, y):
    """Return drawings and labels with eight classes for each character."""
    classes = np.unique(y, return_inverse=True)[1]
    number = classes.max() + 1
    return np.concatenate(rotations_and_mirrors(x)), np.concatenate(
        [classes + k * number for k in range(8)]
    )


def augmentation(x, rng):
    """Rotate, shear, scale and shift each drawing in one interpolation; vary the stroke width."""
    number = len(x)
    angle, shear = rng.uniform(-0.25, 0.25, number), rng.uniform(-0.25, 0.25, number)
    wide, high = rng.uniform(0.8, 1.2, (2, number))
    move = rng.uniform(-0.1, 0.1, (number, 2)) * SIDE
    cos, sin = np.cos(angle), np.sin(angle)
    # The transform maps output pixels to input pixels, with the origin in the center.
    across = np.stack([wide * cos, -high * (sin - shear)], axis=1)
    down = np.stack([wide * sin, high * cos], axis=1)
    center = np.full((number, 2), (SIDE - 1) / 2)
    start = (
        center
        + move
        - np.stack([(across * center).sum(axis=1), (down * center).sum(axis=1)], axis=1)
    )
    rows = np.concatenate([across, start[:, :1], down, start[:, 1:], np.zeros((number, 2))], axis=1)
    x = keras.ops.image.affine_transform(x, rows.astype("float32"), fill_mode="constant")
    pen = rng.uniform(0.6, 1.6, (number, 1, 1, 1)).astype("float32")
    return np.clip(1.2 * keras.ops.convert_to_numpy(x), 0, 1) ** pen


def embed_shifted(encoder, x):
    """Return the mean embedding of a drawing over nine shifts by up to one pixel."""
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    views = [encoder.predict(np.roll(x, shift, axis=(1, 2)), verbose=0) for shift in shifts]
    return np.mean(views, axis=0)


def concatenate_normalized(parts):
    """Concatenate embeddings; the cosine of the result is the mean of the cosines of the parts."""
    lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    return np.concatenate([a / np.maximum(b, 1e-12) for a, b in zip(parts, lengths)], axis=1)


def evaluate(embeddings, characters, episodes):
    found = evaluation.retrieval_metrics(embeddings, characters, k=(1,))
    number = len(np.unique(characters))
    fewest = np.unique(characters, return_counts=True)[1].min()
    results = {"recall": found["recall_at_1"]}
    for ways in (5, 20):
        shots = evaluation.few_shot_accuracy(
            embeddings,
            characters,
            ways=min(ways, number),
            episodes=episodes,
            queries=min(15, fewest - 1),
        )
        results[ways] = 1 - shots["nearest_neighbor_accuracy"]
        results["interval"] = shots["nearest_neighbor_interval"]
    return results


def print_table(rows):
    print(f"\n{'':20}{'recall@1':>10}{'one-shot error':>28}")
    print(f"{'':20}{'':10}{'5 classes':>14}{'20 classes':>14}")
    for name, n in rows.items():
        interval = f"± {n['interval']:.3f}"
        print(f"{name:20}{n['recall']:10.3f}{n[5]:14.3f}{n[20]:14.3f} {interval}")


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    x, y, x_test, y_test = load_drawings(arguments.data, arguments.held_out, arguments.seed)
    print(f"{len(np.unique(y))} training characters, {len(np.unique(y_test))} test characters")
    if not arguments.no_rotations:
        x, y = with_rotated_classes(x, y)
    steps = arguments.steps or (30 if arguments.short else 4500)
    num_classes = len(np.unique(y))
    model = build_model(arguments.loss, num_classes, steps, arguments.seed)
    episodes = 100 if arguments.short else 1000
    rows = {
        "raw pixels": evaluate(x_test.reshape(len(x_test), -1), y_test, episodes),
        "untrained": evaluate(model.predict(x_test, verbose=0), y_test, episodes),
    }
    each = max(1, steps // 10)
    batches = data.BalancedBatches(
        x,
        y,
        min(32, num_classes),
        4,
        batches_per_epoch=each,
        augment=augmentation,
        seed=arguments.seed,
    )
    mining = callbacks.HardExampleMining(
        batches,
        start=2,
        rule="classes",
        max_items=300 if arguments.short else 20_000,
        progress=False,
    )
    evaluator = callbacks.RetrievalEvaluator(
        x_test, y_test, name="unseen", k=(1,), log_dir=arguments.out
    )
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(batches, epochs=steps // each, callbacks=[mining, evaluator], verbose=0)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    embeddings = model.predict(x_test, verbose=0)
    rows["trained"] = evaluate(embeddings, y_test, episodes)
    views = [embed_shifted(model.encoder, x_test)]
    rows["  nine shifts"] = evaluate(views[0], y_test, episodes)
    if not arguments.no_rotations:  # The encoder separates these views, because they were classes.
        views += [embed_shifted(model.encoder, x) for x in rotations_and_mirrors(x_test)[1:]]
        rows["  eight rotations"] = evaluate(concatenate_normalized(views), y_test, episodes)
    print_table(rows)
    print(f"{steps} steps of {arguments.loss} in {wall:.0f} seconds, ", end="")
    print(f"{cpu:.0f} CPU seconds on {os.cpu_count()} cores")

    arguments.out.mkdir(parents=True, exist_ok=True)
    model.encoder.save(arguments.out / "encoder.keras")
    images = (255 * (1 - x_test)).astype("uint8")
    viz.plot_neighbors(images, y_test, embeddings).savefig(arguments.out / "neighbors.png", dpi=120)
    print(f"\n{arguments.out}: encoder.keras, neighbors.png")
    print(f"tensorboard --logdir {arguments.out}: recall by epoch, and a 3-D plot")
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    main()
