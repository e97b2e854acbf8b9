"""Pictures and captions in one space: find a picture by a sentence, and a sentence by a picture.

    python examples/two_towers.py                  # two minutes; draws its own data
    python examples/two_towers.py --loss siglip --epochs 20

The pictures are coloured shapes, the captions say what they show ("a large red ring at the top
left"). A quarter of all captions is kept from training: what is measured is whether pictures and
captions of combinations never seen find each other, beside chance and the untrained towers.
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
    "grey": (0.5, 0.5, 0.5),
}
SHAPES = ("disc", "ring", "square", "cross")
PLACES = {
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
    parser.add_argument("--pictures", type=int, default=40, help="of each caption, to train on")
    parser.add_argument("--out", type=Path, default=Path("runs/two_towers"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to see that it runs")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.epochs, arguments.pictures = 1, 4
    return arguments


def captions():
    """Every combination of words, and what it is made of."""
    parts = list(itertools.product(SIZES, COLORS, SHAPES, PLACES))
    return [f"a {s} {c} {shape} at the {place}" for s, c, shape, place in parts], parts


def draw(part, rng):
    """A picture (32, 32, 3): the shape, a little off its place, on a noisy ground."""
    size, color, shape, place = part
    radius = SIZES[size] * rng.uniform(0.9, 1.1)
    row, column = np.array(PLACES[place]) + rng.uniform(-2, 2, 2)
    down, right = np.mgrid[:SIDE, :SIDE] - np.array([row, column])[:, None, None]
    away, box = np.hypot(down, right), np.maximum(abs(down), abs(right))
    inside = {
        "disc": away < radius,
        "ring": (away < radius) & (away > radius * 0.55),
        "square": box < radius * 0.85,
        "cross": (box < radius) & (np.minimum(abs(down), abs(right)) < radius * 0.35),
    }[shape]
    ground = rng.uniform(0.75, 0.95)
    picture = np.where(inside[..., None], np.array(COLORS[color]) + rng.normal(0, 0.04, 3), ground)
    return np.clip(picture + rng.normal(0, 0.05, picture.shape), 0, 1)


def make_pairs(which, count, rng):
    """`count` pictures of each caption in `which`: pictures, token ids, number of the caption."""
    texts, parts = captions()
    words = sorted({word for text in texts for word in text.split()})
    number = {word: i + 1 for i, word in enumerate(words)}
    tokens = np.array([[number[word] for word in text.split()] for text in texts], "int32")
    which = np.repeat(which, count)
    pictures = np.stack([draw(parts[i], rng) for i in which]).astype("float32")
    return pictures, tokens[which], which.astype("int32"), len(words) + 1


def build_towers(vocabulary):
    picture = keras.Sequential(
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
            # Where things are is part of the caption, so the map is not averaged.
            layers.Flatten(),
        ],
        name="pictures",
    )
    words = layers.Input((None,), dtype="int32")
    x = layers.Embedding(vocabulary, 32, mask_zero=True)(words)
    text = keras.Model(words, layers.GRU(64)(x), name="captions")
    return picture, text


def found(model, pictures, tokens, k=(1, 5)):
    """Recall of each direction: the right caption for a picture, a right picture for a caption."""
    z = model.first_encoder.predict(pictures, verbose=0)
    w = model.second_encoder.predict(tokens, verbose=0)
    same = np.arange(len(z))
    there = evaluation.retrieval_metrics(z, same, w, same, k=k, metric="cosine")
    back = evaluation.retrieval_metrics(w, same, z, same, k=k, metric="cosine")
    return [result[f"recall_at_{n}"] for result in (there, back) for n in k]


def show(model, pictures, tokens, texts, path):
    """Captions as queries, with the four pictures that are nearest to each."""
    z = model.first_encoder.predict(pictures, verbose=0)
    w = model.second_encoder.predict(tokens, verbose=0)
    nearest = np.argsort(-(w @ z.T), axis=1)[:, :4]
    figure = Figure(figsize=(7, 8), layout="constrained")
    rows = figure.subplots(6, 5, gridspec_kw={"width_ratios": (2, 1, 1, 1, 1)})
    for query, places in zip(range(0, len(texts), max(1, len(texts) // 6)), rows):
        places[0].text(0, 0.5, texts[query].replace(" at", "\nat"), va="center", fontsize=10)
        for axes, item in zip(places[1:], nearest[query]):
            axes.imshow(pictures[item])
            right = item == query
            for side in axes.spines.values():
                side.set(color="tab:blue" if right else "0.7", linewidth=3 if right else 1)
            axes.set(xticks=[], yticks=[])
        places[0].set_axis_off()
    figure.suptitle("nearest pictures to a caption never seen (blue: its own)")
    figure.savefig(path, dpi=110)


def main():
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    texts, _ = captions()
    order = rng.permutation(len(texts))
    unseen, seen = order[: len(texts) // 4], order[len(texts) // 4 :]
    pictures, tokens, number, vocabulary = make_pairs(seen, arguments.pictures, rng)
    test = make_pairs(unseen, 1, rng)[:2]

    make = {"clip": losses.ClipLoss, "siglip": losses.SigLipLoss}[arguments.loss]
    model = keras_metric.TwoTowerModel(*build_towers(vocabulary), embedding_dim=64)
    model.compile(keras.optimizers.Adam(2e-3), make(learn_temperature=True))
    before = found(model, *test)

    # Pictures of one caption may meet in a batch; its number says that they are no negatives.
    mixed = rng.permutation(len(number))
    pairs = {"first": pictures[mixed], "second": tokens[mixed]}
    model.fit(pairs, number[mixed], batch_size=128, epochs=arguments.epochs, verbose=2)
    after = found(model, *test)

    chance = [min(n / len(unseen), 1) for n in (1, 5)] * 2
    print(f"\n{len(unseen)} captions never seen, one picture of each")
    print(f"{'':18}caption of a picture    picture of a caption")
    print(f"{'':18}recall@1   recall@5     recall@1   recall@5")
    for name, values in (("chance", chance), ("untrained", before), ("trained", after)):
        print(f"{name:18}" + "{:8.3f} {:10.3f} {:12.3f} {:10.3f}".format(*values))

    arguments.out.mkdir(parents=True, exist_ok=True)
    show(model, *test, [texts[i] for i in unseen], arguments.out / "captions.png")
    for name, tower in (("pictures", model.first_encoder), ("captions", model.second_encoder)):
        tower.save(arguments.out / f"{name}.keras")
    print(f"{arguments.out}: captions.png, pictures.keras, captions.keras")


if __name__ == "__main__":
    main()
