"""Losses of pairs, compared with loops of their formulas and with published numbers."""

import functools

import keras
import numpy as np
import pytest
import reference
from autodiff import BACKEND, CLOSE, DOUBLE, DTYPE, agrees, value_and_gradient
from reference import rows_of

from keras_metric import distances, losses
from keras_metric.layers import PairMiner, TripletMiner
from keras_metric.losses.triplet.triplet_loss import triplet_counts
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.pair_terms import n_pairs_rows

# Unsorted classes of 1 to 6 items.
LABELS = np.array([3, 0, 3, 7, 1, 1, 3, 0, 3, 9, 1, 3, 0, 3, 7])
REFERENCE_LABELS = np.array([0, 3, 3, 8, 1, 0, 3, 1, 7, 8, 3, 0])


def rows(seed, number, dim=5):
    return 0.7 * np.random.default_rng(seed).normal(size=(number, dim)) + 0.1


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def lse(values):
    return np.logaddexp.reduce(np.array(values))


def mean(terms):
    return sum(terms) / len(terms)


def generalized_lifted(
    x, y, others=None, labels=None, margin=1, positive_margin=0, distance="euclidean"
):
    terms = []
    for d, P, N in rows_of(distance, x, y, others, labels):
        pull = lse(d[P] - positive_margin) if P else 0
        push = lse(margin - d[N]) if N else 0
        terms.append(max(pull + push, 0))
    return mean(terms)


def multi_similarity(x, y, others=None, labels=None, alpha=2, beta=50, base=0.5, distance="cosine"):
    terms = []
    for d, P, N in rows_of(distance, x, y, others, labels):
        s = 1 - d if distance == "cosine" else -d
        pull = np.log(1 + np.exp(-alpha * (s[P] - base)).sum()) / alpha
        push = np.log(1 + np.exp(beta * (s[N] - base)).sum()) / beta
        terms.append(pull + push)
    return mean(terms)


def circle(x, y, others=None, labels=None, margin=0.4, gamma=80, weighting=None):
    """`weighting`: the vectors whose cosines weight the pairs, by default `x` and `others`."""
    weighting = weighting or (x, others)
    terms = []
    for (d, P, N), (fixed, _, _) in zip(
        rows_of("cosine", x, y, others, labels),
        rows_of("cosine", weighting[0], y, weighting[1], labels),
    ):
        if not P or not N:
            continue
        s, fixed = 1 - d, 1 - fixed
        pull = [-gamma * max(1 + margin - fixed[p], 0) * (s[p] - (1 - margin)) for p in P]
        push = [gamma * max(fixed[n] + margin, 0) * (s[n] - margin) for n in N]
        terms.append(np.logaddexp(0, lse(pull) + lse(push)))
    return mean([term for term in terms if term > 0])


def nca(x, y, others=None, labels=None, softmax_scale=1.0, distance="squared_euclidean"):
    terms = []
    for d, P, N in rows_of(distance, x, y, others, labels):
        if P:
            weights = np.exp(-softmax_scale * d)
            terms.append(-np.log(weights[P].sum() / weights[P + N].sum()))
    return mean(terms)


def soft_nearest_neighbor(x, y, others=None, labels=None, temperature=1.0):
    return nca(x, y, others, labels, 1 / temperature)


def ranked_list(
    x, y, others=None, labels=None, margin=0.4, negative_scale=10, imbalance=0.5, alpha=None,
    positive_scale=0,
):  # fmt: skip
    alpha = 1 + margin / 2 if alpha is None else alpha
    scales, terms = (positive_scale, negative_scale), []
    for d, P, N in rows_of("euclidean", x, y, others, labels):
        both = []
        for violations, scale in zip((d[P] - (alpha - margin), alpha - d[N]), scales):
            violations = violations[violations > 0]
            weights = np.exp(scale * violations)
            both.append((weights * violations).sum() / (weights.sum() + 1e-5 * len(y)))
        terms.append((1 - imbalance) * both[0] + imbalance * both[1])
    return mean(terms)


def nt_xent(x, y, others=None, labels=None, temperature=0.07, distance="cosine"):
    terms = []
    for d, P, N in rows_of(distance, x, y, others, labels):
        terms += [np.logaddexp(0, lse([-np.inf, *(d[p] - d[N]) / temperature])) for p in P]
    return mean(terms)


def sup_con(x, y, others=None, labels=None, temperature=0.1, distance="cosine"):
    terms = []
    for d, P, N in rows_of(distance, x, y, others, labels):
        if P:
            terms.append(lse(-d[P + N] / temperature) + d[P].mean() / temperature)
    return mean([term for term in terms if term > 0])


def signal_to_noise(
    x, y, others=None, labels=None, margin=1.0, positive_margin=0.0, zero_mean_weight=0.0
):
    sets = {"metric": "snr", "references": (others, labels)}
    pairs = reference.contrastive_loss(x, y, margin, positive_margin, **sets)
    return pairs + zero_mean_weight * mean([abs(a.sum()) for a in x])


def cosines_of_pairs(x, y, others, labels):
    """Cosines of all positive pairs, and of all negative ones."""
    rows = list(rows_of("cosine", x, y, others, labels))
    return (np.concatenate([1 - row[0][row[kind]] for row in rows]) for kind in (1, 2))


def intra_pair_variance(x, y, others=None, labels=None, pos_eps=0.01, neg_eps=0.01):
    positive, negative = cosines_of_pairs(x, y, others, labels)
    pull = np.maximum((1 - pos_eps) * positive.mean() - positive, 0) ** 2
    push = np.maximum(negative - (1 + neg_eps) * negative.mean(), 0) ** 2
    return pull.mean() + push.mean()


def threshold_consistent(
    x, y, others=None, labels=None, lambda_plus=1.0, lambda_minus=1.0, margin_plus=0.9,
    margin_minus=0.5,
):  # fmt: skip
    positive, negative = cosines_of_pairs(x, y, others, labels)
    pull = (margin_plus - positive)[positive <= margin_plus]
    push = (negative - margin_minus)[negative >= margin_minus]
    return lambda_plus * pull.mean() + lambda_minus * push.mean()


def margin_triplets(
    x, y, others=None, labels=None, margin=0.2, beta=1.2, mining="all", band=0.2, chosen=None,
    reduction="mean_active",
):  # fmt: skip
    d = reference.matrix(x, "euclidean", others)
    terms = []
    for a, p, n in chosen or reference.triplets(d, y, mining, band, labels):
        terms += [max(d[a, p] - beta + margin, 0), max(beta - d[a, n] + margin, 0)]
    return mean([term for term in terms if term > 0 or reduction == "mean_valid"])


def margin_pairs(
    x, y, others=None, labels=None, margin=0.2, beta=1.2, count="pairs", reduction="mean_active"
):
    terms = []
    for d, P, N in rows_of("euclidean", x, y, others, labels):
        terms += [max(d[p] - beta + margin, 0) for p in P]
        terms += [max(beta - d[n] + margin, 0) for n in N]
    return mean([term for term in terms if term > 0 or reduction == "mean_valid"])


def instance(x, y, others=None, labels=None, gamma=64):
    cosines = 1 - reference.matrix(x, "cosine", others)
    # In the batch an anchor is of its own class.
    columns = y if labels is None else labels
    terms = []
    for i, s in enumerate(gamma * cosines):
        own = [j for j in range(len(columns)) if columns[j] == y[i]]
        if own:
            terms.append(-mean([s[j] - lse(s) for j in own]))
    return mean(terms)


def first_two(y):
    """The first two items of each class that has two."""
    members = [[i for i in range(len(y)) if y[i] == label] for label in np.unique(y)]
    return [m[:2] for m in members if len(m) > 1]


def n_pairs(x, y, l2=0.0, metric="dot"):
    pairs, terms = first_two(y), []
    for a, p in pairs:
        logits = np.array([-reference.distance(x[a], x[q], metric) for _, q in pairs])
        own = -reference.distance(x[a], x[p], metric)
        terms.append(lse(logits) - own + l2 / 4 * ((x[a] ** 2).sum() + (x[p] ** 2).sum()))
    return mean(terms)


def n_pairs_ready(views, y, l2=0.0):
    a, p = views[:, 0], views[:, 1]
    logits, terms = a @ p.T, []
    for i in range(len(y)):
        same = [j for j in range(len(y)) if y[j] == y[i]]
        term = -mean([logits[i, j] - lse(logits[i]) for j in same])
        terms.append(term + l2 / 4 * ((a[i] ** 2).sum() + (p[i] ** 2).sum()))
    return mean(terms)


def instance_views(views, y, gamma):
    terms = []
    for one, two in ((views[:, 0], views[:, 1]), (views[:, 1], views[:, 0])):
        terms.append(instance(one, y, two, y, gamma))
    return mean(terms)


# Some anchors have no active term.
INACTIVE = dict(margin=-2.2, positive_margin=1.2, distance="cosine")
SCALED = [dict(temperature=0.4, distance=metric) for metric in ("cosine", "euclidean")]
ALL_TERMS = dict(reduction="mean_valid")
MINED = [dict(mining=m) for m in ("hard", "semi-hard", "semi-hard-all", "easy-positive")]
# Name: (loss, settings, loop). The loops take (x, y), a reference set, and the same settings.
CASES = {
    f"{loss.__name__}({','.join(f'{key}={value}' for key, value in settings.items())})": (
        loss,
        settings,
        functools.partial(loop, **settings),
    )
    for loss, loop, *every in (
        (
            losses.GeneralizedLiftedStructureLoss,
            *(generalized_lifted, dict(margin=0.8, positive_margin=0.1), INACTIVE),
        ),
        (
            losses.MultiSimilarityLoss,
            *(multi_similarity, {}, dict(alpha=1.5, beta=4, base=-1.2, distance="euclidean")),
        ),
        (losses.CircleLoss, circle, {}, dict(margin=0.25, gamma=3)),
        (losses.NCALoss, nca, dict(softmax_scale=1.3), dict(softmax_scale=5, distance="cosine")),
        (losses.SoftNearestNeighborLoss, soft_nearest_neighbor, dict(temperature=0.7)),
        (losses.RankedListLoss, ranked_list, {}, dict(margin=0.8, negative_scale=1)),
        (
            losses.RankedListLoss,
            ranked_list,
            dict(margin=0.3, negative_scale=2.5, imbalance=0.3, alpha=1.9, positive_scale=1.5),
        ),
        (losses.MarginLoss, margin_triplets, {}, dict(margin=0.4, beta=1.7), ALL_TERMS, *MINED),
        (losses.MarginLoss, margin_pairs, dict(count="pairs"), dict(count="pairs", **ALL_TERMS)),
        (losses.InstanceLoss, instance, dict(gamma=4)),
        (losses.NTXentLoss, nt_xent, *SCALED),
        (losses.SupConLoss, sup_con, *SCALED),
        (losses.SignalToNoiseRatioLoss, signal_to_noise, dict(margin=2.0, positive_margin=0.3)),
        (losses.SignalToNoiseRatioLoss, signal_to_noise, dict(margin=2.0, zero_mean_weight=0.3)),
        (losses.IntraPairVarianceLoss, intra_pair_variance, {}, dict(pos_eps=0.2, neg_eps=0.4)),
        (
            losses.ThresholdConsistentMarginLoss,
            *(threshold_consistent, {}),
            dict(lambda_plus=0.4, lambda_minus=3.0, margin_plus=0.5, margin_minus=0.1),
        ),
    )
    for settings in every
}


def made(case):
    loss_class, settings, oracle = CASES[case]
    return loss_class(dtype=DTYPE, **settings), oracle


def with_fixed_weights(oracle, *vectors):
    """The loop; that of the circle loss with constant weights, which get no gradient."""
    return functools.partial(oracle, weighting=vectors) if oracle.func is circle else oracle


@pytest.mark.parametrize("case", CASES)
def test_equals_its_loop(case):
    loss, oracle = made(case)
    x = rows(1, len(LABELS))
    oracle = with_fixed_weights(oracle, x, None)
    agrees(lambda z: loss(LABELS, z), lambda z: oracle(z, LABELS), x)


@pytest.mark.parametrize("case", CASES)
def test_against_a_reference_set_equals_its_loop(case):
    loss, oracle = made(case)
    batch = len(LABELS)
    both = rows(2, batch + len(REFERENCE_LABELS))
    oracle = with_fixed_weights(oracle, both[:batch], both[batch:])
    agrees(
        lambda z: loss.against(LABELS, z[:batch], REFERENCE_LABELS, z[batch:]),
        lambda z: oracle(z[:batch], LABELS, z[batch:], REFERENCE_LABELS),
        both,
    )


# The last row has no label.
SEVERAL = np.array(
    [[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
)


@pytest.mark.skipif(BACKEND == "jax", reason="compiles for seconds what other tests run on JAX")
@pytest.mark.parametrize("case", [case for case in CASES if "InstanceLoss" not in case])
def test_several_labels_equal_the_loop(case):
    loss_class, settings, loop = CASES[case]
    loss = loss_class(dtype=DTYPE, labels="multi_hot", **settings)
    x = rows(17, len(SEVERAL))
    loop = with_fixed_weights(loop, x, None)
    agrees(lambda z: loss(SEVERAL, z), lambda z: loop(z, SEVERAL), x)


# Five points at 0, 20, .., 80 degrees, labels 0, 0, 1, 1, 2: numbers of pytorch-metric-learning
# 2.9.0: value, sum of the squares of the gradient, gradient of the first row.
ANGLES = np.radians([0, 20, 40, 60, 80])
ELLIPSE = np.stack([2 * np.cos(ANGLES), 0.5 * np.sin(ANGLES)], axis=1)
ELLIPSE_LABELS = np.array([0, 0, 1, 1, 2])
PUBLISHED = [
    (losses.GeneralizedLiftedStructureLoss, {}, 1.8069794139, 0.7429270072, None),
    (losses.GeneralizedLiftedStructureLoss, {"margin": 0.5}, 1.3069794139, 0.7429270072, None),
    (losses.MultiSimilarityLoss, {}, 0.5846771409, 0.0415710297, None),
    (losses.MultiSimilarityLoss, {"alpha": 0.1, "beta": 40}, 5.8109821134, 0.0450321244, None),
    (losses.CircleLoss, {}, 51.1102669164, 200.1018511248, None),
    (losses.CircleLoss, {"margin": 0.25, "gamma": 256}, 213.3890857080, 1569.9754450972, None),
    (losses.NCALoss, {}, 1.2443404402, 0.1720207332, None),
    (losses.NCALoss, {"softmax_scale": 10}, 0.8379415450, 3.1398254471, None),
    (losses.RankedListLoss, {"negative_scale": 3}, 0.4152227787, 0.0744375681, None),
    (losses.MarginLoss, {}, 0.9731432043, 0.4253358385, None),
    (losses.MarginLoss, {"margin": 0.1, "beta": 1}, 0.6731431566, 0.4253358385, None),
    (losses.NPairsLoss, {}, 0.6773804687, 0.0063757321, None),
    (losses.FastAPLoss, {}, 0.6432521435, 0.0656810642, 0.07179419),
    (losses.FastAPLoss, {"num_bins": 5}, 0.6806988236, 0.0466339983, 0.02282291),
    (losses.TupletMarginLoss, {}, 0.4092368699, 6.9928981517, 0.67279735),
    (losses.TupletMarginLoss, {"margin": 5}, 0.4227728961, 7.9402118714, 0.62118592),
    (losses.HistogramLoss, {"num_bins": 4}, 0.6706071800, 1.3215773674, 0.15784984),
    (losses.HistogramLoss, {"delta": 0.5}, 0.6706071800, 1.3215773674, 0.15784984),
    (losses.PNPLoss, {}, 0.3525580491, 8.0141560791, 0.51828569),
    (losses.PNPLoss, {"variant": "Dq"}, 0.2143325430, 1.3272534519, 0.2264973),
    (losses.PNPLoss, {"variant": "Ib"}, 0.0628491990, 0.6068879169, 0.13123202),
    (losses.IntraPairVarianceLoss, dict(neg_eps=0.02), 0.0067039169, 0.0045325022, -0.00344769),
    (losses.ThresholdConsistentMarginLoss, {}, 0.3311811717, 0.3482438082, 0.08874093),
    (losses.SignalToNoiseRatioLoss, {}, 0.8414208239, 1.5937110764, 0.27161915),
    (losses.ContrastiveLoss, {}, 0.6364218785, 1.0774702246, None),
    (losses.LiftedStructureLoss, {}, 3.2379395060, 4.7749954441, None),
    (losses.LiftedStructureLoss, {"margin": 0.5}, 2.0912477602, 3.0912813565, None),
    *(
        (losses.TripletLoss, {"mining": "all", **settings}, value, squares, None)
        for settings, value, squares in (
            ({"margin": 0.05}, 0.0684676121, 1.7754096807),
            ({"margin": 0.2}, 0.1649332709, 1.2062745729),
            ({"reduction": "mean_valid"}, 0.0687221962, 0.20942267),
            ({"distance": "cosine"}, 0.1611862612, 0.0303082968),
            ({"form": "soft_margin"}, 0.6631253957, 0.1729267663),
            ({"swap": True}, 0.2184676121, 1.7754096807),
            ({"distance": "squared_euclidean"}, 0.1441850609, 0.1104677073),
        )
    ),
]
# The peer computes some of them in float32.
ROUNDED = (losses.RankedListLoss, losses.MarginLoss)


@pytest.mark.parametrize(("loss", "settings", "value", "squares", "first"), PUBLISHED)
def test_published_numbers(loss, settings, value, squares, first):
    exact = DOUBLE and loss not in ROUNDED
    loss = loss(dtype=DTYPE, **settings)
    ours, gradient = value_and_gradient(
        lambda x: loss(ELLIPSE_LABELS, distances.unit(x)), ELLIPSE.astype(DTYPE), BACKEND == "jax"
    )
    tolerance = 1e-8 if exact else 1e-6 if DOUBLE else 1e-4
    np.testing.assert_allclose(ours, value, rtol=tolerance)
    np.testing.assert_allclose((gradient**2).sum(), squares, rtol=10 * tolerance)
    if first is not None:
        close = {"rtol": 10 * tolerance, "atol": 1e-8 if DOUBLE else 1e-4}
        np.testing.assert_allclose(gradient[0], [0.0, first], **close)


def test_published_number_without_unit_vectors():
    loss = losses.TripletLoss(mining="all", dtype=DTYPE)
    value, gradient = value_and_gradient(lambda x: loss(ELLIPSE_LABELS, x), ELLIPSE.astype(DTYPE))
    np.testing.assert_allclose(value, 0.1650761920, rtol=1e-5)
    np.testing.assert_allclose((gradient**2).sum(), 3.7948963423, rtol=1e-3)


def test_published_number_of_the_histogram_loss():
    """The peer computes the edges of its bins in float32, which does not represent 0.02."""
    found = losses.HistogramLoss(dtype=DTYPE)(ELLIPSE_LABELS, ELLIPSE.astype(DTYPE))
    np.testing.assert_allclose(found, 0.1792940068, rtol=1e-5)


def test_published_number_of_the_angular_loss():
    """The peer does not normalise the negatives: compare on the unit circle, along the circle."""
    x = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(DTYPE)
    loss = losses.AngularLoss(dtype=DTYPE)
    value, gradient = value_and_gradient(lambda z: loss(ELLIPSE_LABELS, z), x, BACKEND == "jax")
    tolerance = 1e-8 if DOUBLE else 1e-4
    np.testing.assert_allclose(value, 2.2756461236, rtol=tolerance)
    np.testing.assert_allclose(gradient[0], [0.0, 0.60344246], rtol=10 * tolerance, atol=tolerance)


def test_published_number_of_a_sum():
    x = np.array([[0, 1], [0.43, 0.9], [1, 0], [0.5, 0.5]], DTYPE)
    settings = {"margin": 0.6, "positive_margin": 0.1, "distance": "cosine", "dtype": DTYPE}
    terms = [
        (1, losses.ContrastiveLoss(**settings)),
        (1, losses.ThresholdConsistentMarginLoss(dtype=DTYPE)),
    ]
    loss = losses.WeightedSum(terms, dtype=DTYPE)
    value, gradient = value_and_gradient(lambda z: loss(ELLIPSE_LABELS[:4], z), x)
    close = {"rtol": 1e-7, "atol": 1e-8} if DOUBLE else {"rtol": 2e-4, "atol": 1e-5}
    np.testing.assert_allclose(value, 1.0044584791, **close)
    np.testing.assert_allclose((gradient**2).sum(), 12.3303689909, **close)
    np.testing.assert_allclose(gradient[0], [0.58925565, 0.0], **close)


def test_generalized_lifted_structure_has_inactive_anchors():
    """In the case above some sums are below 0."""
    loss = losses.GeneralizedLiftedStructureLoss(**INACTIVE, reduction="none", dtype=DTYPE)
    each = np.asarray(loss(LABELS, rows(1, len(LABELS)).astype(DTYPE)))
    assert 3 < (each > 0).sum() < len(LABELS) - 3


class TestMultiSimilarity:
    def test_the_miner_of_the_paper(self):
        """Equations 7 and 8 choose the pairs; anchors without pairs stay in the mean."""
        x = rows(3, len(LABELS))
        s = 1 - reference.matrix(x, "cosine")
        kept = []
        for i in range(len(LABELS)):
            P, N = reference.positives(LABELS, i), reference.negatives(LABELS, i)
            hardest = max(s[i, n] for n in N)
            kept.append(
                (
                    [p for p in P if s[i, p] - 0.1 < hardest],
                    [n for n in N if P and s[i, n] + 0.1 > min(s[i, p] for p in P)],
                )
            )

        def oracle(z):
            s = 1 - reference.matrix(z, "cosine")
            return mean(
                [
                    np.log(1 + np.exp(-2 * (s[i, P] - 0.5)).sum()) / 2
                    + np.log(1 + np.exp(50 * (s[i, N] - 0.5)).sum()) / 50
                    for i, (P, N) in enumerate(kept)
                ]
            )

        # Some anchors have no pairs, so the two means differ.
        assert 0 < sum(not P and not N for P, N in kept) < len(LABELS) - 5
        loss = losses.MultiSimilarityLoss(mining="multi-similarity", dtype=DTYPE)
        agrees(lambda z: loss(LABELS, z), oracle, x)


class TestCircle:
    def test_value_of_keras_on_unit_vectors(self):
        x = unit(rows(4, len(LABELS))).astype("float32")
        theirs = float(keras.losses.Circle(gamma=7, margin=0.3)(LABELS, x))
        np.testing.assert_allclose(losses.CircleLoss(0.3, 7)(LABELS, x), theirs, rtol=1e-5)

    def test_anchors_without_a_positive_or_negative_have_no_term(self):
        x = rows(16, len(LABELS))
        loss = losses.CircleLoss(0.3, 4, reduction="none", dtype=DTYPE)
        each = np.asarray(loss(LABELS, x.astype(DTYPE)))
        # Label 9 has one item.
        assert np.array_equal(each == 0, LABELS == 9)
        loss = losses.CircleLoss(0.3, 4, reduction="mean_valid", dtype=DTYPE)
        np.testing.assert_allclose(loss(LABELS, x.astype(DTYPE)), each.sum() / 14, **CLOSE)

    def test_does_not_overflow(self):
        angles = np.radians(np.arange(180))
        x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")
        y = np.random.default_rng(0).integers(0, 10, 180)
        value, gradient = value_and_gradient(lambda z: losses.CircleLoss(0.4, 300)(y, z), x)
        assert np.isfinite(value) and value > 0
        assert np.isfinite(gradient).all() and gradient.any()


class TestRankedList:
    def test_a_negative_at_no_distance_counts(self):
        """pytorch-metric-learning leaves it out: there a distance of 0 means "no pair"."""
        x = np.array([[0.0], [0.0], [5.0], [9.0]], "float32")
        loss = losses.RankedListLoss(imbalance=1, reduction="none")
        values = loss(np.array([0, 1, 2, 2]), x)
        np.testing.assert_allclose(values, [1.2, 1.2, 0, 0], rtol=1e-4)

    def test_one_positive_is_enough(self):
        loss = losses.RankedListLoss(imbalance=0, reduction="mean_valid")
        x = np.array([[0.0], [3.0]], "float32")
        assert float(loss(np.array([0, 0]), x)) == pytest.approx(3 - (1.2 - 0.4), rel=1e-4)

    def test_high_temperatures_do_not_overflow(self):
        # The hardest pairs of anchor 0 have all the weight: 1.2 - 1 and 3 - 0.8.
        x = np.array([[0.0], [1.0], [1.1], [3.0]], "float32")
        loss = losses.RankedListLoss(negative_scale=1e5, positive_scale=1e5, reduction="none")
        y = np.array([0, 1, 1, 0])
        value, gradient = value_and_gradient(lambda z: keras.ops.sum(loss(y, z)), x)
        np.testing.assert_allclose(loss(y, x)[0], (3 - 0.8) / 2 + (1.2 - 1) / 2, rtol=1e-5)
        assert np.isfinite(value) and np.isfinite(gradient).all()


class TestMargin:
    @pytest.mark.parametrize("strategy", ["distance-weighted", "random", "soft-hard", "all"])
    @pytest.mark.parametrize("count", ["triplets", "pairs"])
    def test_the_triplets_of_a_miner(self, strategy, count):
        """A second miner with the same seed gives the expected triplets."""
        x = unit(rows(5, len(LABELS)))
        if strategy == "all":
            chosen = reference.triplets(reference.matrix(x), LABELS, "all")
        else:
            second_miner = TripletMiner(strategy, seed=3)
            negative, weight = (np.asarray(m) for m in second_miner(x.astype("float32"), LABELS))
            chosen = [(i, j, int(negative[i, j])) for i, j in np.argwhere(weight)]
            # One anchor samples a negative repeatedly, so the two ways of counting differ.
            sampled = [(a, n) for a, _, n in chosen]
            assert strategy == "soft-hard" or len(set(sampled)) < len(sampled)
        miner = TripletMiner(strategy, seed=3)
        loss = losses.MarginLoss(beta=0.9, count=count, mining=miner, dtype=DTYPE)

        def by_pairs(z):
            d = reference.matrix(z)
            terms = [max(d[pair] - 0.7, 0) for pair in {(a, p) for a, p, _ in chosen}]
            terms += [max(1.1 - d[pair], 0) for pair in {(a, n) for a, _, n in chosen}]
            return mean([term for term in terms if term > 0])

        by_triplets = functools.partial(margin_triplets, y=LABELS, beta=0.9, chosen=chosen)
        # Random miners are called once, so value and gradient have the same samples.
        oracle = by_triplets if count == "triplets" else by_pairs
        agrees(lambda z: loss(LABELS, z), oracle, x)

    def test_every_triplet_of_a_pair_miner(self):
        x = rows(6, len(LABELS))
        miner = PairMiner("multi-similarity", epsilon=0.05)
        d = distances.pairwise(x.astype("float32"))
        second_miner = PairMiner("multi-similarity", epsilon=0.05, distance="euclidean")
        positive, negative = (np.asarray(m) > 0 for m in second_miner(x.astype("float32"), LABELS))
        chosen = [
            (a, p, n)
            for a in range(len(LABELS))
            for p in np.flatnonzero(positive[a])
            for n in np.flatnonzero(negative[a])
        ]
        assert 0 < len(chosen) < len(reference.triplets(np.asarray(d), LABELS, "all"))
        loss = losses.MarginLoss(mining=miner, dtype=DTYPE)
        agrees(lambda z: loss(LABELS, z), lambda z: margin_triplets(z, LABELS, chosen=chosen), x)

    @pytest.mark.parametrize("mining", ["semi-hard", "semi-hard-all"])
    def test_sorted_rows_count_alike(self, mining):
        x = rows(7, len(LABELS)).astype("float32")
        expected = np.zeros((2, len(x), len(x)))
        for a, p, n in reference.triplets(reference.matrix(x), LABELS, mining):
            expected[0, a, p] += 1
            expected[1, a, n] += 1
        pairs = class_pairs.from_labels(keras.ops.convert_to_tensor(LABELS))
        distance = distances.pairwise(x)
        for sort_above in (0, 64):
            found = triplet_counts(distance, pairs, TripletMiner(mining), sort_above=sort_above)
            np.testing.assert_array_equal([np.asarray(counts) for counts in found], expected)

    def test_a_schedule_of_strategies(self):
        x = rows(8, len(LABELS)).astype("float32")
        miner = TripletMiner(("all", "hard"))
        loss = losses.MarginLoss(mining=miner)
        assert loss.layers == (miner,)
        np.testing.assert_allclose(loss(LABELS, x), margin_triplets(x, LABELS), rtol=1e-5)
        miner.use("hard")
        expected = margin_triplets(x, LABELS, mining="hard")
        np.testing.assert_allclose(loss(LABELS, x), expected, rtol=1e-5)

    @pytest.mark.parametrize("reduction", ["mean_active", "mean_valid", "sum"])
    @pytest.mark.parametrize("solved", [True, False])
    def test_a_learned_boundary_is_added_once(self, reduction, solved):
        """Also where all pairs are solved; for "sum", once for each anchor."""
        x = np.array([[0, 0], [0, 0.1], [50, 0], [50, 0.1]] if solved else rows(10, 4))
        y = np.array([0, 0, 1, 1])
        values = []
        for nu in (0.0, 0.5):
            loss = losses.MarginLoss(learn_beta=True, nu=nu, reduction=reduction, dtype=DTYPE)
            loss.boundaries.build((None, 2))
            values.append(float(loss(y, x.astype("float32"))))
        assert solved == (values[0] == 0)
        added = 0.5 * 1.2 * (4 if reduction == "sum" else 1)
        assert values[1] - values[0] == pytest.approx(added, rel=1e-4)

    def test_wrong_mining_raises(self):
        with pytest.raises(ValueError, match="must be one of.*distance-weighted.*multi-similarity"):
            losses.MarginLoss(mining="hardest")
        with pytest.raises(ValueError, match="TripletMiner"):
            losses.MarginLoss(mining=None)


class TestNPairs:
    @pytest.mark.parametrize("settings", [{}, {"l2": 0.3}, {"distance": "euclidean"}])
    def test_two_items_of_each_class(self, settings):
        loss = losses.NPairsLoss(dtype=DTYPE, **settings)
        metric = settings.get("distance", "dot")
        agrees(
            lambda z: loss(LABELS, z),
            lambda z: n_pairs(z, LABELS, settings.get("l2", 0), metric),
            rows(10, len(LABELS)),
        )

    @pytest.mark.parametrize("l2", [0.0, 0.2])
    @pytest.mark.parametrize("labels", [np.arange(15), LABELS])
    def test_ready_made_pairs(self, labels, l2):
        loss = losses.NPairsLoss(l2, dtype=DTYPE)
        agrees(
            lambda z: loss(labels, z),
            lambda z: n_pairs_ready(z, labels, l2),
            rows(11, 30).reshape(15, 2, 5),
        )

    # tensorflow-addons 0.23 on RandomState(s).rand(16, 6), randint(0, 4, 16): loss, gradient norm.
    @pytest.mark.parametrize(
        ("seed", "value", "norm"),
        [(0, 2.791870, 0.197320), (1, 2.735346, 0.153485), (2, 2.772005, 0.111524)],
    )
    def test_numbers_of_tensorflow_addons(self, seed, value, norm):
        random = np.random.RandomState(seed)
        x, y = random.rand(16, 6).astype("float32"), random.randint(0, 4, 16)
        loss = losses.NPairsLoss()
        ours, gradient = value_and_gradient(lambda z: loss(y, keras.ops.stack([z, z], axis=1)), x)
        np.testing.assert_allclose(ours, value, rtol=2e-6)
        np.testing.assert_allclose(np.linalg.norm(gradient), norm, rtol=2e-5)

    def test_targets_of_several_labels(self):
        """The value in the test of tensorflow-addons for several labels."""
        x = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], "float32")
        y = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]], "float32")
        terms = n_pairs_rows(*map(keras.ops.convert_to_tensor, (x @ x.T, y @ y.T)))
        np.testing.assert_allclose(float(keras.ops.mean(terms.total)), 1.420522, rtol=1e-6)

    def test_a_huge_vector_in_both_items_of_a_pair(self):
        x = rows(12, 12).reshape(6, 2, 5).astype("float32")
        x[2] *= 1e20
        for l2 in (0.0, 0.1):
            loss = losses.NPairsLoss(l2)
            value, gradient = value_and_gradient(lambda z, loss=loss: loss(np.arange(6), z), x)
            assert np.isfinite(value) and np.isfinite(gradient).all()

    def test_wrong_input_raises(self):
        x = np.ones((4, 2), "float32")
        with pytest.raises(ValueError, match="no reference set.*NTXentLoss"):
            losses.NPairsLoss().against(np.arange(4), x, np.arange(4), x)
        with pytest.raises(ValueError, match=r"\(batch, 2, dim\)"):
            losses.NPairsLoss()(np.arange(4), np.ones((4, 3, 2), "float32"))


class TestInstance:
    @pytest.mark.parametrize("labels", [np.arange(15), LABELS])
    def test_two_views(self, labels):
        loss = losses.InstanceLoss(gamma=5, dtype=DTYPE)
        agrees(
            lambda z: loss(labels, z),
            lambda z: instance_views(z, labels, 5),
            rows(13, 30).reshape(15, 2, 5),
        )

    def test_several_labels(self):
        """An item is of its own class, even one without any label."""
        y = (np.random.default_rng(0).random((9, 5)) < 0.3).astype(int)
        y[4] = 0
        same = (y @ y.T > 0) | np.eye(9, dtype=bool)
        x = rows(14, 9)
        s = 6 * (1 - reference.matrix(x, "cosine"))
        expected = mean(
            [lse(s[i]) - mean([s[i, j] for j in np.flatnonzero(same[i])]) for i in range(9)]
        )
        loss = losses.InstanceLoss(gamma=6, labels="multi_hot", dtype=DTYPE)
        np.testing.assert_allclose(loss(y, x.astype(DTYPE)), expected, **CLOSE)

    def test_no_warning_if_all_labels_differ(self):
        x = rows(15, 6).astype("float32")
        loss = losses.InstanceLoss(gamma=4)
        np.testing.assert_allclose(
            loss(np.arange(6), x), instance(x, np.arange(6), gamma=4), rtol=1e-5
        )

    def test_where_the_peer_differs(self):
        """In pytorch-metric-learning the target column is the index of the class."""
        x = unit(ELLIPSE)
        s = 64 * (1 - reference.matrix(x, "cosine"))
        theirs = mean([lse(row) - row[label] for row, label in zip(s, ELLIPSE_LABELS)])
        np.testing.assert_allclose(theirs, 4.7447643129, rtol=1e-6)
        # Column 1 holds another item of class 0, not one of class 1.
        ours = float(losses.InstanceLoss()(ELLIPSE_LABELS, x.astype("float32")))
        assert ours == pytest.approx(instance(x, ELLIPSE_LABELS), rel=1e-5)
        assert abs(ours - theirs) > 1
