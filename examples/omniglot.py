"""Tell characters apart from one drawing of each: one-shot recognition on Omniglot.

    python examples/omniglot.py --data omniglot_background_28.npz   # the last 200 of 964 held out
    python examples/omniglot.py --data omniglot                     # the official folders
    python examples/omniglot.py --data ... --loss ProxyAnchorLoss --steps 1000
    python examples/omniglot.py                                     # without data: drawn characters

An encoder learns from some characters and is judged on others: Recall@1 among all their drawings,
and naming a drawing among 5 or 20 characters of which it has seen one drawing each. Raw pixels and
the untrained network stand beside it.

A character turned by a quarter, or in the mirror, is another character: eight classes of each. Each
drawing is turned, shifted, scaled and sheared a little anew every time, and the pen changes.
Pooling before the normalisation and the ReLU costs half as much as after them, and the maximum
passes through both all the same. From the third tenth of the steps on, half of each batch are
characters that the encoder confuses with the others there.
"""

import argparse
import inspect
import os
import sys
import time
from pathlib import Path

from keras_metric import datasets
from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np
from keras import layers

import keras_metric
from keras_metric import callbacks, data, evaluation, losses, viz

SIDE = 28
# Read two views, or pairs with a similarity, or stand beside another loss: not for this script.
OTHERS = (
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
LOSSES = sorted(n for n in losses.__all__ if n.endswith("Loss") and n not in OTHERS)
# These read the length of an embedding as well.
OF_ANY_LENGTH = ("AdaFaceLoss", "LargeMarginSoftmaxLoss", "SphereFaceLoss")
# The others at their defaults.
SETTINGS = {"SupConLoss": {"temperature": 0.05}}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the .npz, or the official folder")
    parser.add_argument("--loss", choices=LOSSES, default="SupConLoss", metavar="NAME")
    parser.add_argument("--steps", type=int, help="default: 4,500, under 20 minutes on two cores")
    parser.add_argument("--held-out", type=int, help="characters to judge on; default: 200")
    parser.add_argument("--no-rotations", action="store_true", help="and no mirror images")
    parser.add_argument("--out", type=Path, default=Path("runs/omniglot"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to see that it runs")
    return parser.parse_args()


def load_drawings(path, held_out, seed):
    """Ink in 0 to 1 (items, SIDE, SIDE, 1) and characters, to train on and to judge on."""
    folder = os.environ.get("KERAS_METRIC_DATA")
    if path is None and folder and Path(folder, "omniglot_background_28.npz").exists():
        path = Path(folder, "omniglot_background_28.npz")
    if path is None:
        print("no --data: drawn characters stand in for Omniglot")
        x, y = draw_characters(160, 12, np.random.default_rng(seed))
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
        sys.exit(f"--held-out {held_out} leaves no characters to train on.")
    return x[kept], y[kept], x[~kept], y[~kept]


def read(paths):
    """The official drawings, black on white, 105 pixels wide."""
    load = data.ImageLoader((105, 105), "grayscale")
    pictures = [load(path) for path in paths]
    small = [
        keras.ops.image.resize(np.stack(pictures[i : i + 500]), (SIDE, SIDE), antialias=True)
        for i in range(0, len(pictures), 500)
    ]
    return 1 - np.concatenate([keras.ops.convert_to_numpy(part) for part in small]) / 255


def draw_characters(number, each, rng):
    """Characters of two to four curves; each drawing moves their points a little."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2, indexing="ij"), -1)
    t = np.linspace(0, 1, 40)[:, None]
    bezier = np.concatenate([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)
    pictures = []
    for _ in range(number):
        points = rng.uniform(-0.9, 0.9, (rng.integers(2, 5), 3, 2))
        for _ in range(each):
            angle, size = rng.normal(0, 0.2), rng.uniform(0.7, 1.1)
            turn = size * np.array(
                [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
            )
            curves = bezier @ (points + rng.normal(0, 0.12, points.shape)) @ turn
            curves = curves.reshape(-1, 2) + rng.uniform(-0.2, 0.2, 2)
            away = np.linalg.norm(grid[:, :, None] - curves, axis=-1).min(-1)
            pictures.append(np.clip(1.5 - away / 0.06, 0, 1))
    pictures = np.array(pictures, "float32")[..., None]
    return pictures, np.repeat(np.arange(number), each)


def build_backbone(seed):
    keras.utils.set_random_seed(seed)
    blocks = []
    for filters, pools in ((32, True), (128, True), (192, True), (320, False)):
        blocks.append(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        if pools:
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
        build_backbone(seed), 128, normalize=name not in OF_ANY_LENGTH
    )
    warm = min(200, steps // 5)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, steps - warm, warmup_target=2e-3, warmup_steps=warm
    )
    # The mean of the weights of the last few hundred steps is better than the last ones.
    optimizer = keras.optimizers.AdamW(rate, weight_decay=5e-3, use_ema=True, ema_momentum=0.99)
    model.compile(optimizer, kind(**settings), jit_compile=False)
    return model


def _arguments(kind):
    return inspect.signature(kind).parameters


def looks(x):
    """The drawings turned by each quarter, and so their mirror images."""
    return [np.rot90(part, k, axes=(1, 2)) for part in (x, x[:, :, ::-1]) for k in range(4)]


def turned(x, y):
    """Each character turned by quarters and mirrored: eight, each a class of its own."""
    classes = np.unique(y, return_inverse=True)[1]
    number = classes.max() + 1
    return np.concatenate(looks(x)), np.concatenate([classes + k * number for k in range(8)])


def small_changes(x, rng):
    """Turn, shear, scale and shift each drawing, in one step lest it blurs, and its pen."""
    number = len(x)
    angle, lean = rng.uniform(-0.25, 0.25, number), rng.uniform(-0.25, 0.25, number)
    wide, high = rng.uniform(0.8, 1.2, (2, number))
    move = rng.uniform(-0.1, 0.1, (number, 2)) * SIDE
    cos, sin = np.cos(angle), np.sin(angle)
    # From a pixel of the result to the one it comes from, about the middle.
    across = np.stack([wide * cos, -high * (sin - lean)], axis=1)
    down = np.stack([wide * sin, high * cos], axis=1)
    middle = np.full((number, 2), (SIDE - 1) / 2)
    start = (
        middle
        + move
        - np.stack([(across * middle).sum(axis=1), (down * middle).sum(axis=1)], axis=1)
    )
    rows = np.concatenate([across, start[:, :1], down, start[:, 1:], np.zeros((number, 2))], axis=1)
    x = keras.ops.image.affine_transform(x, rows.astype("float32"), fill_mode="constant")
    pen = rng.uniform(0.6, 1.6, (number, 1, 1, 1)).astype("float32")
    return np.clip(1.2 * keras.ops.convert_to_numpy(x), 0, 1) ** pen


def at_nine_places(encoder, x):
    """The mean embedding of a drawing at nine places, a pixel apart."""
    places = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    views = [encoder.predict(np.roll(x, place, axis=(1, 2)), verbose=0) for place in places]
    return np.mean(views, axis=0)


def side_by_side(parts):
    """The cosine of the result is the mean of the parts' cosines."""
    lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    return np.concatenate([a / np.maximum(b, 1e-12) for a, b in zip(parts, lengths)], axis=1)


def judge(embeddings, characters, episodes):
    found = evaluation.retrieval_metrics(embeddings, characters, k=(1,))
    number = len(np.unique(characters))
    fewest = np.unique(characters, return_counts=True)[1].min()
    numbers = {"recall": found["recall_at_1"]}
    for ways in (5, 20):
        shots = evaluation.few_shot_accuracy(
            embeddings,
            characters,
            ways=min(ways, number),
            episodes=episodes,
            queries=min(15, fewest - 1),
        )
        numbers[ways] = 1 - shots["nearest_neighbor_accuracy"]
        numbers["interval"] = shots["nearest_neighbor_interval"]
    return numbers


def print_table(rows):
    print(f"\n{'':20}{'recall@1':>10}{'error, one drawing of each known':>36}")
    print(f"{'':20}{'':10}{'among 5':>14}{'among 20':>14}")
    for name, n in rows.items():
        interval = f"± {n['interval']:.3f}"
        print(f"{name:20}{n['recall']:10.3f}{n[5]:14.3f}{n[20]:14.3f} {interval}")


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    x, y, x_test, y_test = load_drawings(arguments.data, arguments.held_out, arguments.seed)
    print(f"{len(np.unique(y))} characters to train on, {len(np.unique(y_test))} others")
    if not arguments.no_rotations:
        x, y = turned(x, y)
    steps = arguments.steps or (30 if arguments.short else 4500)
    num_classes = len(np.unique(y))
    model = build_model(arguments.loss, num_classes, steps, arguments.seed)
    episodes = 100 if arguments.short else 1000
    rows = {
        "raw pixels": judge(x_test.reshape(len(x_test), -1), y_test, episodes),
        "untrained": judge(model.predict(x_test, verbose=0), y_test, episodes),
    }
    each = max(1, steps // 10)
    batches = data.BalancedBatches(
        x,
        y,
        min(32, num_classes),
        4,
        batches_per_epoch=each,
        augment=small_changes,
        seed=arguments.seed,
    )
    mining = callbacks.HardExampleMining(
        batches,
        start=2,
        rule="classes",
        max_items=300 if arguments.short else 20_000,
        progress=False,
    )
    watch = callbacks.RetrievalEvaluator(
        x_test, y_test, name="unseen", k=(1,), log_dir=arguments.out
    )
    trained, busy = time.perf_counter(), time.process_time()
    model.fit(batches, epochs=steps // each, callbacks=[mining, watch], verbose=0)
    trained, busy = time.perf_counter() - trained, time.process_time() - busy
    embeddings = model.predict(x_test, verbose=0)
    rows["trained"] = judge(embeddings, y_test, episodes)
    seen = at_nine_places(model.encoder, x_test)
    rows["  at nine places"] = judge(seen, y_test, episodes)
    if not arguments.no_rotations:  # Each look was a class of its own, and judges for itself.
        seen = [seen] + [at_nine_places(model.encoder, part) for part in looks(x_test)[1:]]
        rows["  and eight looks"] = judge(side_by_side(seen), y_test, episodes)
    print_table(rows)
    cores = f"{busy:.0f} seconds of work for {os.cpu_count()} cores"
    print(f"{steps} steps of {arguments.loss} in {trained:.0f} seconds, {cores}")

    arguments.out.mkdir(parents=True, exist_ok=True)
    model.encoder.save(arguments.out / "encoder.keras")
    pictures = (255 * (1 - x_test)).astype("uint8")
    viz.plot_neighbors(pictures, y_test, embeddings).savefig(
        arguments.out / "neighbors.png", dpi=120
    )
    print(f"\n{arguments.out}: encoder.keras, neighbors.png")
    print(f"tensorboard --logdir {arguments.out}: recall over time, and the drawings as a cloud")
    print(f"{time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
