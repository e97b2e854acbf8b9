"""Embed sets with attention pooling.

    python examples/attention.py
    python examples/attention.py --pooling average     # or max: the same network without attention
    python examples/attention.py --routine 0.15        # fewer informative payments

A month of a customer is a set of 8 to 40 synthetic payments. Some are typical of the customer
(routine), the others are random. The network encodes each payment separately; attention pooling
computes their weighted mean. The embedding does not depend on the order of the set, and a mask
excludes padding. The test finds other months of the same customer, for customers that are not in
the training data, and compares attention with the mean of the raw payments and with average and max
pooling. For sequences, put a recurrent layer or self-attention before the pooling; the mask is
passed on.
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
    parser.add_argument("--routine", type=float, default=0.25, help="fraction of the routine")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs/attention"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    arguments = parser.parse_args()
    arguments.pooling = arguments.pooling or POOLINGS
    if arguments.short:
        arguments.steps = 40
    return arguments


@keras.saving.register_keras_serializable("keras_metric_examples")
class AttentionPooling(layers.Layer):
    """Weighted mean of a set for each head; the weights are a softmax over the unmasked steps.

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
        return None  # the output has no steps

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.heads * input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "heads": self.heads, "hidden": self.hidden_units}


def make_months(customers, months, fraction, rng):
    """Return sets (customers * months, LONGEST, WIDTH), their customers, and masks of the routine.

    Sets are padded with zeros. Columns 0 to 9 describe a payment (amount, hour, kind of shop and so
    on, standardized). Columns 10 and 11 are noisy indicators of routine (standing order, known
    shop).
    """
    x, y, is_routine = [], [], []
    for customer in range(customers):
        habits = 1.2 * rng.normal(size=(3, WIDTH - 2))
        for _ in range(months):
            count = rng.integers(8, LONGEST + 1)
            routine = rng.random(count) < fraction
            payments = 1.2 * rng.normal(size=(count, WIDTH))
            habit = habits[rng.integers(3, size=count)] + 0.3 * rng.normal(size=(count, WIDTH - 2))
            payments[routine, :-2] = habit[routine]
            payments[:, -2:] = 2.0 * routine[:, None] - 1 + 0.8 * rng.normal(size=(count, 2))
            padding = ((0, LONGEST - count), (0, 0))
            x.append(np.pad(payments, padding))
            is_routine.append(np.pad(routine, padding[0]))
            y.append(customer)
    return np.array(x, "float32"), np.array(y), np.array(is_routine)


def build_backbone(pooling, seed):
    keras.utils.set_random_seed(seed)
    pool = {"attention": AttentionPooling(name="attention")}.get(pooling)
    return keras.Sequential(
        [
            layers.Input((None, WIDTH)),
            layers.Masking(),  # payments of zeros are padding
            layers.Dense(64, "relu"),
            layers.Dense(64, "relu"),
            # Without this layer, the head of the encoder computes the mean or maximum.
            *([pool] if pool else []),
        ]
    )


def train(x, y, pooling, steps, seed):
    """Return an untrained and a trained encoder."""
    pool = {"pooling": "max"} if pooling == "max" else {}
    model, untrained = (
        keras_metric.EmbeddingModel(build_backbone(pooling, seed), 32, **pool) for _ in range(2)
    )
    learning_rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(learning_rate), losses.SupConLoss(0.1))
    batches = data.BalancedBatches(x, y, 24, 4, batches_per_epoch=steps, seed=seed)
    model.fit(batches, verbose=0)
    return untrained.encoder, model.encoder


def attention_of(encoder, x):
    """Return the weight of each payment (sets, steps), the mean over heads."""
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
    x, y, _ = make_months(customers, 8, arguments.routine, rng)
    x_test, y_test, is_routine = make_months(100, 6, arguments.routine, rng)
    print(f"training: {len(x):,} months of {customers} customers")
    print(f"test: {len(x_test):,} months of 100 other customers", flush=True)
    is_payment = (x_test != 0).any(-1)

    def evaluate(z):
        n = evaluation.retrieval_metrics(z, y_test, k=(1, 5))
        return n["recall_at_1"], n["recall_at_5"], n["map_at_r"]

    embeddings = {"mean of raw payments": x_test.sum(1) / is_payment.sum(1, keepdims=True)}
    encoders = {}
    for pooling in arguments.pooling:
        before, after = train(x, y, pooling, arguments.steps, arguments.seed)
        for state, encoder in zip(STATES, (before, after)):
            embeddings[f"{pooling}, {state}"] = encoder.predict(x_test, verbose=0)
        encoders[pooling] = after
    print(f"\n{'':28}{'recall@1':>11}{'recall@5':>11}{'MAP@R':>11}")
    for name, z in embeddings.items():
        print(f"{name:28}" + "".join(f"{value:11.3f}" for value in evaluate(z)))
    if "attention" in encoders:
        weights = attention_of(encoders["attention"], x_test)
        on_routine = (weights * is_routine).sum(1).mean()
        print(f"\n{is_routine.sum() / is_payment.sum():.0%} of the payments are routine; ", end="")
        print(f"they get {on_routine:.0%} of the attention weights")

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
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    main()
