"""Metric learning on feature vectors: features of a frozen network, a table, patient data.

    python examples/features.py                        # synthetic vectors and table, patient data
    python examples/features.py --data birds.npz       # keys x, y: tested on the later classes
    python examples/features.py --part patients        # or vectors, or rare
    python examples/features.py --data a.npz b.npz --seeds 5

vectors   Features of a pretrained network work for classes that it was not trained on. A head with
          random weights loses this property. A linear layer with identity initialization starts
          from the raw features. The best initialization is Fisher's discriminant with shrinkage,
          which reduces directions with a large variance within classes. This encoder is saved.
rare      A table in which 2 % of the rows are frauds. Batches contain equally many frauds and other
          rows. The score of a row is its distance to known other rows minus that to known frauds.
patients  A learned Mahalanobis distance on 30 measurements of tumors (Wisconsin breast cancer data
          from scikit-learn), evaluated by whether the nearest patients have the same diagnosis.
          This shows a method; it is not a medical device.
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
from keras import layers, ops
from sklearn.metrics import average_precision_score

import keras_metric
from keras_metric import data, evaluation, losses, viz

PARTS = ("vectors", "rare", "patients")
BIRDS = ("birds50_features_mnv1_1024.npz", "birds50_features_mnv2_1280.npz")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", help="NPZ files of vectors and labels")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all three")
    parser.add_argument("--steps", type=int, default=60, help="of the linear layers on vectors")
    parser.add_argument("--seeds", type=int, default=3, help="runs that are averaged")
    parser.add_argument("--out", type=Path, default=Path("runs/features"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    arguments = parser.parse_args()
    arguments.part = arguments.part or PARTS
    if arguments.short:
        arguments.steps, arguments.seeds = 10, 1
    folder = os.environ.get("KERAS_METRIC_DATA")
    if folder and not arguments.data:
        arguments.data = [path for name in BIRDS if (path := Path(folder, name)).exists()]
    return arguments


def fit(model, x, y, loss, learning_rate, steps, classes, each, seed):
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(keras.optimizers.Adam(schedule), loss)
    batches = data.BalancedBatches(x, y, classes, each, batches_per_epoch=steps, seed=seed)
    model.fit(batches, verbose=0)
    return model.encoder


def embed(encoder, x):
    return encoder.predict(x, batch_size=1024, verbose=0)


def print_table(title, columns, rows):
    print(f"\n{title}\n{'':34}" + "".join(f"{column:>16}" for column in columns))
    for name, values in rows.items():
        print(f"{name:34}" + "".join(f"{value:16.3f}" for value in values), flush=True)


# --- vectors -------------------------------------------------------------------------------


def load_vectors(path):
    with np.load(path) as file:
        if "f" in file:  # stored in 8 bits
            x = (file["f"].astype("float32") - file["zero_point"]) * file["scale"]
        elif "x" in file:
            x = file["x"].astype("float32")
        else:
            sys.exit(f"{path} must contain the arrays x and y. Received: {file.files}.")
        return x, file["y"]


def make_vectors(rng, classes=40, each=20, width=96):
    """Return synthetic features: non-negative, with more variance from pose than from the class."""
    meaning = rng.normal(0, 1, (classes, width)) @ rng.normal(0, 0.25, (width, width))
    pose = rng.normal(0, 1, (classes * each, 8)) @ rng.normal(0, 1.2, (8, width))
    y = np.repeat(np.arange(classes), each)
    return np.maximum(meaning[y] + pose + rng.normal(0, 2, pose.shape), 0).astype("float32"), y


def signed_root(x):
    return np.sign(x) * np.sqrt(np.abs(x))


@keras.saving.register_keras_serializable("keras_metric_examples")
class SquareRoot(layers.Layer):
    """Signed square root, which reduces the influence of large activations."""

    def call(self, x):
        return ops.sign(x) * ops.sqrt(ops.abs(x))


def fisher_weights(x, y, shrink=1.0, boost=1.0):
    """Return kernel and bias of a linear layer from Fisher's discriminant.

    The kernel is S**-1/2, with S the covariance within classes, shrunk towards the identity. The
    directions between class means are then scaled by 1 + `boost`.
    """
    means = np.stack([x[y == label].mean(0) for label in np.unique(y)])
    within = x - means[np.unique(y, return_inverse=True)[1]]
    values, axes = np.linalg.eigh(within.T @ within / len(x))
    values = np.maximum(values, 0)
    kernel = axes / np.sqrt(values + shrink * values.mean())
    center = x.mean(0)
    between = np.linalg.svd((means - center) @ kernel, full_matrices=False)[2]
    # The centered means span one dimension fewer than the number of classes.
    between = between[: len(means) - 1]
    kernel = kernel + boost * (kernel @ between.T) @ between
    return kernel.astype("float32"), -(center @ kernel).astype("float32")


def build_linear(width, initial, seed):
    """Return a model with a linear layer; `initial`: "random", "identity", or (kernel, bias)."""
    keras.utils.set_random_seed(seed)
    has_weights = not isinstance(initial, str)
    dense = layers.Dense(
        width, kernel_initializer="identity" if initial == "identity" else "glorot_uniform"
    )
    root = [SquareRoot()] if has_weights else []
    model = keras_metric.EmbeddingModel(
        keras.Sequential([layers.Input((width,)), *root, dense]), embedding_dim=None
    )
    if has_weights:
        dense.set_weights(list(initial))
    return model


def train_on_vectors(x, y, steps, seeds, name, out):
    classes = np.unique(y)
    train = np.isin(y, classes[: len(classes) // 2])
    x_train, y_train, x_test, y_test = x[train], y[train], x[~train], y[~train]
    batch = (min(16, len(np.unique(y_train))), 8)
    settings = {
        # Name: initial weights, learning rate.
        "random": ("random", 1e-3),
        "identity": ("identity", 1e-5),
        "Fisher": (fisher_weights(signed_root(x_train), y_train), 1e-5),
    }

    def recall(z):
        return evaluation.retrieval_metrics(z, y_test, k=1, metric="cosine")["recall_at_1"]

    rows = {"raw vectors": (recall(x_test), recall(x_test))}
    for kind, (initial, learning_rate) in settings.items():
        results = []
        for seed in range(seeds):
            model = build_linear(x.shape[1], initial, seed)
            before = embed(model.encoder, x_test)
            loss = losses.SupConLoss(0.1)
            encoder = fit(model, x_train, y_train, loss, learning_rate, steps, *batch, seed)
            results.append([recall(before), recall(embed(encoder, x_test))])
        rows[f"linear, {kind}"] = np.mean(results, axis=0)
    title = (
        f"{name}: recall@1 of {len(x_test):,} test vectors of {len(np.unique(y_test))} classes\n"
        f"({len(x_train):,} training vectors of {len(np.unique(y_train))} other classes, "
        f"mean of {seeds} runs)"
    )
    print_table(title, ("untrained", "trained"), rows)
    encoder.save(out / f"{name}.keras")
    panels = {"raw": x_test, "trained": embed(encoder, x_test)}
    viz.plot_embeddings(panels, y_test).savefig(out / f"{name}.png", dpi=120)


# --- rare ----------------------------------------------------------------------------------


def make_payments(count, rng):
    """Return columns of payments and whether each is a fraud: 2 %, of three kinds."""
    x = rng.normal(size=(count, 12))
    fraud = rng.random(count) < 0.02
    kind = rng.integers(3, size=count)
    # A kind of fraud is a correlation of two columns; each column has the usual range.
    for number, (a, b, sign) in enumerate(((0, 1, 1), (2, 3, -1), (4, 5, 1))):
        rows = fraud & (kind == number)
        size = rng.choice((-1, 1), rows.sum()) * rng.uniform(1.3, 2.2, rows.sum())
        x[rows, a] = size + rng.normal(0, 0.25, rows.sum())
        x[rows, b] = sign * size + rng.normal(0, 0.25, rows.sum())
    x[:, 8:] *= 3  # uninformative columns, in larger units
    return x.astype("float32"), fraud.astype("int32")


def fraud_scores(z, gallery, y, k=3):
    """Return the distance to known other payments minus the distance to known frauds."""

    def mean_distance(rows):
        distance = (z**2).sum(1)[:, None] - 2 * z @ rows.T + (rows**2).sum(1)
        return np.sqrt(np.maximum(np.partition(distance, k, axis=1)[:, :k], 0)).mean(1)

    return mean_distance(gallery[y == 0]) - mean_distance(gallery[y == 1])


def train_on_rare(arguments):
    rng = np.random.default_rng(arguments.seed)
    count = 3000 if arguments.short else 12000
    x, y = make_payments(count, rng)
    x_test, y_test = make_payments(count // 2, rng)
    scale = layers.Normalization()
    scale.adapt(x)
    keras.utils.set_random_seed(arguments.seed)
    backbone = keras.Sequential(
        [
            layers.Input((x.shape[1],)),
            scale,
            layers.Dense(64, "relu"),
            layers.Dropout(0.1),
            layers.Dense(64, "relu"),
        ]
    )
    model = keras_metric.EmbeddingModel(backbone, 16)
    raw = [keras.ops.convert_to_numpy(scale(part)) for part in (x_test, x)]
    before = [embed(model.encoder, part) for part in (x_test, x)]
    steps = arguments.steps * 10
    encoder = fit(model, x, y, losses.SupConLoss(0.1), 1e-3, steps, 2, 32, arguments.seed)
    after = [embed(encoder, part) for part in (x_test, x)]
    rows = {"random": (y_test.mean(), 0.05)}
    for name, (z, gallery) in (("raw columns", raw), ("untrained", before), ("trained", after)):
        score = fraud_scores(z, gallery, y)
        highest = np.argsort(-score)[: len(score) // 20]
        rows[name] = (average_precision_score(y_test, score), y_test[highest].sum() / y_test.sum())
    title = f"{y_test.sum()} frauds among {len(y_test):,} payments, {y.sum()} known frauds"
    print_table(title, ("avg precision", "in the top 5 %"), rows)
    encoder.save(arguments.out / "payments.keras")
    viz.plot_distances(after[0], y_test).savefig(arguments.out / "payments.png", dpi=120)


# --- patients ------------------------------------------------------------------------------


def train_on_patients(arguments):
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    x, y = load_breast_cancer(return_X_y=True)
    results = {}
    for seed in range(arguments.seeds):
        x_train, x_test, y_train, y_test = train_test_split(
            x.astype("float32"), y, test_size=0.5, stratify=y, random_state=seed
        )
        scale = layers.Normalization()
        scale.adapt(x_train)
        keras.utils.set_random_seed(seed)
        metric = keras_metric.layers.Mahalanobis(rank=10)
        # The Mahalanobis distance applies to unnormalized vectors.
        model = keras_metric.EmbeddingModel(
            keras.Sequential([layers.Input((x.shape[1],)), scale, metric]), None, normalize=False
        )
        before = embed(model.encoder, x_test)
        loss = losses.TripletLoss(margin=1.0, mining="all")
        encoder = fit(model, x_train, y_train, loss, 1e-2, arguments.steps, 2, 32, seed)
        embeddings = {
            "raw columns": x_test,
            "standardized columns": keras.ops.convert_to_numpy(scale(x_test)),
            "untrained": before,
            "trained": embed(encoder, x_test),
        }
        for name, z in embeddings.items():
            n = evaluation.retrieval_metrics(z, y_test, k=(1, 5))
            results.setdefault(name, []).append(
                [n["precision_at_1"], n["precision_at_5"], n["map"]]
            )
    rows = {name: np.mean(values, axis=0) for name, values in results.items()}
    title = (
        f"fraction of the most similar patients with the same diagnosis\n({len(x_test)} test "
        f"patients, mean of {arguments.seeds} splits)"
    )
    print_table(title, ("nearest", "nearest five", "mean avg prec"), rows)
    encoder.save(arguments.out / "patients.keras")
    panels = {name: embeddings[name] for name in ("standardized columns", "trained")}
    names = {0: "malignant", 1: "benign"}
    viz.plot_embeddings(panels, y_test, class_names=names).savefig(
        arguments.out / "patients.png", dpi=120
    )


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if "vectors" in arguments.part:
        sets = {path.stem: load_vectors(path) for path in arguments.data or ()}
        if not sets:
            print("no --data: using synthetic vectors")
            sets = {"synthetic": make_vectors(np.random.default_rng(arguments.seed))}
        for name, (x, y) in sets.items():
            train_on_vectors(x, y, arguments.steps, arguments.seeds, name, arguments.out)
    if "rare" in arguments.part:
        train_on_rare(arguments)
    if "patients" in arguments.part:
        train_on_patients(arguments)
    print(f"\n{arguments.out}: {', '.join(sorted(path.name for path in arguments.out.iterdir()))}")
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    main()
