"""Losses of ranked lists, angles and histograms, compared with loops in NumPy."""

import functools
import math

import engine
import numpy as np
import pytest
from autodiff import BACKEND, CLOSE, DTYPE, agrees, value_and_gradient
from reference import rows_of

from keras_metric import losses

JIT = BACKEND == "jax"
# These cases vary code that all losses share, and the contract tests run it on JAX too.
not_on_jax = pytest.mark.skipif(JIT, reason="compiles for seconds what other tests run on JAX")


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def lists(x, y, others, labels, metric, with_anchor=False):
    """Distances, positives and negatives of the anchors with a positive.

    `with_anchor` adds the anchor to its own positives, in a batch without references.
    """
    for i, (d, P, N) in enumerate(rows_of(metric, x, y, others, labels)):
        if P:
            yield d, P + [i] * (with_anchor and others is None), N


def smooth_ap(x, y, others=None, labels=None, temperature=0.01, distance="cosine"):
    terms = []
    for d, P, N in lists(x, y, others, labels, distance, with_anchor=True):
        precision = 0.0
        for p in P:
            before = {j: sigmoid((d[p] - d[j]) / temperature) for j in P + N if j != p}
            among_positives = 1 + sum(before[j] for j in P if j != p)
            precision += among_positives / (1 + sum(before.values())) / len(P)
        terms.append(1 - precision)
    return np.mean(terms)


def recall_at_k(
    x, y, others=None, labels=None, k=(1, 2, 4, 8, 16), temperature=0.01, k_temperature=1.0,
    distance="cosine",
):  # fmt: skip
    terms = []
    for d, P, N in lists(x, y, others, labels, distance):
        recalls = []
        for length, width in zip(k, np.broadcast_to(k_temperature, len(k))):
            found = 0.0
            for p in P:
                rank = 1 + sum(sigmoid((d[p] - d[j]) / temperature) for j in P + N if j != p)
                found += sigmoid((length - rank) / width)
            recalls.append(min(length, found) / min(length, len(P)))
        terms.append(1 - np.mean(recalls))
    return np.mean(terms)


COSTS = {
    "O": lambda r: r,
    "Ds": lambda r: math.log(1 + r),
    "Dq": lambda r: 1 - 1 / (1 + r) ** 3,
    "Iu": lambda r: (1 + r) * math.log(1 + r),
    "Ib": lambda r: (3 * r - math.log(1 + 3 * r)) / 9,
}


def pnp(x, y, others=None, labels=None, variant="O", distance="cosine", **read):
    """`read`: the numbers in the costs, which are written there."""
    cost = COSTS[variant]
    terms = []
    for d, P, N in lists(x, y, others, labels, distance, with_anchor=True):
        terms.append(np.mean([cost(sum(sigmoid((d[p] - d[n]) / 0.1) for n in N)) for p in P]))
    return np.mean(terms)


def fast_ap(x, y, others=None, labels=None, num_bins=10, largest=2.0, distance="cosine"):
    def histogram(values):
        return [
            sum(max(0, 1 - abs(v / largest * num_bins - b)) for v in values)
            for b in range(num_bins + 1)
        ]

    terms = []
    for d, P, N in lists(x, y, others, labels, distance):
        h, every = histogram(d[P]), histogram(d[P + N])
        sums = zip(h, np.cumsum(h), np.cumsum(every))
        terms.append(1 - sum(new * near / all_ for new, near, all_ in sums if all_ > 0) / len(P))
    return np.mean(terms)


def tuplet_margin(x, y, others=None, labels=None, margin=5.73, scale=64):
    terms = []
    for d, P, N in rows_of("cosine", x, y, others, labels):
        for p in P:
            eased = math.cos(math.acos(np.clip(1 - d[p], -1, 1)) - math.radians(margin))
            terms.append(np.logaddexp.reduce([0.0, *(scale * (1 - d[n] - eased) for n in N)]))
    return np.mean(terms)


def angular(x, y, others=None, labels=None, alpha=40):
    tangent = math.tan(math.radians(alpha)) ** 2
    terms = []
    z = x if others is None else others
    for i, (d, P, N) in enumerate(rows_of("cosine", x, y, others, labels)):
        for p in P:
            exponents = [
                4 * tangent * (cosine(x[i], z[n]) + cosine(z[p], z[n]))
                - 2 * (1 + tangent) * (1 - d[p])
                for n in N
            ]
            terms.append(np.logaddexp.reduce([0.0, *exponents]))
    return np.mean(terms)


def histogram(x, y, others=None, labels=None, num_bins=100):
    rows = list(rows_of("cosine", x, y, others, labels))

    def density(kind):
        pairs = {(i, j) for i, row in enumerate(rows) if row[1] and row[2] for j in row[kind]}
        if others is None:
            pairs = {tuple(sorted(pair)) for pair in pairs}
        values = [1 - rows[i][0][j] for i, j in pairs]
        width = 2 / num_bins
        edges = [-1 + width * b for b in range(num_bins + 1)]
        return [np.mean([max(0, 1 - abs(v - edge) / width) for v in values]) for edge in edges]

    return np.sum(np.array(density(2)) * np.cumsum(density(1)))


# Name: (loss, loop, settings of both).
CASES = {
    "angular": (losses.AngularLoss, angular, {}),
    # The exponents are up to several hundreds.
    "angular, obtuse": (losses.AngularLoss, angular, dict(alpha=80)),
    "histogram": (losses.HistogramLoss, histogram, {}),
    "histogram, 5 bins": (losses.HistogramLoss, histogram, dict(num_bins=5)),
    "SmoothAP": (losses.SmoothAPLoss, smooth_ap, dict(temperature=0.1)),
    "SmoothAP, narrow": (losses.SmoothAPLoss, smooth_ap, {}),
    **{
        f"Recall@k{name}": (losses.RecallAtKSurrogateLoss, recall_at_k, settings)
        for name, settings in {
            "": dict(temperature=0.1),
            # Wide edges of short lists, so that the number of positives found is capped.
            ", capped": dict(k=(1, 2, 3), temperature=0.5, k_temperature=20.0),
            ", an edge for each k": dict(k=(1, 2, 4), temperature=0.1, k_temperature=(1, 2, 4)),
        }.items()
    },
    **{
        f"PNP {variant}": (losses.PNPLoss, pnp, dict(anneal=0.1, variant=variant, **read))
        for variant in COSTS
        for read in [{"Dq": {"alpha": 3}, "Ib": {"saturation": 3}}.get(variant, {})]
    },
    "FastAP": (losses.FastAPLoss, fast_ap, dict(distance="cosine")),
    "FastAP, 3 bins": (losses.FastAPLoss, fast_ap, dict(num_bins=3, distance="cosine")),
    "tuplet margin": (losses.TupletMarginLoss, tuplet_margin, {}),
    "tuplet margin, wide": (losses.TupletMarginLoss, tuplet_margin, dict(margin=20, scale=8)),
}


def unequal_batch(seed, batch=15, dim=5):
    """Random rows, unsorted classes of 1 to 5 items."""
    rng = np.random.default_rng(seed)
    y = np.array([3, 0, 3, 7, 1, 1, 9, 0, 3, 3, 1, 3, 0, 5, 7])[:batch]
    return 0.7 * rng.normal(size=(batch, dim)) + 0.1, y


def multi_hot_batch(seed, batch=12, classes=6):
    rng = np.random.default_rng(seed)
    y = (rng.random((batch, classes)) < 0.25).astype("int32")
    y[:, 0] |= ~y.any(1)
    return rng.normal(size=(batch, 5)), y


def built(case, **settings):
    loss, loop, own = CASES[case]
    return loss(dtype=DTYPE, **own, **settings), functools.partial(loop, **own)


@pytest.mark.parametrize("case", CASES)
def test_equals_loops(case):
    x, y = unequal_batch(1)
    loss, oracle = built(case)
    agrees(lambda z: loss(y, z), lambda z: oracle(z, y), x)


@pytest.mark.parametrize("case", CASES)
def test_against_references_equals_loops(case):
    x, y = unequal_batch(2, 9)
    rng = np.random.default_rng(3)
    others, labels = rng.normal(size=(19, 5)), rng.choice([3, 0, 7, 1, 8], 19)
    loss, oracle = built(case)
    # One array of both, since the references have a gradient too.
    agrees(
        lambda z: loss.against(y, z[: len(y)], labels, z[len(y) :]),
        lambda z: oracle(z[: len(y)], y, z[len(y) :], labels),
        np.concatenate([x, others]),
    )


@not_on_jax
@pytest.mark.parametrize("case", CASES)
def test_multi_hot_labels_equal_loops(case):
    x, y = multi_hot_batch(4)
    loss, oracle = built(case, labels="multi_hot")
    agrees(lambda z: loss(y, z), lambda z: oracle(z, y), x)


@not_on_jax
@pytest.mark.parametrize("rows", [4, 5])
@pytest.mark.parametrize("labels", ["ids", "multi_hot"])
@pytest.mark.parametrize("case", ["SmoothAP", "Recall@k", "PNP Ds", "FastAP"])
def test_blocks_of_rows_change_nothing(case, labels, rows):
    # 15 anchors fill blocks of 4 with one row to spare, blocks of 5 exactly.
    x, y = unequal_batch(16) if labels == "ids" else multi_hot_batch(5)
    loss, oracle = built(case, labels=labels)
    agrees(lambda z: engine.lists(loss, size=rows)(y, z), lambda z: oracle(z, y), x)


@not_on_jax
@pytest.mark.parametrize("metric", ["euclidean", "squared_euclidean", "dot"])
@pytest.mark.parametrize("case", ["SmoothAP", "Recall@k", "PNP O"])
def test_other_distances_equal_loops(case, metric):
    x, y = unequal_batch(6)
    loss, oracle = built(case, distance=metric)
    agrees(lambda z: loss(y, z), lambda z: oracle(z, y, distance=metric), x)


@pytest.mark.parametrize(
    ("metric", "largest"), [("squared_euclidean", 4.0), ("euclidean", 2.0), ("pearson", 2.0)]
)
def test_fast_ap_ends_at_the_largest_distance(metric, largest):
    x, y = unequal_batch(7)
    # Some distances exceed the largest distance of unit vectors.
    x = 1.3 * x / np.linalg.norm(x, axis=1, keepdims=True)
    loss = losses.FastAPLoss(7, distance=metric, dtype=DTYPE)
    loop = functools.partial(fast_ap, y=y, num_bins=7, largest=largest, distance=metric)
    agrees(lambda z: loss(y, z), loop, x)


@pytest.mark.parametrize("case", ["SmoothAP", "Recall@k", "PNP O"])
def test_reported_distances(case):
    """The anchor is in its own list in some losses, but it is never a reported pair."""
    x, y = unequal_batch(8)
    loss, _ = built(case, distance="dot")
    with losses.StepReports() as reports:
        loss(y, x.astype("float32"))
    d = -x.astype("float64") @ x.T
    same = y[:, None] == y[None, :]
    found = {name: float(value) for name, value in reports.statistics.items()}
    other = same & ~np.eye(len(y), dtype=bool)
    assert found["positive_distance"] == pytest.approx(d[other].mean(), rel=1e-4)
    assert found["negative_distance"] == pytest.approx(d[~same].mean(), rel=1e-4)
    assert (found["positives"], found["negatives"]) == (other.sum(), (~same).sum())


def test_angles_have_no_scale():
    x, y = unequal_batch(8)
    scales = np.random.default_rng(0).uniform(0.1, 9, (len(x), 1))
    for loss in (losses.AngularLoss(dtype=DTYPE), losses.TupletMarginLoss(dtype=DTYPE)):
        values = [float(loss(y, z.astype(DTYPE))) for z in (x, scales * x)]
        np.testing.assert_allclose(*values, rtol=CLOSE["rtol"])


@pytest.mark.parametrize("alpha", [5, 60, 80, 89])
def test_any_angle_stays_in_range(alpha):
    x, y = unequal_batch(9)
    loss = losses.AngularLoss(alpha)
    value, gradient = value_and_gradient(lambda z: loss(y, z), x.astype("float32"), JIT)
    np.testing.assert_allclose(value, angular(x, y, alpha=alpha), rtol=1e-4)
    assert np.isfinite(gradient).all() and gradient.any()


@pytest.mark.parametrize("sign", [1, -1])
def test_tuplet_margin_has_a_gradient_at_equal_and_opposite_vectors(sign):
    x = np.array([[1.0, 0.0], [sign, 0.0], [0.0, 1.0], [0.6, 0.8]])
    loss = losses.TupletMarginLoss(scale=2)
    value, gradient = value_and_gradient(
        lambda z: loss(np.array([0, 0, 1, 1]), z), x.astype("float32"), JIT
    )
    np.testing.assert_allclose(value, tuplet_margin(x, np.array([0, 0, 1, 1]), scale=2), 1e-3)
    assert np.isfinite(gradient).all() and gradient.any()


@pytest.mark.parametrize("k", [3, [3], (3,)])
def test_recall_at_one_length(k):
    x, y = unequal_batch(10)
    found = losses.RecallAtKSurrogateLoss(k, dtype=DTYPE)(y, x.astype(DTYPE))
    np.testing.assert_allclose(found, recall_at_k(x, y, k=(3,)), **CLOSE)


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
        (lambda: losses.PNPLoss(alpha=8), "Only the variant 'Dq' reads `alpha`"),
        (lambda: losses.PNPLoss(saturation=8, variant="Dq"), "'Ib' reads `saturation`"),
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
