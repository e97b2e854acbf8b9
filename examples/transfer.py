"""Start from a pretrained network: features first, then fine-tuning at two learning rates.

    python examples/transfer.py --data CUB_200_2011 --weights imagenet   # Keras downloads weights
    python examples/transfer.py --data FOLDER --weights mobilenet_v2.weights.h5
    python examples/transfer.py --data FOLDER --model mine.keras         # any saved Keras model
    python examples/transfer.py --short            # synthetic images, random weights

FOLDER has a folder of images for each class. Half of the classes are for training, the others for
the test; CUB-200-2011 is split as in the literature. First the network is frozen: its features are
computed once for each image, and a head is trained on them in seconds. Then all layers are trained,
the network with a tenth of the learning rate of the head and frozen batch normalization. Without
--weights the network is random, and the script only tests that all steps run.

The saved encoder includes the preprocessing and takes images of 0 to 255. For a backbone of
KerasHub, save it as a Keras model with its preprocessing and one vector, sequence or map as output,
and pass it as --model.
"""

import argparse
import sys
import time
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np
from keras import layers

import keras_metric
from keras_metric import data, datasets, evaluation, losses, viz

# Networks of keras.applications, and whether they take pixels of -1 to 1 instead of 0 to 255.
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
    parser.add_argument("--side", type=int, default=224, help="size of the images in pixels")
    parser.add_argument("--steps", type=int, default=400, help="of each of the two stages")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=1e-3,
        help="of the head on features; in fine-tuning head / 10, network / 100",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    arguments = parser.parse_args()
    if arguments.model and arguments.weights:
        parser.error("--weights applies to --network; a saved --model contains its weights")
    if arguments.short:
        arguments.side, arguments.steps = 64, 3
    return arguments


def make_images(classes, each, side, rng):
    """Return images of three discs; colors and positions depend on the class, the angle varies."""
    down, right = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    images = []
    for _ in range(classes):
        colors, centers = rng.uniform(0, 1, (3, 3)), rng.uniform(-0.6, 0.6, (3, 2))
        for _ in range(each):
            angle, light = rng.uniform(-0.5, 0.5), rng.uniform(0.7, 1.1)
            rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            image = np.full((side, side, 3), rng.uniform(0.3, 0.7))
            for color, (y, x) in zip(colors, centers @ rotation):
                image[np.hypot(down - y, right - x) < 0.35] = color
            image = light * image + rng.normal(0, 0.05, image.shape)
            images.append(255 * np.clip(image, 0, 1))
    return np.array(images, "float32"), np.repeat(np.arange(classes), each)


def load_parts(folder, side, seed):
    """Return (images or paths, labels) for training and for the test, and a loader of paths."""
    if folder is None:
        print("no --data: using synthetic images")
        x, y = make_images(12, 8, side, np.random.default_rng(seed))
        return (x[y < 6], y[y < 6]), (x[y >= 6], y[y >= 6]), None
    load = data.ImageLoader((side, side))
    if any((root / "images.txt").exists() for root in (folder, folder / "CUB_200_2011")):
        parts = datasets.read_cub_200_2011(folder)
        return *((np.array(parts[p].paths), parts[p].labels) for p in ("train", "test")), load
    paths, labels, _ = data.image_paths(folder)
    paths, labels = np.array(paths), np.asarray(labels)
    train, test = data.split_by_class(labels, test_size=0.5, seed=seed)
    return (paths[train], labels[train]), (paths[test], labels[test]), load


def build_network(arguments):
    """Return a model that maps images of 0 to 255 to a feature map or a vector."""
    if arguments.model:
        return keras.saving.load_model(arguments.model, compile=False)
    shape = (arguments.side, arguments.side, 3)
    if arguments.weights is None:
        print("no --weights: the network is random and there is no transfer")
    make = getattr(keras.applications, arguments.network)
    network = make(weights=arguments.weights, include_top=False, input_shape=shape)
    image = layers.Input(shape)
    # The other networks contain their rescaling.
    x = layers.Rescaling(1 / 127.5, -1)(image) if NETWORKS[arguments.network] else image
    return keras.Model(image, network(x), name="network")


def set_statistics(network, images):
    """Set the batch normalization of a random network, so that its outputs do not vanish."""
    inner = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    norms = [
        layer
        for model in inner
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization)
    ]
    for norm in norms:
        norm.momentum = 0.0
    network(images, training=True)
    for norm in norms:
        norm.momentum = 0.99


def load_all(images, load):
    return np.stack([load(path) for path in images]) if load else images


def features_of(network, x, load, batch=32):
    """Return a feature vector for each image; average feature maps and sequences."""
    features = []
    for start in range(0, len(x), batch):
        out = network.predict(load_all(x[start : start + batch], load), verbose=0)
        features.append(out.mean(tuple(range(1, out.ndim - 1))) if out.ndim > 2 else out)
    return np.concatenate(features)


def augmentation(seed):
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
    """Train a head on features; return its encoder and its initial weights."""
    keras.utils.set_random_seed(arguments.seed)
    backbone = keras.Sequential([layers.Input(x.shape[1:]), layers.Dropout(0.2)])
    model = keras_metric.EmbeddingModel(backbone, dim)
    before = model.encoder.head.get_weights()
    model.compile(keras.optimizers.Adam(arguments.learning_rate), loss())
    classes = min(16, len(np.unique(y)))
    batches = data.BalancedBatches(
        x, y, classes, 4, batches_per_epoch=arguments.steps, seed=arguments.seed
    )
    model.fit(batches, verbose=0)
    return model.encoder, before


def fine_tune(network, head, x, y, load, arguments):
    """Train the network and its head with different learning rates."""
    model = keras_metric.EmbeddingModel(network, head.embedding_dim, freeze_batch_norm=True)
    model.encoder.head.set_weights(head.head.get_weights())
    high, low = arguments.learning_rate / 10, arguments.learning_rate / 100
    default = keras.optimizers.Adam(low)
    # The pattern matches the paths of the variables of the head.
    optimizers = keras.optimizers.OptimizerMap(
        default, {".*encoder/head/.*": keras.optimizers.Adam(high)}
    )
    paths = [v.path for v in model.trainable_variables]
    num_high = sum(optimizers[path] is not default for path in paths)
    print(f"fine-tuning: {num_high} variables at {high:g}, ", end="")
    print(f"{len(paths) - num_high} at {low:g}", flush=True)
    model.compile(keras.optimizers.MultiOptimizer(optimizers), loss())
    batches = data.BalancedBatches(
        x,
        y,
        min(16, len(np.unique(y))),
        4,
        batches_per_epoch=arguments.steps,
        load=load,
        augment=augmentation(arguments.seed),
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
        sys.exit("At least four classes are needed: two for training, two for the test.")
    print(f"{len(x):,} training images of {len(np.unique(y))} classes, ", end="")
    print(f"{len(x_test):,} test images of {len(np.unique(y_test))} other classes", flush=True)
    network = build_network(arguments)
    if not (arguments.weights or arguments.model):
        set_statistics(network, load_all(x[:32], load))
    features, z = (features_of(network, part, load) for part in (x, x_test))
    seconds = time.perf_counter() - start
    print(f"features of {len(features) + len(z):,} images in {seconds:.0f} seconds", flush=True)

    small = keras.ops.image.resize(load_all(x_test, load), (32, 32), antialias=True)
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
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    main()
