"""Proxy-Anchor on the four data sets of the literature with published settings. Needs a GPU.

    python benchmarks/recipes/proxy_anchor.py cub --data CUB_200_2011
    python benchmarks/recipes/proxy_anchor.py cars --data cars196
    python benchmarks/recipes/proxy_anchor.py sop --data Stanford_Online_Products
    python benchmarks/recipes/proxy_anchor.py in-shop --data In-shop

Settings and results are those of the authors' code (https://github.com/tjddus9597/
Proxy-Anchor-CVPR2020) of Kim et al., 2020, https://arxiv.org/abs/2003.13911: ResNet-50 with 512
outputs on CUB and Cars. For the other two data sets they give results of Inception-BN, which Keras
does not have; this script uses ResNet-50. The ImageNet weights are those of Keras. README.md of
this folder has the table.
"""

import argparse
import dataclasses
import os
import time
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np
from keras import layers

import keras_metric
from keras_metric import callbacks, data, datasets, losses

SIZE = 224


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Published settings and results for one data set."""

    read: object  # a reader of keras_metric.datasets
    k: tuple
    published: tuple  # recall at k, in percent
    network: str  # network of the published results
    batch: int
    learning_rate: float
    warmup: int  # epochs in which only the new layers are trained
    decay_epochs: int
    decay_rate: float
    freeze_batch_norm: bool


RECIPES = {
    "cub": Recipe(
        datasets.read_cub_200_2011,
        (1, 2, 4, 8),
        (69.9, 79.6, 86.6, 91.4),
        "ResNet-50",
        *(120, 1e-4, 5, 5, 0.5, True),
    ),
    "cars": Recipe(
        datasets.read_cars_196,
        (1, 2, 4, 8),
        (87.7, 92.7, 95.5, 97.3),
        "ResNet-50",
        *(120, 1e-4, 5, 10, 0.5, True),
    ),
    "sop": Recipe(
        datasets.read_stanford_online_products,
        (1, 10, 100, 1000),
        (79.2, 90.7, 96.2, 98.6),
        "Inception-BN",
        *(180, 6e-4, 1, 20, 0.25, False),
    ),
    "in-shop": Recipe(
        datasets.read_in_shop,
        (1, 10, 20, 30, 40),
        (91.9, 98.1, 98.7, 99.0, 99.1),
        "Inception-BN",
        *(180, 6e-4, 1, 20, 0.25, False),
    ),
}


class Shuffled(keras.utils.PyDataset):
    """Random batches of images, as in the paper; Proxy-Anchor needs no balanced batches."""

    def __init__(self, paths, labels, batch, augment, load, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.paths, self.labels, self.batch = np.asarray(paths), np.asarray(labels), batch
        self.augment, self.load, self.seed, self.epoch = augment, load, seed, -1
        self.on_epoch_end()

    def __len__(self):
        return max(1, len(self.paths) // self.batch)

    def on_epoch_end(self):
        self.epoch += 1
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.paths))

    def __getitem__(self, number):
        rows = self.order[number * self.batch : (number + 1) * self.batch]
        images = np.stack([self.load(path) for path in self.paths[rows]])
        return self.augment(images, training=True), self.labels[rows]


def build_backbone(weights):
    pixels = keras.Input((SIZE, SIZE, 3))
    network = keras.applications.ResNet50(include_top=False, weights=weights)
    maps = network(keras.applications.resnet.preprocess_input(pixels))
    # The authors use the sum of both poolings.
    vector = layers.GlobalAveragePooling2D()(maps) + layers.GlobalMaxPooling2D()(maps)
    return keras.Model(pixels, vector, name="backbone")


def build_optimizer(recipe, steps, weight_decay):
    """Return an optimizer with 100 times the learning rate for proxies, and step decay."""

    def optimizer(learning_rate):
        schedule = keras.optimizers.schedules.ExponentialDecay(
            learning_rate, steps * recipe.decay_epochs, recipe.decay_rate, staircase=True
        )
        return keras.optimizers.AdamW(schedule, weight_decay=weight_decay, global_clipnorm=10.0)

    proxies = {"proxy_anchor_loss/.*": optimizer(100 * recipe.learning_rate)}
    optimizers = keras.optimizers.OptimizerMap(optimizer(recipe.learning_rate), proxies)
    return keras.optimizers.MultiOptimizer(optimizers)


def center_crops(paths):
    """Return the center of each image after resizing its shorter side to 256, as in the papers."""
    load = data.ImageLoader((256, 256), keep_aspect_ratio=True)
    start = (256 - SIZE) // 2
    return np.stack([load(path)[start : start + SIZE, start : start + SIZE] for path in paths])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, required=True, help="the unpacked data set")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--steps", type=int, help="batches per epoch; default: all")
    parser.add_argument("--batch", type=int, help="default: the published batch size")
    parser.add_argument("--weights", default="imagenet", help="imagenet, none, or a file")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--mixed-precision", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/proxy_anchor"))
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.name]
    if arguments.mixed_precision:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    start = time.perf_counter()
    parts = recipe.read(arguments.data)
    train = parts["train"]
    ids, labels = np.unique(train.labels, return_inverse=True)
    query, gallery = (parts.get(key, parts.get("test")) for key in ("query", "gallery"))
    print(f"{len(labels)} training images of {len(ids)} classes, {len(query.labels)} test images")

    augmentation = keras.Sequential(
        [data.RandomResizedCrop(SIZE, SIZE, scale=(0.08, 1.0)), layers.RandomFlip("horizontal")]
    )
    batch = arguments.batch or recipe.batch
    batches = Shuffled(
        train.paths,
        labels,
        batch,
        augmentation,
        data.ImageLoader((256, 256), keep_aspect_ratio=True),
        workers=arguments.workers,
    )
    weights = None if arguments.weights == "none" else arguments.weights
    model = keras_metric.EmbeddingModel(
        build_backbone(weights), 512, freeze_batch_norm=recipe.freeze_batch_norm
    )
    loss = losses.ProxyAnchorLoss(len(ids), margin=0.1, alpha=32)
    steps = arguments.steps or len(batches)
    x = center_crops(query.paths)
    gallery_arrays = None if gallery is query else (center_crops(gallery.paths), gallery.labels)
    evaluator = callbacks.RetrievalEvaluator(
        x, query.labels, gallery=gallery_arrays, name="unseen", k=recipe.k, log_dir=arguments.out
    )

    def fit(epochs, initial_epoch=0):
        model.compile(build_optimizer(recipe, steps, 1e-4), loss)
        model.fit(
            batches,
            initial_epoch=initial_epoch,
            epochs=epochs,
            steps_per_epoch=arguments.steps,
            callbacks=[evaluator],
        )

    warmup = min(recipe.warmup, arguments.epochs - 1)
    if warmup:
        model.backbone.trainable = False
        fit(warmup)
        model.backbone.trainable = True
    fit(arguments.epochs, warmup)

    arguments.out.mkdir(parents=True, exist_ok=True)
    model.encoder.save(arguments.out / "encoder.keras")
    print(f"\n{'':12}" + "".join(f"{f'R@{k}':>8}" for k in recipe.k))
    print(f"{'published':12}" + "".join(f"{p:8.1f}" for p in recipe.published), recipe.network)
    found = [100 * evaluator.history[f"recall_at_{k}"][-1] for k in recipe.k]
    print(f"{'keras_metric':12}" + "".join(f"{value:8.1f}" for value in found), "ResNet-50")
    print(f"{arguments.out}: encoder.keras; {time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
