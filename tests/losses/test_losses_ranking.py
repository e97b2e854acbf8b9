"""Losses on the order of a list, beside loops in NumPy from the formulas of their papers."""

import functools
import math

import engine
import keras
import numpy as np
import pytest
import reference
from autodiff import value_and_gradient

from keras_metric import distances, losses

# float64 stays float64 on TensorFlow alone: JAX truncates it, and keras.ops on torch do too.
DOUBLE = keras.backend.backend() == "tensorflow"
JIT = keras.backend.backend() == "jax"
DTYPE = "float64" if DOUBLE else "float32"
CLOSE = {"rtol": 1e-9, "atol": 1e-9} if DOUBLE else {"rtol": 1e-4, "atol": 1e-4}
CLOSE_SLOPE = {"rtol": 1e-5, "atol": 1e-6} if DOUBLE else {"rtol": 2e-3, "atol": 2e-3}

# What these tests vary is worked out by code that every loss shares, and the contract suite runs
# on JAX too; here each case would be compiled there for seconds.
not_on_jax = pytest.mark.skipif(JIT, reason="compiles for seconds what other tests run on JAX")


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


class Lists:
    """Who is a positive or a negative of whom: of `x` among itself, or among `others`.

    Labels of two dimensions are of 0 and 1, and a pair must share one.
    """

    def __init__(self, x, y, others=None, labels=None, metric="cosine"):
        self.alone = others is None
        self.x, self.y = x, y
        self.others, self.labels = (x, y) if self.alone else (others, labels)
        self.distance = reference.matrix(self.x, metric, self.others)
        self.anchors = range(len(x))

    def same(self, i, j):
        return (
            np.any(self.y[i] * self.labels[j]) if self.y.ndim == 2 else self.y[i] == self.labels[j]
        )

    def positives(self, i):
        return [j for j in range(len(self.labels)) if self.same(i, j) and not self.own(i, j)]

    def negatives(self, i):
        return [j for j in range(len(self.labels)) if not self.same(i, j) and not self.own(i, j)]

    def own(self, i, j):
        return self.alone and i == j

    def with_anchor(self, i):
        return self.positives(i) + ([i] if self.alone else [])


def smooth_ap(lists, temperature):
    terms = []
    for a in lists.anchors:
        if not lists.positives(a):
            continue
        P, N, d = lists.with_anchor(a), lists.negatives(a), lists.distance[a]
        precision = 0.0
        for p in P:
            before = {j: sigmoid((d[p] - d[j]) / temperature) for j in P + N if j != p}
            among_positives = 1 + sum(before[j] for j in P if j != p)
            precision += among_positives / (1 + sum(before.values())) / len(P)
        terms.append(1 - precision)
    return np.mean(terms)


def recall_at_k(lists, ks, temperature, k_temperature):
    terms = []
    for a in lists.anchors:
        P, N, d = lists.positives(a), lists.negatives(a), lists.distance[a]
        if not P:
            continue
        recalls = []
        for k, width in zip(ks, np.broadcast_to(k_temperature, len(ks))):
            found = 0.0
            for p in P:
                place = 1 + sum(sigmoid((d[p] - d[j]) / temperature) for j in P + N if j != p)
                found += sigmoid((k - place) / width)
            recalls.append(min(k, found) / min(k, len(P)))
        terms.append(1 - np.mean(recalls))
    return np.mean(terms)


def pnp(lists, cost, temperature):
    terms = []
    for a in lists.anchors:
        P, N, d = lists.with_anchor(a), lists.negatives(a), lists.distance[a]
        if lists.positives(a):
            counts = [sum(sigmoid((d[p] - d[n]) / temperature) for n in N) for p in P]
            terms.append(np.mean([cost(count) for count in counts]))
    return np.mean(terms)


def fast_ap(lists, bins, largest):
    def histogram(values):
        return [
            sum(max(0, 1 - abs(v / largest * bins - b)) for v in values) for b in range(bins + 1)
        ]

    terms = []
    for a in lists.anchors:
        P, N, d = lists.positives(a), lists.negatives(a), lists.distance[a]
        if not P:
            continue
        h, everyone = histogram(d[P]), histogram(d[P + N])
        sums = zip(h, np.cumsum(h), np.cumsum(everyone))
        terms.append(1 - sum(new * near / all_ for new, near, all_ in sums if all_ > 0) / len(P))
    return np.mean(terms)


def tuplet_margin(lists, margin, scale):
    terms = []
    for a in lists.anchors:
        for p in lists.positives(a):
            angle = math.acos(np.clip(1 - lists.distance[a, p], -1, 1))
            eased = math.cos(angle - math.radians(margin))
            others = [scale * (1 - lists.distance[a, n] - eased) for n in lists.negatives(a)]
            terms.append(np.logaddexp.reduce([0.0, *others]))
    return np.mean(terms)


def angular(lists, alpha):
    tangent = math.tan(math.radians(alpha)) ** 2
    terms = []
    for a in lists.anchors:
        for p in lists.positives(a):
            x, y = lists.x[a], lists.others[p]
            exponents = [
                4 * tangent * (cosine(x, lists.others[n]) + cosine(y, lists.others[n]))
                - 2 * (1 + tangent) * cosine(x, y)
                for n in lists.negatives(a)
            ]
            terms.append(np.logaddexp.reduce([0.0, *exponents]))
    return np.mean(terms)


def histogram(lists, bins):
    def both(i):
        return lists.positives(i) and lists.negatives(i)

    def density(partners):
        pairs = {(i, j) for i in lists.anchors if both(i) for j in partners(i)}
        if lists.alone:
            pairs = {tuple(sorted(pair)) for pair in pairs}
        values = [cosine(lists.x[i], lists.others[j]) for i, j in pairs]
        width = 2 / bins
        edges = [-1 + width * b for b in range(bins + 1)]
        return [np.mean([max(0, 1 - abs(v - edge) / width) for v in values]) for edge in edges]

    return np.sum(np.array(density(lists.negatives)) * np.cumsum(density(lists.positives)))


# Loss: its constructor, the loop with the same settings, and the metric that both see.
CASES = {
    "angular": (losses.AngularLoss, lambda lists: angular(lists, 40)),
    # The exponents reach several hundreds.
    "angular, obtuse": (
        functools.partial(losses.AngularLoss, 80),
        lambda lists: angular(lists, 80),
    ),
    "histogram": (losses.HistogramLoss, lambda lists: histogram(lists, 100)),
    "histogram, 5 bins": (
        functools.partial(losses.HistogramLoss, 5),
        lambda lists: histogram(lists, 5),
    ),
    "SmoothAP": (
        functools.partial(losses.SmoothAPLoss, temperature=0.1),
        lambda lists: smooth_ap(lists, 0.1),
    ),
    "SmoothAP, narrow": (losses.SmoothAPLoss, lambda lists: smooth_ap(lists, 0.01)),
    "Recall@k": (
        functools.partial(losses.RecallAtKSurrogateLoss, temperature=0.1),
        lambda lists: recall_at_k(lists, (1, 2, 4, 8, 16), 0.1, 1.0),
    ),
    # Wide edges of short lists, so that more positives are found than there is room for.
    "Recall@k, capped": (
        functools.partial(losses.RecallAtKSurrogateLoss, (1, 2, 3), 0.5, 20.0),
        lambda lists: recall_at_k(lists, (1, 2, 3), 0.5, 20.0),
    ),
    "Recall@k, an edge for each k": (
        functools.partial(losses.RecallAtKSurrogateLoss, (1, 2, 4), 0.1, (1, 2, 4)),
        lambda lists: recall_at_k(lists, (1, 2, 4), 0.1, (1, 2, 4)),
    ),
    "PNP O": (
        functools.partial(losses.PNPLoss, temperature=0.1),
        lambda lists: pnp(lists, lambda r: r, 0.1),
    ),
    "PNP Ds": (
        functools.partial(losses.PNPLoss, temperature=0.1, variant="Ds"),
        lambda lists: pnp(lists, lambda r: math.log(1 + r), 0.1),
    ),
    "PNP Dq": (
        functools.partial(losses.PNPLoss, exponent=3, temperature=0.1, variant="Dq"),
        lambda lists: pnp(lists, lambda r: 1 - 1 / (1 + r) ** 3, 0.1),
    ),
    "PNP Iu": (
        functools.partial(losses.PNPLoss, temperature=0.1, variant="Iu"),
        lambda lists: pnp(lists, lambda r: (1 + r) * math.log(1 + r), 0.1),
    ),
    "PNP Ib": (
        functools.partial(losses.PNPLoss, saturation=3, temperature=0.1, variant="Ib"),
        lambda lists: pnp(lists, lambda r: (3 * r - math.log(1 + 3 * r)) / 9, 0.1),
    ),
    "FastAP": (
        functools.partial(losses.FastAPLoss, distance="cosine"),
        lambda lists: fast_ap(lists, 10, 2.0),
    ),
    "FastAP, 3 bins": (
        functools.partial(losses.FastAPLoss, 3, distance="cosine"),
        lambda lists: fast_ap(lists, 3, 2.0),
    ),
    "tuplet margin": (
        losses.TupletMarginLoss,
        lambda lists: tuplet_margin(lists, 5.73, 64),
    ),
    "tuplet margin, wide": (
        functools.partial(losses.TupletMarginLoss, 20, 8),
        lambda lists: tuplet_margin(lists, 20, 8),
    ),
}


def unequal_batch(seed, batch=15, dim=5):
    """Random rows, classes of 1 to 5 in no order: inputs that tell implementations apart."""
    rng = np.random.default_rng(seed)
    y = np.array([3, 0, 3, 7, 1, 1, 9, 0, 3, 3, 1, 3, 0, 5, 7])[:batch]
    return 0.7 * rng.normal(size=(batch, dim)) + 0.1, y


def multi_hot_batch(seed, batch=12, classes=6):
    rng = np.random.default_rng(seed)
    y = (rng.random((batch, classes)) < 0.25).astype("int32")
    y[:, 0] |= ~y.any(1)
    return rng.normal(size=(batch, 5)), y


def agrees(run, oracle, x):
    """Value and gradient of `run(tensor)` equal those of the loop `oracle(x)`."""
    value, slope = value_and_gradient(run, x.astype(DTYPE), JIT)
    np.testing.assert_allclose(value, oracle(x), **CLOSE)
    # Random directions: a wrong element of the gradient shows in each of them.
    directions = np.random.default_rng(0).normal(size=(3, *x.shape))
    along = (directions * slope).sum((1, 2))
    np.testing.assert_allclose(along, reference.slopes(oracle, x, directions), **CLOSE_SLOPE)


def built(case, **settings):
    make, oracle = CASES[case]
    return make(dtype=DTYPE, **settings), oracle


@pytest.mark.parametrize("case", CASES)
def test_equals_loops(case):
    x, y = unequal_batch(1)
    loss, oracle = built(case)
    agrees(lambda z: loss(y, z), lambda z: oracle(Lists(z, y)), x)


@pytest.mark.parametrize("case", CASES)
def test_against_references_equals_loops(case):
    x, y = unequal_batch(2, 9)
    rng = np.random.default_rng(3)
    others, labels = rng.normal(size=(19, 5)), rng.choice([3, 0, 7, 1, 8], 19)
    loss, oracle = built(case)
    # One array of both, since the references have a gradient too.
    agrees(
        lambda z: loss.against(y, z[: len(y)], labels, z[len(y) :]),
        lambda z: oracle(Lists(z[: len(y)], y, z[len(y) :], labels)),
        np.concatenate([x, others]),
    )


@not_on_jax
@pytest.mark.parametrize("case", CASES)
def test_multi_hot_labels_equal_loops(case):
    x, y = multi_hot_batch(4)
    loss, oracle = built(case, labels="multi_hot")
    agrees(lambda z: loss(y, z), lambda z: oracle(Lists(z, y)), x)


@not_on_jax
@pytest.mark.parametrize("rows", [4, 5])
@pytest.mark.parametrize("labels", ["ids", "multi_hot"])
@pytest.mark.parametrize("case", ["SmoothAP", "Recall@k", "PNP Ds", "FastAP"])
def test_blocks_of_rows_change_nothing(case, labels, rows):
    # 15 anchors fill blocks of 4 with one row to spare, blocks of 5 exactly.
    x, y = unequal_batch(16) if labels == "ids" else multi_hot_batch(5)
    loss, oracle = built(case, labels=labels)
    agrees(lambda z: engine.lists(loss, rows)(y, z), lambda z: oracle(Lists(z, y)), x)


@not_on_jax
@pytest.mark.parametrize("metric", ["euclidean", "squared_euclidean", "dot"])
@pytest.mark.parametrize("case", ["SmoothAP", "Recall@k", "PNP O"])
def test_other_distances_equal_loops(case, metric):
    x, y = unequal_batch(6)
    loss, oracle = built(case, distance=metric)
    agrees(lambda z: loss(y, z), lambda z: oracle(Lists(z, y, metric=metric)), x)


@pytest.mark.parametrize(
    ("metric", "largest"), [("squared_euclidean", 4.0), ("euclidean", 2.0), ("pearson", 2.0)]
)
def test_fast_ap_ends_at_the_largest_distance(metric, largest):
    x, y = unequal_batch(7)
    # Some of these are no unit vectors, and beyond the end.
    x = 1.3 * x / np.linalg.norm(x, axis=1, keepdims=True)
    loss = losses.FastAPLoss(7, distance=metric, dtype=DTYPE)
    agrees(lambda z: loss(y, z), lambda z: fast_ap(Lists(z, y, metric=metric), 7, largest), x)


@pytest.mark.parametrize("case", ["SmoothAP", "Recall@k", "PNP O"])
def test_statistics_of_a_step(case):
    """The anchor is in its own list in some of them, and no pair of its batch in any."""
    x, y = unequal_batch(8)
    loss, _ = built(case, distance="dot")
    reports = losses.StepReports()
    loss(reports.attach(y), x.astype("float32"))
    d = -x.astype("float64") @ x.T
    same = y[:, None] == y[None, :]
    found = {name: float(value) for name, value in reports.statistics.items()}
    other = same & ~np.eye(len(y), dtype=bool)
    assert found["positive_distance"] == pytest.approx(d[other].mean(), rel=1e-4)
    assert found["negative_distance"] == pytest.approx(d[~same].mean(), rel=1e-4)
    assert (found["positives"], found["negatives"]) == (other.sum(), (~same).sum())


def a5(stretched=True):
    """The batch of which pytorch-metric-learning's values were published."""
    angles = np.radians([0, 20, 40, 60, 80])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return x * [2, 0.5] if stretched else x, np.array([0, 0, 1, 1, 2])


# Value, sum of the squares of the gradient, second component of the gradient of the first row.
GOLDEN = [
    (losses.FastAPLoss, {}, 0.6432521435, 0.0656810642, 0.07179419),
    (losses.FastAPLoss, {"num_bins": 5}, 0.6806988236, 0.0466339983, 0.02282291),
    (losses.TupletMarginLoss, {}, 0.4092368699, 6.9928981517, 0.67279735),
    (losses.TupletMarginLoss, {"margin": 5}, 0.4227728961, 7.9402118714, 0.62118592),
    (losses.HistogramLoss, {"num_bins": 4}, 0.6706071800, 1.3215773674, 0.15784984),
    (losses.HistogramLoss, {"delta": 0.5}, 0.6706071800, 1.3215773674, 0.15784984),
    (losses.PNPLoss, {}, 0.3525580491, 8.0141560791, 0.51828569),
    (losses.PNPLoss, {"variant": "Dq"}, 0.2143325430, 1.3272534519, 0.2264973),
    (losses.PNPLoss, {"variant": "Ib"}, 0.0628491990, 0.6068879169, 0.13123202),
]
TOLERANCE = 1e-8 if DOUBLE else 1e-4


@pytest.mark.parametrize(("loss", "settings", "expected", "squares", "first"), GOLDEN)
def test_published_values(loss, settings, expected, squares, first):
    x, y = a5()
    loss = loss(dtype=DTYPE, **settings)
    value, slope = value_and_gradient(lambda z: loss(y, distances.unit(z)), x.astype(DTYPE), JIT)
    np.testing.assert_allclose(value, expected, rtol=TOLERANCE)
    np.testing.assert_allclose(np.square(slope).sum(), squares, rtol=10 * TOLERANCE)
    np.testing.assert_allclose(slope[0], [0.0, first], rtol=10 * TOLERANCE, atol=TOLERANCE)


def test_published_value_of_the_histogram_loss():
    # The peer takes the edges of its bins in float32, where a hundredth is not exact.
    x, y = a5()
    found = losses.HistogramLoss(dtype=DTYPE)(y, x.astype(DTYPE))
    np.testing.assert_allclose(found, 0.1792940068, rtol=1e-5)


def test_published_value_of_the_angular_loss():
    # The peer does not scale the negatives, so its value is the paper's for unit vectors alone,
    # and of its gradient only what is square to the vector: of the first, the second component.
    x, y = a5(stretched=False)
    loss = losses.AngularLoss(dtype=DTYPE)
    value, slope = value_and_gradient(lambda z: loss(y, z), x.astype(DTYPE), JIT)
    np.testing.assert_allclose(value, 2.2756461236, rtol=TOLERANCE)
    np.testing.assert_allclose(slope[0], [0.0, 0.60344246], rtol=10 * TOLERANCE, atol=TOLERANCE)


def test_angles_have_no_scale():
    x, y = unequal_batch(8)
    scales = np.random.default_rng(0).uniform(0.1, 9, (len(x), 1))
    for loss in (losses.AngularLoss(dtype=DTYPE), losses.TupletMarginLoss(dtype=DTYPE)):
        values = [float(loss(y, z.astype(DTYPE))) for z in (x, scales * x)]
        np.testing.assert_allclose(*values, rtol=TOLERANCE)


@pytest.mark.parametrize("alpha", [5, 60, 80, 89])
def test_any_angle_stays_in_range(alpha):
    x, y = unequal_batch(9)
    loss = losses.AngularLoss(alpha)
    value, slope = value_and_gradient(lambda z: loss(y, z), x.astype("float32"), JIT)
    np.testing.assert_allclose(value, angular(Lists(x, y), alpha), rtol=1e-4)
    assert np.isfinite(slope).all() and slope.any()


@pytest.mark.parametrize("sign", [1, -1])
def test_tuplet_margin_has_a_slope_at_equal_and_opposite_vectors(sign):
    x = np.array([[1.0, 0.0], [sign, 0.0], [0.0, 1.0], [0.6, 0.8]])
    loss = losses.TupletMarginLoss(scale=2)
    value, slope = value_and_gradient(
        lambda z: loss(np.array([0, 0, 1, 1]), z), x.astype("float32"), JIT
    )
    np.testing.assert_allclose(
        value, tuplet_margin(Lists(x, np.array([0, 0, 1, 1])), 5.73, 2), 1e-3
    )
    assert np.isfinite(slope).all() and slope.any()


@pytest.mark.parametrize("k", [3, [3], (3,)])
def test_recall_at_one_length(k):
    x, y = unequal_batch(10)
    found = losses.RecallAtKSurrogateLoss(k, dtype=DTYPE)(y, x.astype(DTYPE))
    np.testing.assert_allclose(found, recall_at_k(Lists(x, y), (3,), 0.01, 1.0), **CLOSE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.AngularLoss(0), "`alpha` must be greater than 0"),
        (lambda: losses.AngularLoss(90), "`alpha` must be .* at most 89"),
        (lambda: losses.FastAPLoss(0), "`num_bins` must be at least 1"),
        (lambda: losses.FastAPLoss(distance="dot"), "`distance` must be one of"),
        (lambda: losses.HistogramLoss(0), "`num_bins` must be at least 1"),
        (lambda: losses.HistogramLoss(delta=0.3), "`delta` must be 2 / num_bins"),
        (lambda: losses.HistogramLoss(10, 0.1), "`delta` must be 2 / num_bins"),
        (lambda: losses.PNPLoss(variant="X"), "`variant` must be one of"),
        (lambda: losses.PNPLoss(exponent=8), "Only the variant 'Dq' reads `exponent`"),
        (
            lambda: losses.PNPLoss(saturation=8, variant="Dq"),
            "Only the variant 'Ib' reads `saturation`",
        ),
        (lambda: losses.PNPLoss(saturation=0), "`saturation` must be greater than 0"),
        (lambda: losses.RecallAtKSurrogateLoss(()), "`k` must have at least one length"),
        (lambda: losses.RecallAtKSurrogateLoss((1, 0)), "`k` must be at least 1"),
        (lambda: losses.RecallAtKSurrogateLoss((1, 2), k_temperature=(1,)), "one for each k"),
        (lambda: losses.RecallAtKSurrogateLoss(k_temperature=[0] * 5), "must be greater than 0"),
        (lambda: losses.SmoothAPLoss(0), "`temperature` must be greater than 0"),
        (lambda: losses.TupletMarginLoss(scale=0), "`scale` must be greater than 0"),
    ],
)
def test_wrong_settings_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
