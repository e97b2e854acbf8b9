"""Learn a metric on vectors that exist already: features of a frozen network, tables, patients.

    python examples/features.py                        # drawn vectors, a drawn table, patients
    python examples/features.py --data birds.npz       # keys x, y: judged on the later classes
    python examples/features.py --part patients        # or vectors, or rare
    python examples/features.py --data a.npz b.npz --seeds 5

vectors   Features of a pretrained network are good at classes that nobody trained on, and a head of
          random weights throws that away: it knows the classes of training and no others. Let the
          linear layer begin as the identity, and it begins at the raw features; or, which is best,
          with Fisher's discriminant, shrunk: it weighs directions down in which members of a
          class differ. That one is saved.
rare      A table in which one row of fifty is a fraud. Batches hold as many of either kind; a row
          is the more suspicious, the nearer the known frauds and the farther the others.
patients  Which patients are alike? A Mahalanobis distance learned on 30 measurements of tumours
          (Wisconsin breast cancer data, inside scikit-learn); nearest patients share the diagnosis.
          An example of a method, no medical device.
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
    parser.add_argument("--steps", type=int, default=60, help="of the vectors' linear layers")
    parser.add_argument("--seeds", type=int, default=3, help="runs that are averaged")
    parser.add_argument("--out", type=Path, default=Path("runs/features"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to see that it runs")
    arguments = parser.parse_args()
    arguments.part = arguments.part or PARTS
    if arguments.short:
        arguments.steps, arguments.seeds = 10, 1
    folder = os.environ.get("KERAS_METRIC_DATA")
    if folder and not arguments.data:
        arguments.data = [path for name in BIRDS if (path := Path(folder, name)).exists()]
    return arguments


def fit(model, x, y, loss, rate, steps, classes, each, seed):
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), loss)
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
            sys.exit(f"{path} must have the arrays x and y. Found {file.files}.")
        return x, file["y"]


def draw_vectors(rng, classes=40, each=20, width=96):
    """As a network makes them: none negative; pose and light move them more than their class."""
    meaning = rng.normal(0, 1, (classes, width)) @ rng.normal(0, 0.25, (width, width))
    pose = rng.normal(0, 1, (classes * each, 8)) @ rng.normal(0, 1.2, (8, width))
    y = np.repeat(np.arange(classes), each)
    return np.maximum(meaning[y] + pose + rng.normal(0, 2, pose.shape), 0).astype("float32"), y


def signed_root(x):
    return np.sign(x) * np.sqrt(np.abs(x))


@keras.saving.register_keras_serializable("keras_metric_examples")
class SquareRoot(layers.Layer):
    """Sign kept: large activations of a network say less than their size."""

    def call(self, x):
        return ops.sign(x) * ops.sqrt(ops.abs(x))


def fisher_start(x, y, shrink=1.0, boost=1.0):
    """Kernel and bias of a linear layer that knows how members of a class differ.

    With S the covariance inside the classes, shrunk towards the identity, the kernel is
    S**-1/2. Then the directions in which the means of the classes lie get longer by `boost`.
    """
    means = np.stack([x[y == label].mean(0) for label in np.unique(y)])
    inside = x - means[np.unique(y, return_inverse=True)[1]]
    values, axes = np.linalg.eigh(inside.T @ inside / len(x))
    values = np.maximum(values, 0)
    kernel = axes / np.sqrt(values + shrink * values.mean())
    center = x.mean(0)
    between = np.linalg.svd((means - center) @ kernel, full_matrices=False)[2]
    # The means lie around their own mean: one direction fewer than there are classes.
    between = between[: len(means) - 1]
    kernel = kernel + boost * (kernel @ between.T) @ between
    return kernel.astype("float32"), -(center @ kernel).astype("float32")


def build_linear(width, start, seed):
    """A head as wide as the vectors: "random", "identity", or (kernel, bias)."""
    keras.utils.set_random_seed(seed)
    given = not isinstance(start, str)
    dense = layers.Dense(
        width, kernel_initializer="identity" if start == "identity" else "glorot_uniform"
    )
    root = [SquareRoot()] if given else []
    model = keras_metric.EmbeddingModel(
        keras.Sequential([layers.Input((width,)), *root, dense]), embedding_dim=None
    )
    if given:
        dense.set_weights(list(start))
    return model


def learn_vectors(x, y, steps, seeds, name, out):
    classes = np.unique(y)
    seen = np.isin(y, classes[: len(classes) // 2])
    x_train, y_train, x_test, y_test = x[seen], y[seen], x[~seen], y[~seen]
    batch = (min(16, len(np.unique(y_train))), 8)
    settings = {
        # Name: start, learning rate.
        "random": ("random", 1e-3),
        "identity": ("identity", 1e-5),
        "Fisher": (fisher_start(signed_root(x_train), y_train), 1e-5),
    }

    def recall(z):
        return evaluation.retrieval_metrics(z, y_test, k=1, metric="cosine")["recall_at_1"]

    rows = {"raw vectors": (recall(x_test), recall(x_test))}
    for kind, (start, rate) in settings.items():
        found = []
        for seed in range(seeds):
            model = build_linear(x.shape[1], start, seed)
            before = embed(model.encoder, x_test)
            encoder = fit(
                model, x_train, y_train, losses.SupConLoss(0.1), rate, steps, *batch, seed
            )
            found.append([recall(before), recall(embed(encoder, x_test))])
        rows[f"linear, begins {kind}"] = np.mean(found, axis=0)
    title = (
        f"{name}: recall@1 on {len(x_test):,} vectors of {len(np.unique(y_test))} classes never "
        f"trained on\n(trained on {len(x_train):,} of {len(np.unique(y_train))}, mean of {seeds})"
    )
    print_table(title, ("untrained", "trained"), rows)
    encoder.save(out / f"{name}.keras")
    panels = {"raw": x_test, "trained": embed(encoder, x_test)}
    viz.plot_embeddings(panels, y_test).savefig(out / f"{name}.png", dpi=120)


# --- rare ----------------------------------------------------------------------------------


def draw_payments(count, rng):
    """Columns of a payment and whether it is a fraud: one in fifty, of three kinds."""
    x = rng.normal(size=(count, 12))
    fraud = rng.random(count) < 0.02
    kind = rng.integers(3, size=count)
    # A kind shows in two columns together; alone each of them is as in other payments.
    for number, (a, b, slope) in enumerate(((0, 1, 1), (2, 3, -1), (4, 5, 1))):
        rows = fraud & (kind == number)
        size = rng.choice((-1, 1), rows.sum()) * rng.uniform(1.3, 2.2, rows.sum())
        x[rows, a] = size + rng.normal(0, 0.25, rows.sum())
        x[rows, b] = slope * size + rng.normal(0, 0.25, rows.sum())
    x[:, 8:] *= 3  # columns that say nothing, in larger units
    return x.astype("float32"), fraud.astype("int32")


def suspicion(z, gallery, y, k=3):
    """How much nearer the known frauds are than the known others."""

    def away(rows):
        distance = (z**2).sum(1)[:, None] - 2 * z @ rows.T + (rows**2).sum(1)
        return np.sqrt(np.maximum(np.partition(distance, k, axis=1)[:, :k], 0)).mean(1)

    return away(gallery[y == 0]) - away(gallery[y == 1])


def learn_rare(arguments):
    rng = np.random.default_rng(arguments.seed)
    count = 3000 if arguments.short else 12000
    x, y = draw_payments(count, rng)
    x_test, y_test = draw_payments(count // 2, rng)
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
    rows = {"chance": (y_test.mean(), 0.05)}
    for name, (z, gallery) in (("raw columns", raw), ("untrained", before), ("trained", after)):
        score = suspicion(z, gallery, y)
        worst = np.argsort(-score)[: len(score) // 20]
        rows[name] = (average_precision_score(y_test, score), y_test[worst].sum() / y_test.sum())
    title = f"{y_test.sum()} frauds among {len(y_test):,} payments, {y.sum()} known ones"
    print_table(title, ("avg precision", "in the top 5 %"), rows)
    encoder.save(arguments.out / "payments.keras")
    viz.plot_distances(after[0], y_test).savefig(arguments.out / "payments.png", dpi=120)


# --- patients ------------------------------------------------------------------------------


def learn_patients(arguments):
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    x, y = load_breast_cancer(return_X_y=True)
    found = {}
    for seed in range(arguments.seeds):
        x_train, x_test, y_train, y_test = train_test_split(
            x.astype("float32"), y, test_size=0.5, stratify=y, random_state=seed
        )
        scale = layers.Normalization()
        scale.adapt(x_train)
        keras.utils.set_random_seed(seed)
        metric = keras_metric.layers.Mahalanobis(rank=10)
        # Distances as they are, not between directions: so without a length of 1.
        model = keras_metric.EmbeddingModel(
            keras.Sequential([layers.Input((x.shape[1],)), scale, metric]), None, normalize=False
        )
        before = embed(model.encoder, x_test)
        loss = losses.TripletLoss(margin=1.0, mining="all")
        encoder = fit(model, x_train, y_train, loss, 1e-2, arguments.steps, 2, 32, seed)
        embeddings = {
            "raw columns": x_test,
            "standardised columns": keras.ops.convert_to_numpy(scale(x_test)),
            "untrained": before,
            "trained": embed(encoder, x_test),
        }
        for name, z in embeddings.items():
            n = evaluation.retrieval_metrics(z, y_test, k=(1, 5))
            found.setdefault(name, []).append([n["precision_at_1"], n["precision_at_5"], n["map"]])
    rows = {name: np.mean(values, axis=0) for name, values in found.items()}
    title = (
        f"{len(x_test)} patients never seen, mean of {arguments.seeds} splits: the most similar "
        "patients\nhave the same diagnosis"
    )
    print_table(title, ("nearest", "nearest five", "mean avg prec"), rows)
    encoder.save(arguments.out / "patients.keras")
    panels = {name: embeddings[name] for name in ("standardised columns", "trained")}
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
            print("no --data: drawn vectors stand in for features of a network")
            sets = {"drawn": draw_vectors(np.random.default_rng(arguments.seed))}
        for name, (x, y) in sets.items():
            learn_vectors(x, y, arguments.steps, arguments.seeds, name, arguments.out)
    if "rare" in arguments.part:
        learn_rare(arguments)
    if "patients" in arguments.part:
        learn_patients(arguments)
    print(f"\n{arguments.out}: {', '.join(sorted(path.name for path in arguments.out.iterdir()))}")
    print(f"{time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
