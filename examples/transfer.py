"""Start from a pretrained network: features first, then fine-tuning at two learning rates.

    python examples/transfer.py --data CUB_200_2011 --weights imagenet   # Keras downloads weights
    python examples/transfer.py --data FOLDER --weights mobilenet_v2.weights.h5
    python examples/transfer.py --data FOLDER --model mine.keras         # any saved Keras model
    python examples/transfer.py --short            # drawn pictures, random weights: see it run

FOLDER has a folder of pictures for each class; half of the classes are for training, the others are
judged. CUB-200-2011 is split as in the literature. First the network is frozen and each picture
passes it once: a head learns on its features in seconds. Then the whole is trained, the network
ten times slower than the head, its batch normalisation kept as it came. Without --weights the
network is random, and the table shows only that the steps run.

The preprocessing of the network stands in front of it, so the saved encoder takes pictures of 0 to
255. A backbone of KerasHub is a Keras model as well: save it with its preprocessing, one vector,
sequence or map as output, and pass it as --model.
"""

import argparse
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
from keras_metric import data, evaluation, losses, viz

# Networks of keras.applications, and whether they want pixels of -1 to 1 or take 0 to 255.
NETWORKS = {
    "MobileNetV2": True,
    "MobileNetV3Small": False,
    "EfficientNetV2B0": False,
    "ResNet50V2": True,
    "InceptionV3": True,
    "Xception": True,
    "ConvNeXtTiny": False,
}
ORDER = [
    "raw pixels, 32 x 32",
    "features",
    "features, untrained head",
    "features, trained head",
    "fine-tuned",
]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="CUB_200_2011, or a folder of classes")
    parser.add_argument("--network", choices=NETWORKS, default="MobileNetV2")
    parser.add_argument("--weights", help="imagenet, or a file of the network without its top")
    parser.add_argument("--model", type=Path, help="a saved Keras model instead of --network")
    parser.add_argument("--side", type=int, default=224, help="pictures are side x side pixels")
    parser.add_argument("--steps", type=int, default=400, help="of the head; the whole: as many")
    parser.add_argument(
        "--rate",
        type=float,
        default=1e-3,
        help="of the head on features; fine-tuning: a tenth of it, the network a hundredth",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to see that it runs")
    arguments = parser.parse_args()
    if arguments.model and arguments.weights:
        parser.error("--weights are for --network; a saved --model brings its own")
    if arguments.short:
        arguments.side, arguments.steps = 64, 3
    return arguments


def draw_pictures(classes, each, side, rng):
    """A few coloured patches each: hue and place are the class's, light and angle are not."""
    down, right = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    pictures = []
    for _ in range(classes):
        colors, places = rng.uniform(0, 1, (3, 3)), rng.uniform(-0.6, 0.6, (3, 2))
        for _ in range(each):
            angle, light = rng.uniform(-0.5, 0.5), rng.uniform(0.7, 1.1)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            picture = np.full((side, side, 3), rng.uniform(0.3, 0.7))
            for color, (y, x) in zip(colors, places @ turn):
                picture[np.hypot(down - y, right - x) < 0.35] = color
            picture = light * picture + rng.normal(0, 0.05, picture.shape)
            pictures.append(255 * np.clip(picture, 0, 1))
    return np.array(pictures, "float32"), np.repeat(np.arange(classes), each)


def load_parts(folder, side, seed):
    """For training and for judging: (pictures or their paths, labels), and what loads a path."""
    if folder is None:
        print("no --data: drawn pictures")
        x, y = draw_pictures(12, 8, side, np.random.default_rng(seed))
        return (x[y < 6], y[y < 6]), (x[y >= 6], y[y >= 6]), None
    load = data.ImageLoader((side, side))
    if any((place / "images.txt").exists() for place in (folder, folder / "CUB_200_2011")):
        parts = datasets.read_cub_200_2011(folder)
        return *((np.array(parts[p].paths), parts[p].labels) for p in ("train", "test")), load
    paths, labels, _ = data.image_paths(folder)
    paths, labels = np.array(paths), np.asarray(labels)
    train, test = data.split_by_class(labels, test_size=0.5, seed=seed)
    return (paths[train], labels[train]), (paths[test], labels[test]), load


def build_network(arguments):
    """A model from pictures of 0 to 255 to a map or a vector."""
    if arguments.model:
        return keras.saving.load_model(arguments.model, compile=False)
    shape = (arguments.side, arguments.side, 3)
    if arguments.weights is None:
        print("no --weights: the network is random, so nothing is transferred")
    make = getattr(keras.applications, arguments.network)
    network = make(weights=arguments.weights, include_top=False, input_shape=shape)
    picture = layers.Input(shape)
    # The others scale inside.
    x = layers.Rescaling(1 / 127.5, -1)(picture) if NETWORKS[arguments.network] else picture
    return keras.Model(picture, network(x), name="network")


def settle(network, pictures):
    """Give a random network the statistics of a batch: its numbers would else vanish."""
    inner = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    norms = [
        layer
        for model in inner
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization)
    ]
    for norm in norms:
        norm.momentum = 0.0
    network(pictures, training=True)
    for norm in norms:
        norm.momentum = 0.99


def loaded(pictures, load):
    return np.stack([load(picture) for picture in pictures]) if load else pictures


def features_of(network, x, load, batch=32):
    """What the frozen network gives, a vector for each picture; maps and sequences averaged."""
    features = []
    for start in range(0, len(x), batch):
        out = network.predict(loaded(x[start : start + batch], load), verbose=0)
        features.append(out.mean(tuple(range(1, out.ndim - 1))) if out.ndim > 2 else out)
    return np.concatenate(features)


def small_changes(seed):
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=seed),
            layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", seed=seed),
            layers.RandomZoom((-0.15, 0.15), fill_mode="nearest", seed=seed),
        ]
    )


def loss():
    return losses.MultiSimilarityLoss()


def train_head(x, y, dim, arguments):
    """On features: the head that learns from them, and its twin before training."""
    keras.utils.set_random_seed(arguments.seed)
    backbone = keras.Sequential([layers.Input(x.shape[1:]), layers.Dropout(0.2)])
    model = keras_metric.EmbeddingModel(backbone, dim)
    before = model.encoder.head.get_weights()
    model.compile(keras.optimizers.Adam(arguments.rate), loss())
    classes = min(16, len(np.unique(y)))
    batches = data.BalancedBatches(
        x, y, classes, 4, batches_per_epoch=arguments.steps, seed=arguments.seed
    )
    model.fit(batches, verbose=0)
    return model.encoder, before


def fine_tune(network, head, x, y, load, arguments):
    """The whole network and its head, each at a rate of its own."""
    model = keras_metric.EmbeddingModel(network, head.embedding_dim, freeze_batch_norm=True)
    model.encoder.head.set_weights(head.head.get_weights())
    slow = keras.optimizers.Adam(arguments.rate / 100)
    # A variable is named by its path; all others take the rate of the network.
    rates = keras.optimizers.OptimizerMap(
        slow, {".*encoder/head/.*": keras.optimizers.Adam(arguments.rate / 10)}
    )
    paths = [v.path for v in model.trainable_variables]
    fast = sum(rates[path] is not slow for path in paths)
    print(f"fine-tuning: {fast} variables at {arguments.rate / 10:g}, ", end="")
    print(f"{len(paths) - fast} at {arguments.rate / 100:g}", flush=True)
    model.compile(keras.optimizers.MultiOptimizer(rates), loss())
    batches = data.BalancedBatches(
        x,
        y,
        min(16, len(np.unique(y))),
        4,
        batches_per_epoch=arguments.steps,
        load=load,
        augment=small_changes(arguments.seed),
        seed=arguments.seed,
        workers=2 if load else 1,
    )
    model.fit(batches, verbose=0)
    return model.encoder


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    keras.utils.set_random_seed(arguments.seed)
    (x, y), (x_test, y_test), load = load_parts(arguments.data, arguments.side, arguments.seed)
    if len(np.unique(y)) < 2:
        sys.exit("needs four classes or more: two to train on, two to judge on.")
    print(f"{len(x):,} pictures of {len(np.unique(y))} classes to train on, ", end="")
    print(f"{len(x_test):,} of {len(np.unique(y_test))} others to judge on", flush=True)
    network = build_network(arguments)
    if not (arguments.weights or arguments.model):
        settle(network, loaded(x[:32], load))
    features, z = (features_of(network, part, load) for part in (x, x_test))
    seconds = time.perf_counter() - start
    print(f"features of {len(features) + len(z):,} pictures in {seconds:.0f} seconds", flush=True)

    small = keras.ops.image.resize(loaded(x_test, load), (32, 32), antialias=True)
    small = keras.ops.convert_to_numpy(small)
    head, before = train_head(features, y, 128, arguments)
    embeddings = {"raw pixels, 32 x 32": small.reshape(len(small), -1), "features": z}
    embeddings["features, trained head"] = head.predict(z, verbose=0)
    after = head.head.get_weights()
    head.head.set_weights(before)
    embeddings["features, untrained head"] = head.predict(z, verbose=0)
    head.head.set_weights(after)
    encoder = fine_tune(network, head, x, y, load, arguments)
    embeddings["fine-tuned"] = features_of(encoder, x_test, load)

    print(f"\n{'':28}{'recall@1':>11}{'recall@4':>11}{'MAP@R':>11}")
    for name in sorted(embeddings, key=ORDER.index):
        n = evaluation.retrieval_metrics(embeddings[name], y_test, k=(1, 4), metric="cosine")
        values = n["recall_at_1"], n["recall_at_4"], n["map_at_r"]
        print(f"{name:28}" + "".join(f"{value:11.3f}" for value in values))

    arguments.out.mkdir(parents=True, exist_ok=True)
    encoder.save(arguments.out / "encoder.keras")
    viz.plot_neighbors(small.astype("uint8"), y_test, embeddings["fine-tuned"]).savefig(
        arguments.out / "neighbors.png", dpi=120
    )
    print(f"\n{arguments.out}: encoder.keras, neighbors.png")
    print(f"{time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
