"""Two-tower model of images and captions: search images by text, and text by images.

    python examples/two_towers.py                  # two minutes, synthetic data
    python examples/two_towers.py --loss siglip --epochs 20

The images are colored shapes with captions such as "a large red ring at the top left". A quarter of
all captions is held out from training. The test retrieves images by caption and captions by image
for the held-out combinations, and compares with random results and the untrained towers.
"""

import argparse
import itertools
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

import keras_metric
from keras_metric import evaluation, losses

SIZES = {"small": 4.5, "large": 7.5}
COLORS = {
    "red": (0.85, 0.2, 0.2),
    "green": (0.2, 0.65, 0.3),
    "blue": (0.25, 0.4, 0.85),
    "yellow": (0.9, 0.8, 0.2),
    "purple": (0.6, 0.3, 0.7),
    "gray": (0.5, 0.5, 0.5),
}
SHAPES = ("disc", "ring", "square", "cross")
POSITIONS = {
    "top left": (10, 10),
    "top right": (10, 22),
    "bottom left": (22, 10),
    "bottom right": (22, 22),
}
SIDE = 32


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loss", choices=("clip", "siglip"), default="clip")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--images", type=int, default=40, help="training images per caption")
    parser.add_argument("--out", type=Path, default=Path("runs/two_towers"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.epochs, arguments.images = 1, 4
    return arguments


def captions():
    """Return the caption of every combination of words, and its words."""
    parts = list(itertools.product(SIZES, COLORS, SHAPES, POSITIONS))
    return [f"a {s} {c} {shape} at the {position}" for s, c, shape, position in parts], parts


def make_image(part, rng):
    """Return an image (32, 32, 3): the shape near its position on a noisy background."""
    size, color, shape, position = part
    radius = SIZES[size] * rng.uniform(0.9, 1.1)
    row, column = np.array(POSITIONS[position]) + rng.uniform(-2, 2, 2)
    down, right = np.mgrid[:SIDE, :SIDE] - np.array([row, column])[:, None, None]
    distance, box = np.hypot(down, right), np.maximum(abs(down), abs(right))
    inside = {
        "disc": distance < radius,
        "ring": (distance < radius) & (distance > radius * 0.55),
        "square": box < radius * 0.85,
        "cross": (box < radius) & (np.minimum(abs(down), abs(right)) < radius * 0.35),
    }[shape]
    background = rng.uniform(0.75, 0.95)
    foreground = np.array(COLORS[color]) + rng.normal(0, 0.04, 3)
    image = np.where(inside[..., None], foreground, background)
    return np.clip(image + rng.normal(0, 0.05, image.shape), 0, 1)


def make_pairs(which, count, rng):
    """Return `count` images, token ids and caption numbers for each caption in `which`."""
    texts, parts = captions()
    words = sorted({word for text in texts for word in text.split()})
    number = {word: i + 1 for i, word in enumerate(words)}
    tokens = np.array([[number[word] for word in text.split()] for text in texts], "int32")
    which = np.repeat(which, count)
    images = np.stack([make_image(parts[i], rng) for i in which]).astype("float32")
    return images, tokens[which], which.astype("int32"), len(words) + 1


def build_towers(vocabulary):
    image = keras.Sequential(
        [
            layers.Input((SIDE, SIDE, 3)),
            *(
                layer
                for filters in (32, 64, 64)
                for layer in (
                    layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu"),
                    layers.BatchNormalization(momentum=0.9),
                )
            ),
            # Keeps positions, which are part of the caption; average pooling would not.
            layers.Flatten(),
        ],
        name="images",
    )
    words = layers.Input((None,), dtype="int32")
    x = layers.Embedding(vocabulary, 32, mask_zero=True)(words)
    text = keras.Model(words, layers.GRU(64)(x), name="captions")
    return image, text


def recalls(model, images, tokens, k=(1, 5)):
    """Return recall of both directions: captions by image, then images by caption."""
    z = model.first_encoder.predict(images, verbose=0)
    w = model.second_encoder.predict(tokens, verbose=0)
    same = np.arange(len(z))
    by_image = evaluation.retrieval_metrics(z, same, w, same, k=k, metric="cosine")
    by_caption = evaluation.retrieval_metrics(w, same, z, same, k=k, metric="cosine")
    return [result[f"recall_at_{n}"] for result in (by_image, by_caption) for n in k]


def plot_captions(model, images, tokens, texts, path):
    """Plot captions as queries, with the four nearest images of each."""
    z = model.first_encoder.predict(images, verbose=0)
    w = model.second_encoder.predict(tokens, verbose=0)
    nearest = np.argsort(-(w @ z.T), axis=1)[:, :4]
    figure = Figure(figsize=(7, 8), layout="constrained")
    rows = figure.subplots(6, 5, gridspec_kw={"width_ratios": (2, 1, 1, 1, 1)})
    for query, panels in zip(range(0, len(texts), max(1, len(texts) // 6)), rows):
        panels[0].text(0, 0.5, texts[query].replace(" at", "\nat"), va="center", fontsize=10)
        for axes, item in zip(panels[1:], nearest[query]):
            axes.imshow(images[item])
            right = item == query
            for side in axes.spines.values():
                side.set(color="tab:blue" if right else "0.7", linewidth=3 if right else 1)
            axes.set(xticks=[], yticks=[])
        panels[0].set_axis_off()
    figure.suptitle("nearest images to held-out captions (blue: matching image)")
    figure.savefig(path, dpi=110)


def main():
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    texts, _ = captions()
    order = rng.permutation(len(texts))
    held_out, train = order[: len(texts) // 4], order[len(texts) // 4 :]
    images, tokens, number, vocabulary = make_pairs(train, arguments.images, rng)
    test = make_pairs(held_out, 1, rng)[:2]

    make = {"clip": losses.ClipLoss, "siglip": losses.SigLipLoss}[arguments.loss]
    model = keras_metric.TwoTowerModel(*build_towers(vocabulary), embedding_dim=64)
    model.compile(keras.optimizers.Adam(2e-3), make(learn_temperature=True))
    before = recalls(model, *test)

    # Images with the same caption number in a batch are not negatives of each other.
    shuffled = rng.permutation(len(number))
    pairs = {"first": images[shuffled], "second": tokens[shuffled]}
    model.fit(pairs, number[shuffled], batch_size=128, epochs=arguments.epochs, verbose=2)
    after = recalls(model, *test)

    at_random = [min(n / len(held_out), 1) for n in (1, 5)] * 2
    print(f"\n{len(held_out)} held-out captions, one image each")
    print(f"{'':18}captions by image       images by caption")
    print(f"{'':18}recall@1   recall@5     recall@1   recall@5")
    for name, values in (("random", at_random), ("untrained", before), ("trained", after)):
        print(f"{name:18}" + "{:8.3f} {:10.3f} {:12.3f} {:10.3f}".format(*values))

    arguments.out.mkdir(parents=True, exist_ok=True)
    plot_captions(model, *test, [texts[i] for i in held_out], arguments.out / "captions.png")
    for name, tower in (("images", model.first_encoder), ("captions", model.second_encoder)):
        tower.save(arguments.out / f"{name}.keras")
    print(f"{arguments.out}: captions.png, images.keras, captions.keras")


if __name__ == "__main__":
    main()
