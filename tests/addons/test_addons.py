"""The losses of keras_metric.addons: values of tensorflow-addons, finite where it has NaN.

Expected values are from loops in NumPy and from the tests and docstrings of tensorflow-addons 0.23;
`test_parity_addons.py` compares with the library.
"""

import inspect
import operator
import re

import keras
import numpy as np
import pytest
import reference
from autodiff import differentiated, step_by_step, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import ops

import keras_metric.addons as tfa
from keras_metric import EmbeddingModel
from keras_metric.addons.losses import metric_learning

METRICS = {"L2": "euclidean", "squared-L2": "squared_euclidean", "angular": "cosine"}

CLASSES = [getattr(tfa, name) for name in tfa.__all__ if name[0].isupper()]
ON_BATCHES = {
    "semi-hard": (tfa.TripletSemiHardLoss, {}),
    "semi-hard, angular": (tfa.TripletSemiHardLoss, {"distance_metric": "angular"}),
    "hard": (tfa.TripletHardLoss, {}),
    "hard, squared, soft": (tfa.TripletHardLoss, {"soft": True, "distance_metric": "squared-L2"}),
    "lifted": (tfa.LiftedStructLoss, {}),
}


def product(x):
    return ops.matmul(x, ops.transpose(x))


@keras.saving.register_keras_serializable("test_addons")
def city_block(x):
    return ops.sum(ops.abs(x[:, None] - x[None, :]), axis=-1)


def batch(rng, size=20, dim=5):
    """Classes of different sizes, one with a single item."""
    labels = np.r_[rng.choice(4, p=[0.5, 0.3, 0.15, 0.05], size=size - 1), 9]
    return rng.normal(size=(size, dim)).astype("float32"), rng.permutation(labels)


def value(loss, y, x):
    return float(step_by_step(loss)(y, x))


def semi_hard(d, y, margin, weights=None):
    terms, counts = 0.0, 0.0
    weights = np.ones(len(y)) if weights is None else weights
    for i in range(len(y)):
        others = reference.negatives(y, i)
        for j in reference.positives(y, i):
            beyond = [d[i, k] for k in others if d[i, k] > d[i, j]]
            far = min(beyond) if beyond else max((d[i, k] for k in others), default=min(d[i]))
            terms += weights[i] * max(d[i, j] - far + margin, 0)
            counts += weights[i]
    return terms / counts if counts else 0.0


def hard(d, y, margin, soft):
    terms = []
    for i in range(len(y)):
        far = max((d[i, j] for j in reference.positives(y, i)), default=min(d[i]))
        near = min((d[i, j] for j in reference.negatives(y, i)), default=max(d[i]))
        terms.append(np.logaddexp(0, far - near) if soft else max(far - near + margin, 0))
    return np.mean(terms)


def n_pairs(logits, shared):
    terms = []
    for row, weights in zip(np.asarray(logits, "float64"), shared):
        if sum(weights):
            terms.append(np.logaddexp.reduce(row) - (row * weights).sum() / sum(weights))
    return np.mean(terms) if terms else 0.0


class TestValues:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("margin", [1.0, 0.1])
    def test_semi_hard(self, rng, metric, margin):
        x, y = batch(rng)
        expected = semi_hard(reference.matrix(x, METRICS[metric]), y, margin)
        loss = tfa.losses.TripletSemiHardLoss(margin, metric)
        assert value(loss, y, x) == pytest.approx(expected, rel=1e-4)
        got = step_by_step(tfa.losses.triplet_semihard_loss)(y, x, margin, metric)
        assert float(got) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("soft", [False, True])
    def test_hard(self, rng, metric, soft):
        x, y = batch(rng)
        expected = hard(reference.matrix(x, METRICS[metric]), y, 0.7, soft)
        loss = tfa.losses.TripletHardLoss(margin=0.7, soft=soft, distance_metric=metric)
        assert value(loss, y, x) == pytest.approx(expected, rel=1e-4)
        got = tfa.losses.triplet_hard_loss(y, x, 0.7, soft, metric)
        assert float(got) == pytest.approx(expected, rel=1e-4)

    def test_lifted(self, rng):
        x, y = batch(rng)
        expected = reference.lifted_structure_loss(x, y, margin=0.8)
        assert value(tfa.losses.LiftedStructLoss(0.8), y, x) == pytest.approx(expected, rel=1e-4)
        got = tfa.losses.lifted_struct_loss(labels=y, embeddings=x, margin=0.8)
        assert float(got) == pytest.approx(expected, rel=1e-4)

    def test_callable_metric(self, rng):
        """A matrix with negative entries and a non-zero diagonal is used without changes."""
        x, y = batch(rng)
        d = x.astype("float64") @ x.T
        for labels in (y, np.zeros_like(y)):
            loss = tfa.losses.TripletHardLoss(distance_metric=product)
            assert value(loss, labels, x) == pytest.approx(hard(d, labels, 1, False), rel=1e-4)
            loss = tfa.losses.TripletSemiHardLoss(distance_metric=product)
            assert value(loss, labels, x) == pytest.approx(semi_hard(d, labels, 1), rel=1e-4)

    def test_hard_counts_items_without_a_positive(self, rng):
        x, y = rng.normal(size=(5, 3)).astype("float32"), np.arange(5)
        with pytest.warns(UserWarning, match="no two items"):
            got = value(tfa.losses.TripletHardLoss(3.0), y, x)
        assert got == pytest.approx(hard(reference.matrix(x), y, 3.0, False), rel=1e-4)

    def test_n_pairs(self, rng):
        logits, y = rng.normal(size=(9, 9)).astype("float32"), rng.integers(0, 4, 9)
        expected = n_pairs(logits, y[:, None] == y)
        for labels in (y, y[:, None]):
            assert value(tfa.losses.NpairsLoss(), labels, logits) == pytest.approx(expected, 1e-5)
        assert float(tfa.losses.npairs_loss(y, logits)) == pytest.approx(expected, 1e-5)

    def test_n_pairs_of_several_labels(self, rng):
        logits = rng.normal(size=(9, 9)).astype("float32")
        y = rng.integers(0, 2, (9, 4))
        y[3] = 0  # NaN in tensorflow-addons
        expected = n_pairs(logits, y @ y.T)
        loss = tfa.losses.NpairsMultilabelLoss()
        assert value(loss, y, logits) == pytest.approx(expected, 1e-5)
        assert float(tfa.losses.npairs_multilabel_loss(y, logits)) == pytest.approx(expected, 1e-5)

    # One shape, so that JAX compiles the loss once.
    ON_GRIDS = {
        metric: differentiated(
            lambda x, y, metric=metric: tfa.triplet_semihard_loss(y, x, 1.0, metric),
            jit=keras.backend.backend() == "jax",
        )
        for metric in ("L2", "squared-L2")
    }

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(
        arrays.arrays("float32", (9, 2), elements=st.integers(0, 3)),
        arrays.arrays("int32", (9,), elements=st.integers(0, 3)),
    )
    def test_ties(self, x, y):
        """On a grid many distances are equal, so the strict comparison matters."""
        for metric, loss in self.ON_GRIDS.items():
            expected = semi_hard(reference.matrix(x, METRICS[metric]), y, 1.0)
            assert float(loss(x, y)[0]) == pytest.approx(expected, rel=1e-4, abs=1e-6)

    def test_equal_negatives_split_the_gradient(self):
        """Two negatives at distance 2: tensorflow-addons gives each half of the gradient."""
        x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, -2.0]], "float32")
        y = np.array([0, 0, 1, 2])
        number, gradient = value_and_gradient(lambda z: tfa.triplet_semihard_loss(y, z, 1.5), x)
        # Of (0, 1) the term is 1.5 + 1 - 2; of (1, 0), whose negatives are 5**0.5 away, less.
        assert number == pytest.approx((2.5 - 2 + 2.5 - 5**0.5) / 2)
        # Half of the mean over two pairs: along (0, 2), and along (-1, 2) from the other anchor.
        down = (np.array([0, -1]) + np.array([1, -2]) / 5**0.5) / 4
        np.testing.assert_allclose(gradient[2:], [down, down * [1, -1]], atol=1e-6)

    def test_a_term_of_zero_has_a_gradient(self):
        """1 + 1 - 2 is exactly 0, and tensorflow-addons still has a gradient."""
        x = np.array([[0.0, 0.0], [1.0, 0.0], [-2.0, 0.0]], "float32")
        y = np.array([0, 0, 1])
        for loss, terms in ((tfa.TripletSemiHardLoss(), 2), (tfa.TripletHardLoss(), 3)):
            _, gradient = value_and_gradient(lambda z, loss=loss: loss(y, z), x)
            assert gradient[2, 0] == pytest.approx(1 / terms)


class TestNumbersOfTheirTests:
    """losses/tests and the docstrings of tensorflow-addons 0.23."""

    Y = np.array([0, 0, 1, 1, 0, 1])
    D = np.array([0.1, 0.3, 1.3, 0.7, 1.1, 0.5], "float32")

    def test_contrastive(self):
        loss = tfa.losses.ContrastiveLoss
        assert float(loss()(self.Y, self.D)) == pytest.approx(0.621666, abs=1e-5)
        assert float(loss(2.0)(self.Y, self.D)) == pytest.approx(1.623333, abs=1e-5)
        assert float(loss(reduction="sum")(self.Y, self.D)) == pytest.approx(3.73, abs=1e-5)
        assert float(loss(reduction="auto")(self.Y, self.D)) == pytest.approx(0.621666, abs=1e-5)
        terms = [0.81, 0.49, 1.69, 0.49, 0.0, 0.25]
        for got in (
            loss(reduction="none")(self.Y, self.D),
            loss().call(self.Y, self.D),
            tfa.losses.contrastive_loss(self.Y, self.D),
        ):
            np.testing.assert_allclose(ops.convert_to_numpy(got), terms, atol=1e-6)
        weights = np.array([1.2, 0.8, 0.5, 0.4, 1.5, 1.0], "float32")
        assert float(loss()(self.Y, self.D, weights)) == pytest.approx(0.4425, abs=1e-5)
        assert float(loss()(self.Y, self.D, 6.0)) == pytest.approx(3.73, abs=1e-4)
        zero = loss()(np.array([0, 1]), np.array([1.5, 0.0], "float32"))
        assert float(zero) == 0

    @pytest.mark.parametrize("y_shape", [(6,), (6, 1)])
    @pytest.mark.parametrize("d_shape", [(6,), (6, 1)])
    @pytest.mark.parametrize("dtype", ["int64", "float32", "bool"])
    def test_contrastive_shapes(self, y_shape, d_shape, dtype):
        """Keras 2 reshaped (batch,) and (batch, 1) before it called the loss."""
        y, d = self.Y.reshape(y_shape).astype(dtype), self.D.reshape(d_shape)
        assert float(tfa.losses.ContrastiveLoss()(y, d)) == pytest.approx(0.621666, abs=1e-5)

    def test_n_pairs(self):
        x = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], "float32")
        s = x @ x.T
        assert float(tfa.losses.npairs_loss(np.arange(4), s)) == pytest.approx(0.253856, abs=1e-5)
        several = tfa.losses.npairs_multilabel_loss
        assert float(several(np.eye(4, dtype=int), s)) == pytest.approx(0.253856, abs=1e-5)
        y = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
        assert float(several(y, s)) == pytest.approx(1.420522, abs=1e-5)

    def test_triplets_of_one_class(self):
        y, x = np.array([0, 0]), np.array([[0.0, 1.0], [1.0, 0.0]], "float32")
        semi = step_by_step(tfa.losses.triplet_semihard_loss)
        for metric, expected in (
            ("L2", 2.4142137),
            ("squared-L2", 3.0),
            ("angular", 2.0),
            (product, 1.0),
        ):
            assert float(semi(y, x, distance_metric=metric)) == pytest.approx(expected)
        hardest = tfa.losses.triplet_hard_loss
        assert float(hardest(y, x)) == pytest.approx(1.0)
        assert float(hardest(y, x, distance_metric=product)) == pytest.approx(0.0)
        assert float(hardest(y, x, soft=True)) == pytest.approx(0.6931472)

    def test_distances(self):
        x = np.array([[0.5, 0.5], [1.0, 1.0], [0.5, 0.5]], "float32")
        d = ops.convert_to_numpy(metric_learning.pairwise_distance(x))
        np.testing.assert_allclose(d[0], [0, 2**0.5 / 2, 0], atol=1e-6)
        d = ops.convert_to_numpy(metric_learning.pairwise_distance(x, squared=True))
        np.testing.assert_allclose(d[0], [0, 0.5, 0], atol=1e-6)

    # Loss and gradient norm of 0.23 on RandomState(s).rand(16, 6), randint(0, 4, 16).
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize(
        ("loss", "numbers"),
        [
            (
                tfa.TripletSemiHardLoss(),
                [(0.945079, 0.325241), (0.955948, 0.263403), (0.957219, 0.235024)],
            ),
            (
                tfa.TripletSemiHardLoss(distance_metric="squared-L2"),
                [(0.899672, 0.639340), (0.911247, 0.531565), (0.935926, 0.464623)],
            ),
            (
                tfa.TripletSemiHardLoss(0.2, "angular"),
                [(0.176449, 0.177685), (0.176505, 0.153194), (0.182404, 0.160682)],
            ),
            (
                tfa.TripletHardLoss(),
                [(1.542357, 0.495741), (1.511344, 0.538315), (1.600695, 0.573959)],
            ),
            (
                tfa.TripletHardLoss(soft=True, distance_metric="angular"),
                [(0.819727, 0.164634), (0.823508, 0.164581), (0.851670, 0.186602)],
            ),
            (
                tfa.LiftedStructLoss(),
                [(8.689094, 1.037104), (8.584425, 1.046626), (8.930204, 0.830452)],
            ),
        ],
        ids=lambda value: value.name if isinstance(value, keras.losses.Loss) else "",
    )
    def test_of_seeds(self, seed, loss, numbers):
        random = np.random.RandomState(seed)
        x, y = random.rand(16, 6).astype("float32"), random.randint(0, 4, 16)
        number, gradient = value_and_gradient(lambda z: loss(y, z), x)
        assert number == pytest.approx(numbers[seed][0], abs=2e-6)
        assert np.linalg.norm(gradient) == pytest.approx(numbers[seed][1], abs=2e-6)

    @pytest.mark.parametrize(
        ("loss", "expected"),
        [
            (tfa.TripletSemiHardLoss(), 1.0412245),
            (tfa.TripletHardLoss(), 1.3790865),
            (tfa.TripletHardLoss(distance_metric="squared-L2"), 1.9179106),
            (tfa.TripletHardLoss(distance_metric="angular"), 1.2014487),
            (tfa.TripletHardLoss(soft=True), 0.9177616),
            (tfa.LiftedStructLoss(), 6.6728363),
        ],
    )
    def test_with_singletons(self, loss, expected):
        random = np.random.RandomState(42)
        x, y = random.rand(10, 6).astype("float32"), random.randint(0, 4, 10)
        assert sorted(np.unique(y, return_counts=True)[1])[0] == 1
        assert value(loss, y, x) == pytest.approx(expected, abs=2e-6)


class TestEveryBatch:
    """Finite values where tensorflow-addons divides 0 by 0, computes log(0) or overflows."""

    BATCHES = {
        "one class": (np.random.default_rng(0).normal(size=(6, 3)), [3] * 6),
        "no class twice": (np.random.default_rng(0).normal(size=(6, 3)), range(6)),
        "one item": (np.ones((1, 3)), [0]),
        "all equal": (np.full((6, 3), 0.3), [0, 0, 1, 1, 2, 0]),
        "all zero": (np.zeros((6, 3)), [0, 0, 1, 1, 2, 0]),
        "zero vectors": (np.diag([1.0, 2, 3, 0, 0, 0]), [0, 0, 1, 1, 2, 0]),
        "far": (1e3 * np.random.default_rng(0).normal(size=(6, 3)), [0, 0, 1, 1, 2, 0]),
        "huge": (np.diag([1e30, 1e30, -1e30, 1, 1, 0]), [0, 0, 1, 1, 2, 0]),
    }

    # Batches without a term: NaN in tensorflow-addons, 0 here.
    NO_TERM = {
        "one class": ["lifted"],
        "no class twice": ["semi-hard", "semi-hard, angular", "lifted"],
        "one item": ["semi-hard", "semi-hard, angular", "lifted"],
    }

    @pytest.mark.filterwarnings("ignore:.*no two items:UserWarning")
    @pytest.mark.parametrize("name", BATCHES)
    @pytest.mark.parametrize("case", ON_BATCHES)
    def test_is_finite(self, case, name):
        loss, arguments = ON_BATCHES[case]
        x, y = self.BATCHES[name]
        number, gradient = value_and_gradient(
            lambda z: loss(**arguments)(np.array(y), z), x.astype("float32")
        )
        assert np.isfinite(number) and np.isfinite(gradient).all()
        if case in self.NO_TERM.get(name, ()):
            assert number == 0 and (gradient == 0).all()

    def test_one_class_counts_from_the_anchor_itself(self, rng):
        """As in tensorflow-addons: with no negative at all, d(a, n) is the anchor's own 0."""
        x = rng.normal(size=(6, 3)).astype("float32")
        d = reference.matrix(x)
        expected = np.mean(d[~np.eye(6, dtype=bool)]) + 1
        loss = tfa.losses.TripletSemiHardLoss()
        assert value(loss, np.zeros(6, int), x) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("loss", [tfa.NpairsLoss(), tfa.NpairsMultilabelLoss()])
    def test_n_pairs(self, loss):
        x = np.zeros((3, 3), "float32")
        y = np.arange(3) if isinstance(loss, tfa.NpairsLoss) else np.zeros((3, 2), int)
        for logits in (x, x + 1e30, x - 1e30, np.diag([1e30, -1e30, 0]).astype("float32")):
            number, gradient = value_and_gradient(lambda z: loss(y, z), logits)
            assert np.isfinite(number) and np.isfinite(gradient).all()
            if isinstance(loss, tfa.NpairsMultilabelLoss):
                assert number == 0 and (gradient == 0).all()

    @pytest.mark.parametrize("case", ON_BATCHES)
    def test_nan_in_is_nan_out(self, rng, case):
        loss, arguments = ON_BATCHES[case]
        x, y = batch(rng)
        x[3, 1] = np.nan
        assert np.isnan(value(loss(**arguments), y, x))

    def test_nan_of_a_callable_is_nan_out(self, rng):
        x, y = batch(rng)
        for loss in (tfa.losses.TripletSemiHardLoss, tfa.losses.TripletHardLoss):
            assert np.isnan(value(loss(distance_metric=lambda z: product(z) * np.nan), y, x))


class TestPrecision:
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("case", ON_BATCHES)
    def test_half(self, rng, case, dtype):
        """Distances are float32; the value has the dtype of the embeddings."""
        loss, arguments = ON_BATCHES[case]
        x, y = batch(rng)
        x = ops.cast(x, dtype)
        got = step_by_step(loss(**arguments))(y, x)
        assert keras.backend.standardize_dtype(got.dtype) == dtype
        exact = value(loss(**arguments), y, ops.cast(x, "float32"))
        assert float(got) == pytest.approx(exact, rel=1e-2 if dtype == "bfloat16" else 1e-3)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_of_pairs(self, rng, dtype):
        d = ops.cast(rng.uniform(0, 2, size=6).astype("float32"), dtype)
        s = ops.cast(rng.normal(size=(6, 6)).astype("float32"), dtype)
        y = np.array([0, 1, 1, 0, 1, 0])
        for loss, x in ((tfa.losses.ContrastiveLoss(), d), (tfa.losses.NpairsLoss(), s)):
            got = loss(y, x)
            assert keras.backend.standardize_dtype(got.dtype) == dtype
            assert float(got) == pytest.approx(float(loss(y, ops.cast(x, "float32"))), rel=1e-2)
        terms = tfa.losses.contrastive_loss(y, d)
        assert keras.backend.standardize_dtype(terms.dtype) == dtype

    def test_large_ids_stay_apart_in_half(self):
        """2048 and 2049 are equal in float16, hence one class in tensorflow-addons."""
        s = ops.cast(3 * np.eye(2), "float16")
        y = np.array([2048, 2049])
        expected = n_pairs(3 * np.eye(2), np.eye(2))
        assert float(tfa.losses.npairs_loss(y, s)) == pytest.approx(expected, rel=1e-2)


class TestLabels:
    @pytest.mark.parametrize("case", ON_BATCHES)
    @pytest.mark.parametrize("form", ["column", "float32", "uint8", "float column"])
    def test_forms(self, rng, case, form):
        loss, arguments = ON_BATCHES[case]
        x, y = batch(rng)
        other = y.astype({"column": "int64", "float column": "float64"}.get(form, form))
        other = other[:, None] if "column" in form else other
        same = value(loss(**arguments), y, x)
        assert value(loss(**arguments), other, x) == pytest.approx(same, rel=1e-6)
        got = value(loss(**arguments), ops.convert_to_tensor(other), x)
        assert got == pytest.approx(same, rel=1e-6)

    @pytest.mark.parametrize(("scale", "dtype"), [(1, "bool"), (0.2, "float32")])
    def test_truth_values_and_fractions_are_classes(self, rng, scale, dtype):
        """As in tensorflow-addons, fractions are not rounded."""
        x, loss = rng.normal(size=(6, 3)).astype("float32"), tfa.losses.TripletSemiHardLoss()
        y = np.array([0, 1, 1, 0, 1, 0] if dtype == "bool" else [0, 1, 1, 0, 2, 2])
        assert value(loss, (scale * y).astype(dtype), x) == pytest.approx(value(loss, y, x))

    def test_sparse(self, rng, backend):
        y = (rng.uniform(size=(6, 4)) < 0.5).astype("float32")
        s = rng.normal(size=(6, 6)).astype("float32")
        if backend == "tensorflow":
            import tensorflow as tf

            sparse = tf.sparse.from_dense(y)
        elif backend == "jax":
            from jax.experimental import sparse as jax_sparse

            sparse = jax_sparse.BCOO.fromdense(y)
        else:
            pytest.skip("Keras has no sparse tensors on torch")
        expected = pytest.approx(n_pairs(s, y @ y.T), rel=1e-5)
        assert float(tfa.losses.NpairsMultilabelLoss()(sparse, s)) == expected
        assert float(tfa.losses.npairs_multilabel_loss(sparse, s)) == expected

    def test_sample_weight_weighs_anchors(self, rng):
        x, y = batch(rng)
        weights = rng.uniform(size=len(y)).astype("float32")
        expected = semi_hard(reference.matrix(x), y, 1.0, weights)
        loss = step_by_step(tfa.losses.TripletSemiHardLoss())
        assert float(loss(y, x, weights)) == pytest.approx(expected, rel=1e-4)


class TestErrors:
    X, Y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])

    @pytest.mark.parametrize(
        ("make", "error", "words"),
        [
            (lambda: tfa.TripletSemiHardLoss(distance_metric="l2"), ValueError, "'squared-L2'"),
            (lambda: tfa.TripletHardLoss(distance_metric=None), ValueError, "distance_metric=None"),
            (lambda: tfa.TripletHardLoss(soft="yes"), TypeError, "soft='yes'"),
            (lambda: tfa.TripletHardLoss(margin="1"), TypeError, "margin='1'"),
            (lambda: tfa.LiftedStructLoss(reduction="average"), ValueError, "'sum'"),
            (lambda: tfa.ContrastiveLoss(reduction="average"), ValueError, "'average'"),
            (lambda: tfa.TripletSemiHardLoss(mining="hard"), TypeError, "mining"),
        ],
    )
    def test_arguments(self, make, error, words):
        with pytest.raises(error, match=words):
            make()

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda x, y: tfa.TripletHardLoss()(np.eye(4), x), "one class id for each row.*argmax"),
            (lambda x, y: tfa.TripletHardLoss()(np.eye(4, dtype=int), x), "argmax"),
            (lambda x, y: tfa.TripletHardLoss()(np.array(list("aabb")), x), "np.unique"),
            (lambda x, y: tfa.LiftedStructLoss()(y[:3], x), "Each embedding needs one label"),
            (lambda x, y: tfa.LiftedStructLoss()(y, y), "floating point"),
            (lambda x, y: tfa.LiftedStructLoss().against(y, x, y, x), "keras_metric.losses"),
            (
                lambda x, y: tfa.TripletHardLoss(distance_metric=lambda z: z[:, :2])(y, x),
                "returns distances",
            ),
            (lambda x, y: tfa.NpairsLoss()(y, x[:, :3]), "similarities"),
            (lambda x, y: tfa.NpairsMultilabelLoss()(y, x), "use NpairsLoss"),
            (lambda x, y: tfa.ContrastiveLoss()(y, x), "For embeddings"),
            (lambda x, y: tfa.ContrastiveLoss()(y[:2], x[0]), "distances of pairs"),
            (lambda x, y: tfa.ContrastiveLoss()(y, y), "floating point"),
        ],
    )
    def test_calls(self, call, words):
        with pytest.raises(ValueError, match=words):
            call(self.X, self.Y)


class TestDropIn:
    # From inspect.signature in tensorflow-addons 0.23, without annotations.
    SIGNATURES = {
        "ContrastiveLoss": "margin=1.0, reduction='sum_over_batch_size', name='contrastive_loss'",
        "LiftedStructLoss": "margin=1.0, name=None, **kwargs",
        "NpairsLoss": "name='npairs_loss'",
        "NpairsMultilabelLoss": "name='npairs_multilabel_loss'",
        "TripletHardLoss": "margin=1.0, soft=False, distance_metric='L2', name=None, **kwargs",
        "TripletSemiHardLoss": "margin=1.0, distance_metric='L2', name=None, **kwargs",
        "contrastive_loss": "y_true, y_pred, margin=1.0",
        "lifted_struct_loss": "labels, embeddings, margin=1.0",
        "npairs_loss": "y_true, y_pred",
        "npairs_multilabel_loss": "y_true, y_pred",
        "triplet_hard_loss": "y_true, y_pred, margin=1.0, soft=False, distance_metric='L2'",
        "triplet_semihard_loss": "y_true, y_pred, margin=1.0, distance_metric='L2'",
    }

    @pytest.mark.parametrize("name", SIGNATURES)
    def test_names_and_arguments(self, name):
        assert str(inspect.signature(getattr(tfa.losses, name))) == f"({self.SIGNATURES[name]})"
        assert getattr(tfa, name) is getattr(tfa.losses, name)
        assert set(self.SIGNATURES) == set(tfa.__all__) == set(tfa.losses.__all__)

    def test_modules(self):
        for module, name in {
            "contrastive": "contrastive_loss",
            "lifted": "LiftedStructLoss",
            "metric_learning": "pairwise_distance",
            "npairs": "NpairsMultilabelLoss",
            "triplet": "triplet_hard_loss",
        }.items():
            assert hasattr(getattr(tfa.losses, module), name)

    # Packages of tensorflow-addons 0.23 and names of its `losses` that are not metric losses, each
    # with a name of Keras 3 in the error message.
    ABSENT = {
        "activations": "tanh_shrink",
        "callbacks": "SwapEMAWeights",
        "image": "keras.ops.image",
        "layers": "GroupNormalization",
        "metrics": "F1Score",
        "optimizers": "Lamb",
        "options": "no replacement",
        "register_all": "register_keras_serializable",
        "rnn": "LSTMCell",
        "seq2seq": "no replacement",
        "text": "no replacement",
        "losses.GIoULoss": "no replacement",
        "losses.PinballLoss": "no replacement",
        "losses.SigmoidFocalCrossEntropy": "BinaryFocalCrossentropy",
        "losses.SparsemaxLoss": "keras.ops.sparsemax",
        "losses.WeightedKappaLoss": "no replacement",
        "losses.focal_loss": "BinaryFocalCrossentropy",
        "losses.giou_loss": "no replacement",
        "losses.kappa_loss": "no replacement",
        "losses.pinball_loss": "no replacement",
        "losses.quantiles": "no replacement",
        "losses.sigmoid_focal_crossentropy": "BinaryFocalCrossentropy",
        "losses.sparsemax_loss": "keras.ops.sparsemax",
    }

    @pytest.mark.parametrize("path", ABSENT)
    def test_absent_names_give_one_line(self, path):
        inside, _, name = path.rpartition(".")
        module = tfa.losses if inside else tfa
        assert not hasattr(module, name) and name not in dir(module)
        with pytest.raises(AttributeError, match=self.ABSENT[path]) as of_attribute:
            getattr(module, name)
        line = str(of_attribute.value)
        assert "\n" not in line and f"{module.__name__} has no '{name}'" in line
        for statement in (
            f"from {module.__name__} import {name}",
            f"import {module.__name__}.{name}",
            f"from {module.__name__}.{name} import anything",
        ):
            with pytest.raises(ImportError) as of_import:
                exec(statement)
            assert str(of_import.value) == line
        # Every name of Keras in the line exists there.
        found = [name.removeprefix("keras.") for name in re.findall(r"\bkeras(?:\.\w+)+", line)]
        for names, place in re.findall(r"Keras 3 has ([\w, ]+) in keras\.(\w+)", line):
            found += [f"{place}.{name}" for name in re.split(", | and ", names)]
        assert found or "no replacement" in line
        for name in found:
            operator.attrgetter(name)(keras)

    def test_other_names_fail_as_in_any_module(self):
        with pytest.raises(AttributeError, match="^module 'keras_metric.addons' has no attribute"):
            _ = tfa.layer
        with pytest.raises(ImportError, match="cannot import name 'layer'"):
            exec("from keras_metric.addons import layer")
        with pytest.raises(
            ModuleNotFoundError, match="No module named 'keras_metric.addons.layer'"
        ):
            exec("import keras_metric.addons.layer")

    @pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
    def test_configurations_of_keras_2_load(self, cls):
        """Configurations of tensorflow-addons: the arguments, and the reduction if there is one."""
        known = set(inspect.signature(cls).parameters) - {"kwargs"}
        config = {"name": "mine"} | {"margin": 0.3, "soft": True, "distance_metric": "angular"}
        config = {key: config[key] for key in config if key in known}
        if "margin" in known:
            config["reduction"] = "none"
        loss = keras.losses.deserialize({"class_name": f"Addons>{cls.__name__}", "config": config})
        assert type(loss) is cls and loss.name == "mine"
        assert getattr(loss, "margin", 0.3) == 0.3
        assert getattr(loss, "distance_metric", "angular") == "angular"
        again = keras.losses.deserialize(keras.losses.serialize(loss))
        assert type(again) is cls and again.get_config() == loss.get_config()

    def test_a_registered_metric_is_restored(self, rng):
        x, y = batch(rng)
        loss = tfa.losses.TripletHardLoss(distance_metric=city_block)
        again = keras.losses.deserialize(keras.losses.serialize(loss))
        assert again.distance_metric is city_block
        assert value(again, y, x) == value(loss, y, x)

    def test_margin_may_be_a_tensor(self, rng):
        x, y = batch(rng)
        loss = tfa.losses.TripletSemiHardLoss(ops.convert_to_tensor(0.5))
        assert loss.margin == 0.5
        for margin in (np.float32(0.5), ops.convert_to_tensor(0.5)):
            got = step_by_step(tfa.losses.triplet_semihard_loss)(y, x, margin)
            assert float(got) == value(loss, y, x)

    @pytest.mark.parametrize("reduction", ["none", "auto", "sum", "sum_over_batch_size", None])
    def test_a_reduction_leaves_one_number(self, rng, reduction):
        x, y = batch(rng)
        loss = tfa.losses.TripletHardLoss(reduction=reduction)
        assert value(loss, y, x) == value(tfa.losses.TripletHardLoss(), y, x)

    @pytest.mark.parametrize("case", ON_BATCHES)
    def test_compiled(self, rng, case):
        loss, arguments = ON_BATCHES[case]
        x, y = batch(rng)
        y = ops.convert_to_tensor(y.astype("int32"))
        plain = value_and_gradient(lambda z: loss(**arguments)(y, z), x)
        compiled = value_and_gradient(lambda z: loss(**arguments)(y, z), x, jit=True)
        for one, other in zip(plain, compiled):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("loss", [tfa.TripletSemiHardLoss(), tfa.triplet_semihard_loss])
    def test_a_plain_model_trains(self, digits, tmp_path, loss):
        images, labels = (part[:256] for part in digits)
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(16),
                keras.layers.UnitNormalization(),
            ]
        )
        model.compile(keras.optimizers.SGD(1.0), loss)
        history = model.fit(images, labels, batch_size=64, epochs=4, verbose=0).history["loss"]
        assert history[-1] < 0.95 * history[0]
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        first, second = (m.evaluate(images, labels, verbose=0) for m in (model, again))
        assert first == pytest.approx(second, rel=1e-5)

    def test_an_embedding_model_trains(self, digits):
        images, labels = (part[:128] for part in digits)
        backbone = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(16)])
        model = EmbeddingModel(backbone, embedding_dim=8, train_health=True)
        model.compile(keras.optimizers.Adam(1e-3), tfa.losses.TripletHardLoss())
        history = model.fit(images, labels, batch_size=64, verbose=0).history
        assert 0 < history["active_fraction"][0] <= 1
        assert history["negative_distance"][0] > 0
