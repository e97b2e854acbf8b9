"""Embed sets: attention learns which observations of a set say whose it is.

    python examples/attention.py
    python examples/attention.py --pooling average     # or max: the same network without attention
    python examples/attention.py --routine 0.15        # fewer payments that tell

A customer's month is a set of 8 to 40 payments, drawn here: a part are the customer's routine, the
others are errands as anybody's. The network sees each payment alone, attention weighs them, and the
embedding is the weighted mean: the order of a set does not matter, and neither does its length,
since the mask keeps padding out. What is measured is whether two months of customers never trained
on find each other, beside the mean of the raw payments and the same network with a plain mean. For
sequences put a recurrent layer or self-attention before the pooling; the mask goes along.
"""

import argparse
import time
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np
from keras import layers, ops

import keras_metric
from keras_metric import data, evaluation, losses, viz

LONGEST, WIDTH = 40, 12
STATES = ("untrained", "trained")
POOLINGS = ("attention", "average", "max")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pooling", choices=POOLINGS, action="append", help="default: all three")
    parser.add_argument("--routine", type=float, default=0.25, help="share of payments that tell")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs/attention"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to see that it runs")
    arguments = parser.parse_args()
    arguments.pooling = arguments.pooling or POOLINGS
    if arguments.short:
        arguments.steps = 40
    return arguments


@keras.saving.register_keras_serializable("keras_metric_examples")
class AttentionPooling(layers.Layer):
    """A weighted mean of a set for each head; the weights are a softmax over what is kept.

        weights = softmax over steps of v'tanh(W x + b),   pooled = sum of weights * x

    Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning", 2018,
    https://arxiv.org/abs/1802.04712
    """

    def __init__(self, heads=4, hidden=32, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.hidden = layers.Dense(hidden, "tanh")
        self.score = layers.Dense(heads)
        self.hidden_units = hidden

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.score.build((*input_shape[:-1], self.hidden_units))

    def weights_of(self, x, mask=None):
        """Weights (batch, steps, heads) that sum to 1 over the steps."""
        score = self.score(self.hidden(x))
        if mask is not None:
            score = ops.where(ops.expand_dims(mask, -1), score, -1e9)
        return ops.softmax(score, axis=1)

    def call(self, x, mask=None):
        pooled = ops.einsum("bsh,bsd->bhd", self.weights_of(x, mask), x)
        return ops.reshape(pooled, (-1, self.heads * x.shape[-1]))

    def compute_mask(self, inputs, previous_mask=None):
        return None  # one vector is left

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.heads * input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "heads": self.heads, "hidden": self.hidden_units}


def draw_months(customers, months, share, rng):
    """Sets (customers * months, LONGEST, WIDTH) padded with zeros, whose they are, what is routine.

    Columns 0 to 9 describe a payment (amount, hour, kind of shop and so on, standardised); 10 and
    11 hint at routine (paid by standing order, shop seen before), each with much noise.
    """
    x, y, told = [], [], []
    for customer in range(customers):
        habits = 1.2 * rng.normal(size=(3, WIDTH - 2))
        for _ in range(months):
            count = rng.integers(8, LONGEST + 1)
            routine = rng.random(count) < share
            payments = 1.2 * rng.normal(size=(count, WIDTH))
            habit = habits[rng.integers(3, size=count)] + 0.3 * rng.normal(size=(count, WIDTH - 2))
            payments[routine, :-2] = habit[routine]
            payments[:, -2:] = 2.0 * routine[:, None] - 1 + 0.8 * rng.normal(size=(count, 2))
            rest = ((0, LONGEST - count), (0, 0))
            x.append(np.pad(payments, rest))
            told.append(np.pad(routine, rest[0]))
            y.append(customer)
    return np.array(x, "float32"), np.array(y), np.array(told)


def build_backbone(pooling, seed):
    keras.utils.set_random_seed(seed)
    pool = {"attention": AttentionPooling(name="attention")}.get(pooling)
    return keras.Sequential(
        [
            layers.Input((None, WIDTH)),
            layers.Masking(),  # a payment of zeros is none
            layers.Dense(64, "relu"),
            layers.Dense(64, "relu"),
            # Without one, the encoder's own head takes the mean or maximum of what is kept.
            *([pool] if pool else []),
        ]
    )


def train(x, y, pooling, steps, seed):
    """The encoder before training, and after it."""
    pool = {"pooling": "max"} if pooling == "max" else {}
    model, untrained = (
        keras_metric.EmbeddingModel(build_backbone(pooling, seed), 32, **pool) for _ in range(2)
    )
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(rate), losses.SupConLoss(0.1))
    batches = data.BalancedBatches(x, y, 24, 4, batches_per_epoch=steps, seed=seed)
    model.fit(batches, verbose=0)
    return untrained.encoder, model.encoder


def attention_of(encoder, x):
    """Weight of each payment (sets, steps), the mean over heads."""
    *before, pool = encoder.backbone.layers
    z = ops.convert_to_tensor(x)
    mask = ops.any(ops.not_equal(z, 0), axis=-1)
    for layer in before:
        z = layer(z)
    return ops.convert_to_numpy(ops.mean(pool.weights_of(z, mask), axis=-1))


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    rng = np.random.default_rng(arguments.seed)
    customers = 60 if arguments.short else 300
    x, y, _ = draw_months(customers, 8, arguments.routine, rng)
    x_test, y_test, told = draw_months(100, 6, arguments.routine, rng)
    print(f"{len(x):,} months of {customers} customers to train on,")
    print(f"{len(x_test):,} of 100 others to judge on", flush=True)
    kept = (x_test != 0).any(-1)

    def judge(z):
        n = evaluation.retrieval_metrics(z, y_test, k=(1, 5))
        return n["recall_at_1"], n["recall_at_5"], n["map_at_r"]

    embeddings = {"raw payments, their mean": x_test.sum(1) / kept.sum(1, keepdims=True)}
    encoders = {}
    for pooling in arguments.pooling:
        before, after = train(x, y, pooling, arguments.steps, arguments.seed)
        for state, encoder in zip(STATES, (before, after)):
            embeddings[f"{pooling}, {state}"] = encoder.predict(x_test, verbose=0)
        encoders[pooling] = after
    print(f"\n{'':28}{'recall@1':>11}{'recall@5':>11}{'MAP@R':>11}")
    for name, z in embeddings.items():
        print(f"{name:28}" + "".join(f"{value:11.3f}" for value in judge(z)))
    if "attention" in encoders:
        weights = attention_of(encoders["attention"], x_test)
        share = (weights * told).sum(1).mean()
        print(f"\n{told.sum() / kept.sum():.0%} of the payments are routine; ", end="")
        print(f"attention gives them {share:.0%} of its weight")

    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = arguments.pooling[0]
    encoders[chosen].save(arguments.out / "encoder.keras")
    panels = {f"{chosen}, {state}": embeddings[f"{chosen}, {state}"] for state in STATES}
    shown = y_test < 10
    viz.plot_embeddings({k: z[shown] for k, z in panels.items()}, y_test[shown]).savefig(
        arguments.out / "embeddings.png", dpi=120
    )
    trained = embeddings[f"{chosen}, trained"]
    viz.plot_distances(trained, y_test).savefig(arguments.out / "distances.png", dpi=120)
    print(f"\n{arguments.out}: encoder.keras ({chosen}), embeddings.png, distances.png")
    print(f"{time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
