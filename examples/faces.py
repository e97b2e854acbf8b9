"""Recognize people that are not in the training data: verify, add, identify, reject, remove.

    python examples/faces.py --data orl_faces.npz      # 40 people (AT&T), 10 images of each
    python examples/faces.py --data FOLDER             # a folder of images for each person
    python examples/faces.py --download                # the same 40 people, by scikit-learn
    python examples/faces.py                           # without data: synthetic faces
    python examples/faces.py --data ... --splits 5     # mean over five splits of the people

An encoder is trained on three quarters of the people and tested on the others. The results are
compared with raw pixels and with the untrained network. For fewer than 5,000 images the encoder is
a linear layer initialized with principal components. Convolutions without pretraining overfit so
few people and are worse than raw pixels on others (try --network conv). Then the script adds half
of the test people to an index with three images each, identifies their other images, rejects
unknown people, and removes a person.

Faces are personal data. Add only people who agreed, protect embeddings like images (they identify a
person), remove people on request, and check the errors of each group: with `--groups FILE.csv`
(lines of person,group) the table shows the error rates of each group at the common threshold.
"""

import argparse
import csv
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
from keras_metric import callbacks, data, evaluation, losses, viz
from keras_metric.search import Index

HEIGHT, WIDTH = 64, 56


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="orl_faces.npz, or a folder of people")
    parser.add_argument("--download", action="store_true", help="Olivetti faces by scikit-learn")
    parser.add_argument("--groups", type=Path, help="CSV: person,group")
    parser.add_argument("--network", choices=("linear", "conv"), help="default: by the data")
    parser.add_argument("--steps", type=int, help="default: 300; for conv 1,000")
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--false-accept-rate", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=Path("runs/faces"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    arguments = parser.parse_args()
    return arguments


def load_faces(path, download, seed):
    """Return gray images (items, HEIGHT, WIDTH, 1) in 0 to 255 and the name of each person."""
    folder = os.environ.get("KERAS_METRIC_DATA")
    if path is None and not download and folder and Path(folder, "orl_faces.npz").exists():
        path = Path(folder, "orl_faces.npz")
    if download:
        from sklearn.datasets import fetch_olivetti_faces

        faces = fetch_olivetti_faces()
        images, people = 255 * faces.images[..., None], faces.target
    elif path is None:
        print("no --data: using synthetic faces")
        return make_people(24, 10, np.random.default_rng(seed))
    elif path.is_dir():
        paths, people, names = data.image_paths(path)
        people = np.asarray(names)[people] if len(names) else people
        load = data.ImageLoader((HEIGHT, WIDTH), "grayscale")
        images = np.stack([load(path) for path in paths])
    else:
        with np.load(path) as file:
            images, people = file["x"][..., None], file["y"]
    images = keras.ops.image.resize(images.astype("float32"), (HEIGHT, WIDTH), antialias=True)
    return keras.ops.convert_to_numpy(images), np.asarray([str(person) for person in people])


def make_people(number, each, rng):
    """Return faces of ellipses and lines; the shape depends on the person, pose and light vary."""
    down, right = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]

    def blob(y, x, high, wide, sharp=18.0):
        away = np.hypot((down - y) / high, (right - x) / wide)
        return 1 / (1 + np.exp(np.clip(sharp * (away - 1), -60, 60)))

    images = []
    for _ in range(number):
        wide, long, gap, eye, nose, mouth, brow, skin, hair = rng.uniform(
            (0.5, 0.65, 0.2, 0.05, 0.12, 0.15, 0.02, 0.5, 0.0),
            (0.75, 0.9, 0.36, 0.12, 0.3, 0.34, 0.07, 0.9, 0.4),
        )
        high = rng.uniform(-0.35, -0.05)
        for _ in range(each):
            y, x = rng.uniform(-0.08, 0.08, 2)
            smile, light = rng.uniform(-0.06, 0.06), rng.uniform(-0.2, 0.2)
            face = np.full(down.shape, 0.35)
            face += (hair - 0.35) * blob(y - 0.12, x, long, wide * 1.12)
            face += (skin - face) * blob(y + 0.1, x, long * 0.85, wide)
            for side in (-1, 1):
                face -= 0.5 * blob(y + high, x + side * gap, eye, eye * 1.6)
                face -= 0.3 * blob(y + high - 2.2 * eye, x + side * gap, brow, eye * 2.2)
            face -= 0.2 * blob(y + high + 0.2 + nose / 2, x, nose, 0.05)
            bow = smile * (right - x) ** 2 * 20
            face -= (
                0.4 * (abs(down - y - high - 0.35 - nose + bow) < 0.03) * (abs(right - x) < mouth)
            )
            face += light * right + rng.normal(0, 0.04, down.shape)
            images.append(np.clip(face, 0, 1) * 255)
    people = np.repeat([f"person {i:02}" for i in range(number)], each)
    return np.array(images, "float32")[..., None], people


def build_backbone(network, seed):
    keras.utils.set_random_seed(seed)
    blocks = [
        layer
        for filters in (32, 48, 64, 96)
        for layer in (
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.95),
            layers.ReLU(),
            layers.MaxPooling2D(2),
        )
    ]
    return keras.Sequential(
        [
            layers.Input((HEIGHT, WIDTH, 1)),
            layers.Rescaling(1 / 255),
            # Normalizes the brightness and the contrast of each image.
            layers.GroupNormalization(groups=1, center=False, scale=False),
            *(blocks if network == "conv" else ()),
            layers.Flatten(),
            layers.Dropout(0.3),
        ],
        name="backbone",
    )


def initialize_with_components(model, x):
    """Initialize the linear layer with the principal components of the images."""
    from sklearn.decomposition import PCA

    # Include mirrored images.
    features = model.backbone.predict(np.concatenate([x, x[:, :, ::-1]]), verbose=0)
    components = PCA(min(model.embedding_dim, len(x) - 1), random_state=0).fit(features)
    # Partial whitening, because the largest components are mostly pose and light.
    kernel = np.zeros((features.shape[1], model.embedding_dim), "float32")
    scaled = components.components_ / components.explained_variance_[:, None] ** 0.25
    kernel[:, : len(scaled)] = scaled.T
    model.encoder.head.set_weights([kernel, -components.mean_ @ kernel])


def augmentation(seed):
    """Random changes that also occur between images of one person."""
    settings = {"fill_mode": "nearest", "seed": seed}
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=seed),
            layers.RandomRotation(0.018, **settings),
            layers.RandomTranslation(0.036, 0.036, **settings),
            layers.RandomZoom((-0.06, 0.06), (-0.06, 0.06), **settings),
            layers.RandomContrast(0.25, seed=seed),
        ]
    )


def train(x, y, network, seed, steps, evaluator=None):
    """Return an untrained and a trained encoder."""
    linear = network == "linear"
    model = keras_metric.EmbeddingModel(build_backbone(network, seed), 100 if linear else 128)
    if linear:
        initialize_with_components(model, x)
    untrained = keras_metric.EmbeddingModel(build_backbone(network, seed), model.embedding_dim)
    learning_rate = keras.optimizers.schedules.CosineDecay(3e-4 if linear else 1e-3, steps)
    model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=1e-3),
        losses.SupConLoss(0.05 if linear else 0.1),
    )
    epochs = max(1, steps // 50)
    batches = data.BalancedBatches(
        x,
        y,
        min(20, len(np.unique(y))),
        4,
        batches_per_epoch=steps // epochs,
        augment=augmentation(seed),
        seed=seed,
    )
    model.fit(batches, epochs=epochs, callbacks=[evaluator] if evaluator else None, verbose=0)
    return untrained.encoder, model.encoder


def flat(x):
    return x.reshape(len(x), -1) / 255


def evaluate(embeddings, people):
    scores, same = evaluation.pair_distances(embeddings, people)
    verified = evaluation.verification_metrics(scores, same, far=0.01)
    retrieved = evaluation.retrieval_metrics(embeddings, people, k=(1,))
    return {
        "auc": verified["auc"],
        "eer": verified["eer"],
        "tar": verified["tar_at_far_0.01"],
        "recall": retrieved["recall_at_1"],
    }, (scores, same)


def print_table(rows):
    print(f"\n{'':18}{'AUC':>8}{'EER':>8}{'TAR at':>10}{'recall@1':>10}")
    print(f"{'':18}{'':8}{'':8}{'FAR 1 %':>10}")
    for name, n in rows.items():
        print(f"{name:18}{n['auc']:8.3f}{n['eer']:8.3f}{n['tar']:10.3f}{n['recall']:10.3f}")


def test_identification(encoder, x, people, rate, path):
    """Add half of the people to an index with three images each; the others are unknown."""
    names = np.unique(people)
    known, unknown = names[: len(names) // 2], names[len(names) // 2 :]
    z = encoder.predict(x, verbose=0)
    index = Index(encoder=encoder, description="faces of the example")
    for name in known:
        mine = np.flatnonzero(people == name)
        index.add(z[mine[:3]], [name] * 3, attributes=[{"image": int(i)} for i in mine[:3]])
    # Two more images of each person are for the threshold, the rest are for the test.
    validation, test = (
        np.concatenate([np.flatnonzero(people == name)[part] for name in known])
        for part in (slice(3, 5), slice(5, None))
    )
    rows = np.flatnonzero(np.isin(people, unknown))
    impostors, test_impostors = (rows[np.isin(people[rows], unknown[i::2])] for i in (0, 1))
    validation = np.concatenate([impostors, validation])
    if rate * len(validation) < 1:
        lowest = 1 / len(validation)
        print(f"\n{len(validation)} images are too few for a rate of {rate:g}; using {lowest:.3f}")
        rate = lowest
    point = index.calibrate(z[validation], people[validation], false_accept_rate=rate)
    found = index.identify(z[test])
    right = np.mean([match.label == name for match, name in zip(found, people[test])])
    wrong = np.mean([match.label not in (None, n) for match, n in zip(found, people[test])])
    accepted = np.mean([match.label is not None for match in index.identify(z[test_impostors])])
    print(f"\n{len(known)} people added, three images each; threshold {point.threshold:.3f}")
    print(f"their other {len(test)} images: {right:.3f} correct, {wrong:.3f} wrong person")
    print(f"{len(test_impostors)} images of {len(unknown[1::2])} unknown people: ", end="")
    print(f"{accepted:.3f} accepted")

    guest = str(unknown[-1])
    mine = np.flatnonzero(people == guest)

    def fraction_identified():
        return np.mean([match.label == guest for match in index.identify(z[mine[3:]])])

    index.add(z[mine[:3]], [guest] * 3)
    print(f"{guest} added: {fraction_identified():.3f} of {len(mine) - 3} images identified")
    index.remove(labels=[guest])
    print(f"{guest} removed: {fraction_identified():.3f} identified, {len(index)} items left")
    index.save(path)


def print_groups(path, scores, people, pairs, rate):
    """Print the errors of each group at the common threshold."""
    with open(path, newline="") as file:
        group_of = dict(csv.reader(file))
    first, second = pairs
    groups = np.array([group_of.get(str(person), "not listed") for person in people])
    # Compare people of the same group only, because these are confused most often.
    inside = groups[first] == groups[second]
    result = evaluation.verification_metrics(
        scores[0][inside], scores[1][inside], far=rate, groups=groups[first][inside]
    )
    print(f"\nerrors by group at the threshold with FAR {rate:.0%} for all groups")
    for group in np.unique(groups):
        far, frr = (result.get(f"{group}/{e}_at_shared_far_{rate:g}") for e in ("far", "frr"))
        print(f"{group:18} FAR {far:.3f}, FRR {frr:.3f}")


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    x, people = load_faces(arguments.data, arguments.download, arguments.seed)
    names, y = np.unique(people, return_inverse=True)
    if len(names) < 8:
        sys.exit(f"At least 8 people with four images each are needed. Received: {len(names)}.")
    network = arguments.network or ("linear" if len(x) < 5000 else "conv")
    steps = arguments.steps or (300 if network == "linear" else 1000)
    if arguments.short:
        steps = 8
    tables = []
    for split in range(arguments.splits):
        seed = arguments.seed + split
        train_rows, test_rows = data.split_by_class(y, test_size=0.25, seed=seed)
        x_test, y_test = x[test_rows], people[test_rows]
        num_test = len(np.unique(y_test))
        print(f"{len(np.unique(y[train_rows]))} training people, {num_test} test people")
        evaluator = None
        if split == 0:
            evaluator = callbacks.RetrievalEvaluator(
                x_test, y_test, name="unseen", k=(1,), log_dir=arguments.out
            )
        before, after = train(x[train_rows], y[train_rows], network, seed, steps, evaluator)
        embeddings = {
            "raw pixels": flat(x_test),
            "untrained": before.predict(x_test, verbose=0),
            "trained": after.predict(x_test, verbose=0),
        }
        results = {name: evaluate(z, y_test) for name, z in embeddings.items()}
        tables.append({name: metrics for name, (metrics, _) in results.items()})
        if split == 0:
            first = (after, x_test, y_test, embeddings["trained"], results)
    print_table(
        {
            name: {key: np.mean([table[name][key] for table in tables]) for key in tables[0][name]}
            for name in tables[0]
        }
    )
    encoder, x_test, y_test, z, results = first
    arguments.out.mkdir(parents=True, exist_ok=True)
    rate = arguments.false_accept_rate
    test_identification(encoder, x_test, y_test, rate, arguments.out / "index")
    if arguments.groups:
        pairs = np.triu_indices(len(y_test), 1)
        print_groups(arguments.groups, results["trained"][1], y_test, pairs, rate)

    encoder.save(arguments.out / "encoder.keras")
    curves = {name: scores for name, (_, (scores, _)) in results.items()}
    same = results["trained"][1][1]
    viz.plot_roc(curves, same).savefig(arguments.out / "roc.png", dpi=120)
    viz.plot_neighbors(x_test.astype("uint8"), y_test, z).savefig(
        arguments.out / "neighbors.png", dpi=120
    )
    print(f"\n{arguments.out}: encoder.keras, index, roc.png, neighbors.png")
    print(f"tensorboard --logdir {arguments.out}: recall by epoch, and a 3-D plot of the faces")
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    main()
