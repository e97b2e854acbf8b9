"""State of losses across batches: a queue of embeddings, a histogram, boundaries."""

import functools
import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest
from autodiff import step_by_step, value_and_gradient

from keras_metric import losses
from keras_metric.layers import CrossBatchMemory
from keras_metric.models import EmbeddingModel

BACKEND = keras.backend.backend()
SIZE, BATCH, DIM, CLASSES = 12, 5, 4, 3

# Losses with a queue of past batches.
TAKE_A_MEMORY = sorted(
    name
    for name in losses.__all__
    if "memory" in inspect.signature(getattr(losses, name)).parameters
)


def number(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def batches(count, seed=0, size=BATCH):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, size, DIM)).astype("float32")
    return x, rng.integers(0, CLASSES, (count, size)).astype("int32")


def put(loss, labels, embeddings):
    """Update the state of a loss as a training step of a model does."""
    with losses.StepReports() as reports:
        value = loss(labels, embeddings)
    for variable, new in reports.updates:
        variable.assign(new)
    return value


def with_memory(make, **settings):
    memory = CrossBatchMemory(SIZE, **settings)
    memory.build((None, DIM))
    return make(memory=memory), memory


class Queue:
    """The queue in NumPy: the last SIZE rows, the oldest first."""

    def __init__(self):
        self.x, self.y = np.zeros((0, DIM), "float32"), np.zeros(0, "int32")

    def put(self, x, y):
        self.x, self.y = (np.concatenate(pair)[-SIZE:] for pair in ((self.x, x), (self.y, y)))

    def contrastive(self, x, y):
        """Contrastive loss of the batch that was added last."""
        near, far = [], []
        for i in range(len(x)):
            for j in range(len(self.x)):
                if j == len(self.x) - len(x) + i:
                    continue
                d = np.linalg.norm(x[i] - self.x[j])
                if y[i] == self.y[j]:
                    near.append(d)
                else:
                    far.append(max(2 - d, 0))
        return sum(np.mean([v for v in part if v > 0] or [0]) for part in (near, far))


def test_losses_with_a_memory():
    """Losses of pairs, triplets and rankings; the others take no reference set."""
    assert len(TAKE_A_MEMORY) == 23
    assert not {"ArcFaceLoss", "ClipLoss", "NPairsLoss"} & set(TAKE_A_MEMORY)


class TestQueue:
    def test_holds_the_last_items_and_compares_with_them(self):
        """Seven batches of five overwrite a queue of twelve more than twice."""
        loss, memory = with_memory(lambda memory: losses.ContrastiveLoss(2.0, memory=memory))
        queue = Queue()
        for x, y in zip(*batches(7)):
            queue.put(x, y)
            value = put(loss, y, x)
            assert number(value) == pytest.approx(queue.contrastive(x, y), rel=1e-4)
            assert memory.count == len(queue.x)
        order = np.lexsort(memory.embeddings.numpy().T)
        expected = np.lexsort(queue.x.T)
        np.testing.assert_array_equal(memory.embeddings.numpy()[order], queue.x[expected])
        np.testing.assert_array_equal(memory.labels.numpy()[order], queue.y[expected])

    @pytest.mark.parametrize("size", [1, 4, 12, 30])
    def test_batches_of_any_size(self, size):
        """Of a batch larger than the queue, the last items are stored."""
        loss, memory = with_memory(lambda memory: losses.ContrastiveLoss(2.0, memory=memory))
        for x, y in zip(*batches(4, size=size)):
            assert np.isfinite(number(put(loss, y, x)))
        assert memory.count == min(4 * size, SIZE)
        x, y = batches(4, size=size)
        kept = x.reshape(-1, DIM)[-SIZE:]
        found = memory.embeddings.numpy()[: memory.count]
        assert {tuple(row) for row in found} == {tuple(row) for row in kept}

    @pytest.mark.parametrize("name", TAKE_A_MEMORY)
    def test_an_empty_queue_is_the_plain_loss(self, name):
        """Before the first update the queue has no effect."""
        make = getattr(losses, name)
        loss, _ = with_memory(make)
        (x, *_), (y, *_) = batches(2, seed=3, size=9)
        plain = make()
        for layer in (*plain.layers, *loss.layers):
            if not layer.built:
                layer.build((None, DIM))
        found, gradient = value_and_gradient(lambda z: loss(y, z), x, jit=BACKEND == "jax")
        if name in ("HistogramLoss", "LiftedStructureLoss"):
            # Without a queue (i, j) and (j, i) are one pair.
            assert np.isfinite(found) and np.isfinite(gradient).all()
            return
        expected, expected_gradient = value_and_gradient(
            lambda z: plain(y, z), x, jit=BACKEND == "jax"
        )
        assert found == pytest.approx(expected, rel=1e-4)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-5)

    @pytest.mark.skipif(BACKEND == "jax", reason="JAX has no integers of 64 bits")
    def test_ids_of_64_bits(self):
        loss, memory = with_memory(losses.NTXentLoss)
        (x, *_), (y, *_) = batches(1, seed=3, size=9)
        wide = keras.ops.convert_to_tensor(y.astype("int64") + 2**40)
        assert number(put(loss, wide, x)) == pytest.approx(number(losses.NTXentLoss()(y, x)))
        assert sorted(memory.labels.numpy()[:9]) == sorted(y.astype("int64") + 2**40)

    @pytest.mark.parametrize("name", ["ContrastiveLoss", "SupConLoss", "TripletLoss", "FastAPLoss"])
    def test_the_past_is_a_reference_set(self, name):
        """A batch of one item has positives and negatives in the queue only."""
        make = getattr(losses, name)
        loss, _ = with_memory(make)
        rng = np.random.default_rng(5)
        past, past_labels = (
            rng.normal(size=(6, DIM)).astype("float32"),
            np.arange(6, dtype="int32") % 3,
        )
        x, y = rng.normal(size=(1, DIM)).astype("float32"), np.array([1], "int32")
        step_by_step(put)(loss, past_labels, past)
        found = step_by_step(loss)(y, x)
        plain = make()
        for layer in plain.layers:
            layer.build((None, DIM))
        expected = step_by_step(plain.against)(y, x, past_labels, past)
        assert number(found) == pytest.approx(number(expected), rel=1e-4) and number(found) != 0

    def test_no_gradient_reaches_the_past(self):
        loss, memory = with_memory(lambda memory: losses.SupConLoss(0.5, memory=memory))
        (first, second), (y, z) = batches(2)
        put(loss, y, first)
        value, gradient = value_and_gradient(lambda x: loss(z, x), second)
        h = 1e-2
        along = np.random.default_rng(1).normal(size=second.shape).astype("float32")
        both = [number(loss(z, second + sign * h * along)) for sign in (1, -1)]
        assert (gradient * along).sum() == pytest.approx((both[0] - both[1]) / (2 * h), rel=2e-2)
        np.testing.assert_array_equal(memory.embeddings.numpy()[:BATCH], first)

    def test_warmup(self):
        loss, memory = with_memory(
            lambda memory: losses.ContrastiveLoss(2.0, memory=memory), warmup=2
        )
        plain, queue = losses.ContrastiveLoss(2.0), Queue()
        for step, (x, y) in enumerate(zip(*batches(4))):
            queue.put(x, y)
            expected = plain(y, x) if step < 2 else queue.contrastive(x, y)
            assert number(put(loss, y, x)) == pytest.approx(number(expected), rel=1e-4)

    def test_wrong_settings_and_inputs(self):
        with pytest.raises(TypeError, match="must be a keras_metric.layers.CrossBatchMemory"):
            losses.TripletLoss(memory=4096)
        with pytest.raises(ValueError, match='needs labels="ids"'):
            losses.SupConLoss(memory=CrossBatchMemory(8), labels="multi_hot")
        with pytest.raises(ValueError, match="size=0"):
            CrossBatchMemory(0)
        with pytest.raises(ValueError, match="warmup=-1"):
            CrossBatchMemory(4, warmup=-1)
        loss, _ = with_memory(losses.NTXentLoss)
        with pytest.raises(ValueError, match="it needs labelled batches"):
            loss(np.arange(3), np.ones((3, 2, DIM), "float32"))
        with pytest.raises(ValueError, match="no model trains or saves"):
            losses.SupConLoss(memory=CrossBatchMemory(8))(
                np.arange(3), np.ones((3, DIM), "float32")
            )


def model_of(loss, **settings):
    keras.utils.set_random_seed(0)
    model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=DIM, **settings)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


class TestInsideAModel:
    def test_only_training_fills_the_queue(self):
        memory = CrossBatchMemory(SIZE)
        model = model_of(losses.SupConLoss(memory=memory))
        x, y = (part.reshape(-1, *part.shape[2:]) for part in batches(2))
        model.evaluate(x, y, verbose=0)
        model.predict(x, verbose=0)
        model.test_on_batch(x, y)
        assert memory.count == 0
        model.fit(x, y, batch_size=4, validation_data=(x, y), verbose=0)
        assert memory.count == 10

    def test_the_queue_holds_what_the_encoder_gave(self):
        memory = CrossBatchMemory(64)
        model = model_of(losses.ContrastiveLoss(memory=memory))
        (x,), (y,) = batches(1)
        before = model.predict(x, verbose=0)
        model.train_on_batch(x, y)
        np.testing.assert_allclose(memory.embeddings.numpy()[:BATCH], before, atol=1e-6)
        np.testing.assert_array_equal(memory.labels.numpy()[:BATCH], y)

    @pytest.mark.skipif(BACKEND == "torch", reason="Keras compiles nothing on torch by XLA")
    def test_compiled(self):
        losses_of = []
        x, y = (part.reshape(-1, *part.shape[2:]) for part in batches(4))
        for jit in (True, False):
            model = model_of(losses.ContrastiveLoss(memory=CrossBatchMemory(SIZE)))
            model.compile(keras.optimizers.SGD(0.1), jit_compile=jit)
            history = model.fit(x, y, batch_size=5, epochs=3, shuffle=False, verbose=0)
            losses_of.append(history.history["loss"])
        np.testing.assert_allclose(*losses_of, rtol=1e-4)

    def test_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_float16")
        memory = CrossBatchMemory(SIZE)
        model = model_of(losses.TripletLoss(memory=memory))
        x, y = (part.reshape(-1, *part.shape[2:]) for part in batches(4))
        history = model.fit(x, y, batch_size=5, verbose=0)
        assert np.isfinite(history.history["loss"]).all() and memory.count == SIZE
        assert memory.embeddings.dtype == "float32"


@pytest.mark.thorough
def test_a_long_queue():
    """65,536 items, and a batch of 256: one step, with its gradient."""
    memory = CrossBatchMemory(65_536)
    memory.build((None, 32))
    rng = np.random.default_rng(0)
    past = rng.normal(size=(65_536, 32)).astype("float32")
    past_labels = rng.integers(0, 5_000, 65_536).astype("int32")
    for variable, value in (
        (memory.embeddings, past),
        (memory.labels, past_labels),
        (memory.filled, 65_536),
        (memory.position, 65_400),
    ):
        variable.assign(value)
    loss = losses.MultiSimilarityLoss(memory=memory)
    x, y = rng.normal(size=(256, 32)).astype("float32"), rng.integers(0, 5_000, 256)
    value, gradient = value_and_gradient(lambda z: loss(y, z), x, jit=BACKEND == "jax")
    # The batch wraps around the end of the queue and replaces the items there.
    slots = (65_400 + np.arange(256)) % 65_536
    past[slots], past_labels[slots] = x, y
    unit = past / np.linalg.norm(past, axis=1, keepdims=True)
    cosine = unit[slots] @ unit.T
    same = y[:, None] == past_labels
    apart, own = ~same, np.arange(65_536) == slots[:, None]
    near = np.where(same & ~own, np.exp(-2 * (cosine - 0.5)), 0).sum(1, dtype="float64")
    far = np.where(apart, np.exp(50 * (cosine.astype("float64") - 0.5)), 0).sum(1)
    expected = (np.log1p(near) / 2 + np.log1p(far) / 50).mean()
    assert number(value) == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(gradient).all() and gradient.any()


class TestDynamicSoftMargin:
    """Differences d_ap - d_an, their histogram and their ranks, in loops."""

    def ranks(self, gaps, fractions, bins=6, lowest=-2.0):
        place = np.clip((np.asarray(gaps) - lowest) / (2 * abs(lowest) / bins), 0, bins - 1)
        counts = np.zeros(bins)
        for p in place:
            low = int(np.floor(p))
            counts[low] += 1 - (p - low)
            if low + 1 < bins:
                counts[low + 1] += p - low
        momentum = 0.25 if fractions.sum() else 1.0
        fractions = (1 - momentum) * fractions + momentum * counts / len(gaps)
        return np.cumsum(fractions)[np.floor(place).astype(int)], fractions

    def test_three_batches_equal_a_loop(self):
        loss = losses.DynamicSoftMarginLoss(num_bins=6, momentum=0.25)
        loss.histogram.build((None, DIM))
        fractions = np.zeros(6)
        for x, y in zip(*batches(3, seed=2, size=8)):
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
            triplets = [
                (a, p, n)
                for a in range(8) for p in range(8) for n in range(8)
                if a != p and y[a] == y[p] and y[a] != y[n]
            ]  # fmt: skip
            gaps = [
                np.linalg.norm(x[a] - x[p]) - np.linalg.norm(x[a] - x[n]) for a, p, n in triplets
            ]
            weight, fractions = self.ranks(gaps, fractions)
            of_batch = functools.partial(loss, y)
            value, gradient = value_and_gradient(of_batch, x, jit=BACKEND == "jax")
            assert number(value) == pytest.approx(np.mean(weight * gaps), rel=1e-3, abs=1e-5)
            expected = np.zeros_like(x)
            for (a, p, n), w in zip(triplets, weight):
                near, far = x[a] - x[p], x[a] - x[n]
                near, far = near / np.linalg.norm(near), far / np.linalg.norm(far)
                for item, change in ((a, near - far), (p, -near), (n, far)):
                    expected[item] += w * change / len(triplets)
            np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)
            step_by_step(put)(loss, y, x)
            np.testing.assert_allclose(
                loss.histogram.fractions.numpy(), fractions, rtol=1e-3, atol=1e-5
            )

    def test_tuples(self):
        loss = losses.DynamicSoftMarginLoss(num_bins=6, momentum=0.25)
        loss.histogram.build((None, DIM))
        x = np.random.default_rng(0).normal(size=(7, 3, DIM)).astype("float32")
        x = x / np.linalg.norm(x, axis=2, keepdims=True)
        near, far = (np.linalg.norm(x[:, 0] - x[:, i], axis=1) for i in (1, 2))
        weight, _ = self.ranks(near - far, np.zeros(6))
        value = number(loss(np.arange(7), x))
        assert value == pytest.approx(np.mean(weight * (near - far)), rel=1e-3)
        apart = np.linalg.norm(x[:, 0][:, None] - x[:, 1][None], axis=2)
        np.fill_diagonal(apart, np.inf)
        far = np.minimum(apart.min(0), apart.min(1))
        weight, _ = self.ranks(near - far, np.zeros(6))
        with losses.StepReports() as reports:
            value = number(loss(np.arange(7), x[:, :2]))
        reported = reports.statistics
        assert value == pytest.approx(np.mean(weight * (near - far)), rel=1e-3)
        assert number(reported["positive_distance"]) == pytest.approx(near.mean(), rel=1e-4)
        assert number(reported["negative_distance"]) == pytest.approx(far.mean(), rel=1e-4)
        assert (number(reported["positives"]), number(reported["negatives"])) == (7, 7)
        with pytest.raises(ValueError, match="Received 4 branches"):
            loss(np.arange(7), np.ones((7, 4, DIM), "float32"))


class TestLearnedNumbers:
    def test_beta_of_a_class(self):
        loss = losses.MarginLoss(0.3, 1.1, learn_beta=True, num_classes=CLASSES, nu=0.4)
        loss.boundaries.build((None, DIM))
        beta = np.array([0.5, 1.4, 0.9])
        loss.boundaries.beta.assign(beta)
        (x,), (y,) = batches(1, size=9)
        terms, active, triplets = 0.0, 0, []
        d = np.linalg.norm(x[:, None] - x[None], axis=2)
        for a in range(9):
            for p in range(9):
                for n in range(9):
                    if a == p or y[a] != y[p] or y[a] == y[n]:
                        continue
                    pull = max(d[a, p] - beta[y[a]] + 0.3, 0)
                    push = max(beta[y[a]] - d[a, n] + 0.3, 0)
                    terms, active = terms + pull + push, active + (pull > 0) + (push > 0)
                    triplets.append(beta[y[a]])
        expected = (terms + 0.4 * sum(triplets)) / active
        found = number(loss(y, x))
        assert found == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("num_classes", [None, CLASSES])
    def test_beta_is_trained(self, num_classes):
        model = model_of(losses.MarginLoss(learn_beta=True, num_classes=num_classes))
        x, y = (part.reshape(-1, *part.shape[2:]) for part in batches(4))
        model.fit(x, y, epochs=2, verbose=0)
        beta = model.loss.boundaries.beta.numpy()
        assert beta.shape == (num_classes or 1,) and (np.abs(beta - 1.2) > 1e-4).all()

    @pytest.mark.parametrize("make", [losses.ClipLoss, losses.SigLipLoss])
    def test_temperature_is_trained_and_starts_at_its_value(self, make):
        x = np.random.default_rng(0).normal(size=(8, 2, DIM)).astype("float32")
        learned, fixed = make(temperature=0.2, learn_temperature=True), make(temperature=0.2)
        for layer in learned.layers:
            layer.build((None, DIM))
        y = np.arange(8)
        assert number(learned(y, x)) == pytest.approx(number(fixed(y, x)), rel=1e-5)
        model = model_of(make(temperature=0.2, learn_temperature=True))
        before = [w.numpy() + 0 for w in model.loss_layers.weights]
        model.fit({"first": x[:, 0], "second": x[:, 1]}, epochs=2, verbose=0)
        after = [w.numpy() for w in model.loss_layers.weights]
        assert all(abs(a - b) > 1e-5 for a, b in zip(before, after, strict=True))

    def test_temperature_is_clipped_and_recovers(self):
        """At the bound the temperature still has a gradient; an initial value beyond it raises."""
        with pytest.raises(ValueError, match="temperature=0.005"):
            losses.ClipLoss(0.005, learn_temperature=True)
        x = np.random.default_rng(0).normal(size=(8, 2, DIM)).astype("float32")
        model = model_of(losses.ClipLoss(0.0101, learn_temperature=True))
        scale = model.loss.logit_scale
        scale.log_factor.assign(5.0)
        pairs = {"first": x[:, 0], "second": x[:, 1]}
        model.train_on_batch(pairs, np.arange(8))
        assert number(scale.log_factor) == pytest.approx(np.log(100), rel=1e-6)
        model.train_on_batch(pairs, np.arange(8))
        assert number(scale.log_factor) < np.log(100) - 1e-3

    def test_temperature_never_falls_below_one_hundredth(self):
        loss = losses.ClipLoss(learn_temperature=True)
        loss.logit_scale.build((None, DIM))
        loss.logit_scale.log_factor.assign(20.0)
        x = np.random.default_rng(0).normal(size=(8, 2, DIM)).astype("float32")
        expected = number(losses.ClipLoss(0.01)(np.arange(8), x))
        assert number(loss(np.arange(8), x)) == pytest.approx(expected, rel=1e-4)


RESUME = """
import sys
import keras, numpy as np
import keras_metric
x, y = (np.load(f"{name}.npy") for name in "xy")
model = keras.models.load_model("middle.keras")
values = [model.train_on_batch(x[i], y[i]) for i in range(5, 15)]
np.save("resumed.npy", np.array(values, "float64"))
"""


def test_a_new_process_resumes_a_saved_run():
    """Proxies, a queue, running means and a histogram, saved in the middle of an epoch."""
    keras.utils.set_random_seed(0)
    x, y = batches(15, seed=8, size=8)
    loss = losses.WeightedSum(
        [
            (1.0, losses.ProxyAnchorLoss(CLASSES, alpha=8)),
            (0.5, losses.ContrastiveLoss(memory=CrossBatchMemory(24, warmup=2))),
            (0.3, losses.DynamicSoftMarginLoss()),
            (0.2, losses.CenterLoss(CLASSES)),
            (0.1, losses.AdaFaceLoss(CLASSES, scale=4)),
            (0.1, losses.MarginLoss(learn_beta=True)),
        ]
    )
    model = EmbeddingModel(keras.Sequential([keras.layers.Dense(6, "tanh")]), embedding_dim=DIM)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    for i in range(5):
        model.train_on_batch(x[i], y[i])
    model.save("middle.keras")
    on = [float(model.train_on_batch(x[i], y[i])) for i in range(5, 15)]
    np.save("x.npy", x), np.save("y.npy", y)
    subprocess.run([sys.executable, "-c", RESUME], check=True, timeout=300)
    np.testing.assert_allclose(np.load("resumed.npy"), on, rtol=1e-5)
