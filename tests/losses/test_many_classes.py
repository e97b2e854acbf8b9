"""Losses with class vectors: blocks of classes, and random samples of the classes."""

import keras
import numpy as np
import pytest
from autodiff import DOUBLE, DTYPE, value_and_gradient
from keras import ops

from keras_metric import losses
from keras_metric.losses.classification.ada_face_loss import clipped
from keras_metric.losses.classification.class_log_sums import Form, block_size, log_sums
from keras_metric.losses.classification.class_sampling import (
    OwnClasses,
    number_sampled,
    sampled_classes,
)
from keras_metric.losses.classification.soft_triple_loss import mixed
from keras_metric.losses.classification.sub_center_arc_face_loss import largest
from keras_metric.models import EmbeddingModel

BACKEND = keras.backend.backend()
CLOSE = {"rtol": 1e-9, "atol": 1e-9} if DOUBLE else {"rtol": 1e-4, "atol": 1e-5}
CLASSES, DIM, BATCH = 23, 4, 9
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, DIM))
# An item of class -1 has no class among the columns.
OWN = np.array([2, 0, 2, 22, 1, -1, 0, 11, 2], "int32")


def vectors_of(each):
    vectors = np.random.default_rng(each).normal(size=(CLASSES * each, DIM))
    # A vector of zeros has no direction.
    vectors[3 * each] = 0
    return vectors


def pooled_largest(products):
    return products.max(axis=-1)


def pooled_mixed(products):
    weights = np.exp(products / 0.7)
    return (weights * products).sum(-1) / weights.sum(-1)


# Our form, the logits of an item in NumPy from its products, and whether vectors are normalised.
FORMS = {
    "cosines": (Form(limit=5), lambda p: p[:, 0], True),
    "products": (Form(unit=False), lambda p: p[:, 0], False),
    "logit of a zero vector": (Form(logit_of_zero=0.7), None, True),
    "clipped": (
        Form(pool=lambda p: clipped(p, 0.9)),
        lambda p: np.clip(p[:, 0], -0.9, 0.9),
        True,
    ),
    "largest": (Form(each=3, pool=largest), pooled_largest, True),
    "mixed": (Form(each=2, pool=lambda p: mixed(p, 0.7)), pooled_mixed, True),
}


def looped(x, vectors, own, logits_of, unit, each, valid, weights):
    """Weighted sum of the log-sums and logits of all items, one after the other."""
    if unit:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(norms > 0, norms, 1)
    total = 0
    for i, item in enumerate(x):
        products = (vectors @ item).reshape(-1, each)
        if logits_of is None:
            logits = products[:, 0] + 0.7 * (np.abs(vectors).sum(1) == 0)
        else:
            logits = logits_of(products)
        others = [logits[c] for c in range(CLASSES) if c != own[i] and valid[c]]
        top = max(others)
        total += weights[0, i] * (top + np.log(np.sum(np.exp(np.array(others) - top))))
        total += weights[1, i] * (logits[own[i]] if own[i] >= 0 else 0)
    return total


@pytest.mark.parametrize("size", [None, 1, 5, 8, 23])
@pytest.mark.parametrize("name", FORMS)
def test_blocks_equal_a_loop(name, size):
    form, logits_of, unit = FORMS[name]
    vectors = vectors_of(form.each)
    valid = np.arange(CLASSES) % 5 != 4 if name in ("cosines", "mixed") else None
    weights = np.random.default_rng(1).normal(size=(2, BATCH))

    def ours(x, vectors):
        mask = None if valid is None else ops.convert_to_tensor(valid)
        own = ops.convert_to_tensor(OWN)
        found = log_sums(x, vectors, own, form, mask, size=size)
        return ops.sum(ops.stack(found) * ops.convert_to_tensor(weights.astype(DTYPE)))

    def loop(x, vectors):
        shown = np.ones(CLASSES, bool) if valid is None else valid
        return looped(x, vectors, OWN, logits_of, unit, form.each, shown, weights)

    x = X.astype(DTYPE)
    constant = ops.convert_to_tensor(vectors.astype(DTYPE))
    jit = BACKEND == "jax"
    value, to_x = value_and_gradient(lambda z: ours(z, constant), x, jit)
    np.testing.assert_allclose(value, loop(X, vectors), **CLOSE)
    left = ops.convert_to_tensor(x)
    _, to_vectors = value_and_gradient(lambda w: ours(left, w), vectors.astype(DTYPE), jit)
    # The direction of a vector of zeros has no derivative.
    for along in np.random.default_rng(2).normal(size=(3, *vectors.shape)):
        along[3 * form.each] = 0 if unit else along[3 * form.each]
        step = 1e-6
        up, down = (loop(X, vectors + sign * step * along) for sign in (1, -1))
        assert (to_vectors * along).sum() == pytest.approx((up - down) / 2e-6, rel=1e-3, abs=1e-4)
        up, down = (loop(X + sign * step * along[:BATCH], vectors) for sign in (1, -1))
        assert (to_x * along[:BATCH]).sum() == pytest.approx((up - down) / 2e-6, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("limit", [5, 100])
@pytest.mark.parametrize("jit", [False, True])
def test_blocks_equal_one_block(limit, jit):
    """With and without the shift by the largest logit, compiled and not."""
    vectors = ops.convert_to_tensor(vectors_of(1).astype(DTYPE))

    def run(size):
        def value(x):
            own = ops.convert_to_tensor(OWN)
            found = log_sums(3 * x, vectors, own, Form(limit), with_sums=True, size=size)
            return ops.sum(ops.softplus(found[0] - found[1])) + ops.sum(found[2] + found[3])

        return value_and_gradient(value, X.astype(DTYPE), jit)

    for a, b in zip(run(CLASSES), run(5)):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_logits_beyond_the_limit_have_no_gradient():
    vectors = ops.convert_to_tensor(np.ones((CLASSES, DIM), DTYPE))
    own = ops.convert_to_tensor(OWN)
    for size in (5, CLASSES):
        value, gradient = value_and_gradient(
            lambda z, size=size: ops.sum(log_sums(1e10 * z, vectors, own, size=size)[0]),
            np.ones((BATCH, DIM), DTYPE),
        )
        assert value == pytest.approx(BATCH * 1e9, rel=1e-6) and not gradient.any()


def test_block_sizes():
    assert block_size(128, 20_000, 1) == 20_000
    assert block_size(128, 1_000_000, 1) == 8_000
    # An unknown batch counts as 256 items; a prime number of classes has no divisor.
    assert block_size(None, 1_000_003, 1) == 4096
    assert block_size(128, 1_000_000, 10) == 800


class TestSample:
    @pytest.mark.parametrize(
        ("num_classes", "rate"), [(50, 0.1), (50, 0.75), (7, 0.5), (50, 0.001)]
    )
    def test_classes_are_distinct_and_hold_those_of_the_batch(self, num_classes, rate):
        number = number_sampled(num_classes, rate)
        vectors = ops.convert_to_tensor(np.arange(2 * num_classes, dtype="float32")[:, None])
        ids = np.array([3, 0, 3, 6, 5], "int32")
        own = OwnClasses(ops.convert_to_tensor(ids), None)
        seed = keras.random.SeedGenerator(1)
        drawn = np.zeros(num_classes)
        rounds = 300
        for _ in range(rounds):
            chosen, batch = sampled_classes(vectors, own, num_classes, 2, number, seed)
            columns = []
            for part in (chosen, batch):
                rows = ops.convert_to_numpy(part.vectors)[:, 0].reshape(-1, 2)
                np.testing.assert_array_equal(rows[:, 1], rows[:, 0] + 1)
                columns.append((rows[:, 0] / 2).astype(int))
            drawn[columns[0]] += 1
            assert len(set(columns[0])) == number
            positions = ops.convert_to_numpy(chosen.own)
            for position, i in zip(positions, ids):
                expected = np.flatnonzero(columns[0] == i)
                assert position == (expected[0] if len(expected) else -1)
            assert columns[1].tolist() == ids.tolist()
            assert ids[ops.convert_to_numpy(batch.own)].tolist() == ids.tolist()
            valid = ops.convert_to_numpy(batch.valid)
            kept = [*columns[0], *columns[1][valid]]
            assert len(kept) == len(set(kept)) and set(ids) <= set(kept)
        mean, deviation = rounds * number / num_classes, np.sqrt(rounds * number / num_classes)
        assert np.abs(drawn - mean).max() < 5 * deviation + 1

    @pytest.mark.parametrize("name", ["ArcFaceLoss", "SubCenterArcFaceLoss", "ProxyAnchorLoss"])
    def test_loss_equals_a_loop_over_the_sampled_classes(self, name):
        number, each = 4, 2 if name == "SubCenterArcFaceLoss" else 1
        settings = {"sub_centers": 2} if each == 2 else {}
        loss = getattr(losses, name)(
            CLASSES, embedding_dim=DIM, sample_rate=number / CLASSES, **settings
        )
        vectors = vectors_of(each).astype("float32")
        loss.proxies.vectors.assign(vectors)
        ids = np.where(OWN < 0, 4, OWN)
        generator = loss.proxies.seed_generator
        state = ops.convert_to_numpy(generator.state.value)
        own = OwnClasses(ops.convert_to_tensor(ids), None)
        numbers = ops.convert_to_tensor(np.arange(CLASSES, dtype="float32")[:, None])
        chosen, _ = sampled_classes(numbers, own, CLASSES, 1, number, generator)
        columns = sorted({*ops.convert_to_numpy(chosen.vectors)[:, 0].astype(int), *ids})
        generator.state.assign(state)
        with losses.StepReports(training=True):
            found = float(loss(ids, X.astype("float32")))
        unit = X / np.linalg.norm(X, axis=1, keepdims=True)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = (
            (unit @ (vectors / np.where(norms > 0, norms, 1)).T).reshape(BATCH, -1, each).max(2)
        )
        if name == "ProxyAnchorLoss":
            near, far = [], []
            for c in columns:
                if (ids == c).any():
                    near.append(np.log1p(np.exp(-32 * (cosine[ids == c, c] - 0.1)).sum()))
                far.append(np.log1p(np.exp(32 * (cosine[ids != c, c] + 0.1)).sum()))
            expected = np.mean(near) + np.mean(far)
        else:
            terms = []
            for i, c in enumerate(ids):
                angle = np.arccos(cosine[i, c]) + np.radians(28.6)
                logits = [64 * cosine[i, k] for k in columns if k != c]
                own_logit = 64 * np.cos(angle)
                if angle > np.pi:
                    own_logit = 64 * (cosine[i, c] - 0.49916 * np.sin(0.49916))
                terms.append(np.logaddexp.reduce([own_logit, *logits]) - own_logit)
            expected = np.mean(terms)
        assert found == pytest.approx(expected, rel=1e-3)

    def test_a_rate_of_one_and_evaluation_use_all_classes(self):
        ids, x = np.where(OWN < 0, 4, OWN), X.astype("float32")
        values = []
        for rate, training in ((1.0, True), (1.0, False), (0.2, False), (0.999, True), (0.2, True)):
            loss = losses.CosFaceLoss(CLASSES, embedding_dim=DIM, sample_rate=rate)
            loss.proxies.vectors.assign(vectors_of(1).astype("float32"))
            with losses.StepReports(training=training):
                values.append(float(loss(ids, x)))
        assert values[:3] == values[1:4] and values[4] < values[0]
        assert losses.CosFaceLoss(CLASSES).proxies.seed_generator is None

    def test_only_sampled_vectors_change(self):
        loss = losses.ArcFaceLoss(1000, sample_rate=0.01)
        model = compiled(loss)
        before = loss.class_vectors + 0
        ids = np.arange(BATCH, dtype="int32") * 7
        model.train_on_batch(X.astype("float32"), ids)
        changed = np.flatnonzero((loss.class_vectors != before).any(axis=1))
        assert set(ids) <= set(changed) and len(changed) <= 10 + BATCH

    def test_seed_is_saved_and_evaluation_does_not_change_it(self, tmp_path):
        ids, x = np.where(OWN < 0, 4, OWN), X.astype("float32")
        model = compiled(losses.NormalizedSoftmaxLoss(CLASSES, sample_rate=0.2))
        model.train_on_batch(x, ids)
        state = ops.convert_to_numpy(model.loss.proxies.seed_generator.state.value).copy()
        model.test_on_batch(x, ids)
        again = ops.convert_to_numpy(model.loss.proxies.seed_generator.state.value)
        np.testing.assert_array_equal(state, again)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.loss.sample_rate == 0.2
        for _ in range(2):
            assert float(model.train_on_batch(x, ids)) == float(loaded.train_on_batch(x, ids))
        np.testing.assert_array_equal(model.loss.class_vectors, loaded.loss.class_vectors)

    @pytest.mark.parametrize(
        ("rate", "error"), [(0, ValueError), (1.5, ValueError), (-0.1, ValueError),
                            (float("nan"), ValueError), ("all", TypeError), (None, TypeError),
                            (True, TypeError)]
    )  # fmt: skip
    def test_invalid_rates_raise(self, rate, error):
        with pytest.raises(error, match=r"`sample_rate` must be .*Received: sample_rate=.*1.0 for"):
            losses.ArcFaceLoss(5, sample_rate=rate)


def compiled(loss):
    keras.utils.set_random_seed(0)
    model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=DIM)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


@pytest.mark.parametrize("name", ["ArcFaceLoss", "LargeMarginSoftmaxLoss", "ProxyNCALoss"])
def test_reported_distances(name):
    """The means over the items of the distances to their own and to the other class vectors."""
    loss = getattr(losses, name)(CLASSES, embedding_dim=DIM)
    vectors = np.random.default_rng(3).normal(size=(CLASSES, DIM))
    loss.proxies.vectors.assign(vectors.astype("float32"))
    ids = np.where(OWN < 0, 4, OWN)
    with losses.StepReports() as reports:
        loss(ids, X.astype("float32"))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if name == "ProxyNCALoss":
        distance = ((X[:, None] - unit[None]) ** 2).sum(-1)
    else:
        distance = 1 - X / np.linalg.norm(X, axis=1, keepdims=True) @ unit.T
    mine = ids[:, None] == np.arange(CLASSES)
    found = {key: float(value) for key, value in reports.statistics.items()}
    assert found["positive_distance"] == pytest.approx(distance[mine].mean(), rel=1e-4)
    assert found["negative_distance"] == pytest.approx(distance[~mine].mean(), rel=1e-4)
    assert found["positives"] == BATCH and found["negatives"] == BATCH * (CLASSES - 1)
