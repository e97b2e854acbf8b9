"""Losses of two views, of graded pairs and of class means, compared with loops."""

import keras
import numpy as np
import pytest
import reference
from autodiff import BACKEND, DOUBLE, DTYPE, agrees, differentiated

from keras_metric import losses
from keras_metric.models import EmbeddingModel

# Classes of 6, 4, 3, 2 and a singleton, in no order.
LABELS = np.array([3, 0, 3, 7, 1, 1, 3, 0, 3, 9, 1, 3, 0, 3, 7, 1])


@pytest.fixture(autouse=True)
def _precision():
    keras.config.set_floatx(DTYPE)


def rows(seed, size=16, dim=5):
    return 0.7 * np.random.default_rng(seed).normal(size=(size, dim)) + 0.1


def views(seed, size=9, dim=4):
    """Two views of each item that resemble each other."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(size, dim))
    return np.stack([first, first + 0.8 * rng.normal(size=first.shape)], axis=1)


def number(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def double(loss_class, **settings):
    return loss_class(dtype=DTYPE, **settings)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


# Two views ------------------------------------------------------------------------------------


def vicreg(x, invariance_lambda=25, variance_mu=25, covariance_v=1, eps=1e-4):
    """The paper's terms, with the factors of the authors' code."""
    n, _, dim = x.shape
    value = invariance_lambda * sum(((v[0] - v[1]) ** 2).sum() for v in x) / n / dim
    for z in (x[:, 0], x[:, 1]):
        mean = [sum(z[:, j]) / n for j in range(dim)]
        for j in range(dim):
            variance = sum((z[i, j] - mean[j]) ** 2 for i in range(n)) / (n - 1)
            value += variance_mu * max(1 - np.sqrt(variance + eps), 0) / dim / 2
            for k in range(dim):
                if k != j:
                    products = [(z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(n)]
                    value += covariance_v * (sum(products) / (n - 1)) ** 2 / dim
    return value


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_vicreg_equals_loops(scale):
    x = scale * views(1)
    agrees(lambda z: double(losses.VICRegLoss)(None, z), vicreg, x)
    settings = {
        "invariance_lambda": 2.0,
        "variance_mu": 7.0,
        "covariance_v": 3.0,
        "eps": 0.1,
    }
    loss = double(losses.VICRegLoss, **settings)
    agrees(lambda z: loss(None, z), lambda z: vicreg(z, **settings), x)


def barlow_twins(x, weight=0.0051, eps=1e-5):
    n, _, dim = x.shape
    first, second = ((z - z.mean(0)) / np.sqrt(z.var(0) + eps) for z in (x[:, 0], x[:, 1]))
    value = 0.0
    for i in range(dim):
        for j in range(dim):
            c = sum(first[b, i] * second[b, j] for b in range(n)) / n
            value += (1 - c) ** 2 if i == j else weight * c**2
    return value


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_barlow_twins_equals_loops(scale):
    x = scale * views(2)
    agrees(lambda z: double(losses.BarlowTwinsLoss)(None, z), barlow_twins, x)
    loss = double(losses.BarlowTwinsLoss, redundancy_weight=0.7, eps=0.2)
    agrees(lambda z: loss(None, z), lambda z: barlow_twins(z, 0.7, 0.2), x)


def test_barlow_twins_of_correlations():
    """With a negligible epsilon, C is NumPy's correlation matrix (equation 2 of the paper)."""
    x = views(3, size=30)
    c = np.corrcoef(x[:, 0], x[:, 1], rowvar=False)[:4, 4:]
    expected = ((1 - np.diag(c)) ** 2).sum() + 0.5 * (c**2).sum() - 0.5 * (np.diag(c) ** 2).sum()
    found = losses.BarlowTwinsLoss(redundancy_weight=0.5, eps=1e-12)(None, x)
    np.testing.assert_allclose(number(found), expected, rtol=1e-5)


def built(loss, dim=4):
    for layer in loss.layers:
        layer.build((None, dim))
    return loss


def test_sim_siam_equals_loops():
    loss = built(double(losses.SimSiamLoss), dim=8)
    weights = loss.network.get_weights()
    assert [w.shape for w in weights] == [(8, 2), (2,), (2,), (2, 8), (8,)]
    # Biases that are not zero, as after some training.
    weights = [
        w + 0.1 * np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(weights)
    ]
    loss.network.set_weights(weights)
    down, scale, shift, up, bias = loss.network.get_weights()
    x = views(4, dim=8)
    constant = x.copy()

    def predicted(z):
        h = z @ down
        h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
        return np.maximum(h * scale + shift, 0) @ up + bias

    def oracle(z):
        # The targets have no gradient: only the predictions depend on `z`.
        first, second = predicted(z[:, 0]), predicted(z[:, 1])
        terms = [
            (1 - cosine(p, w[1]) + 1 - cosine(q, w[0])) / 2
            for p, q, w in zip(first, second, constant)
        ]
        return np.mean(terms)

    agrees(lambda z: loss(None, z), oracle, x)


def test_sim_siam_weighs_items():
    loss = built(losses.SimSiamLoss(reduction="none"))
    x = views(5)
    each = keras.ops.convert_to_numpy(loss(None, x))
    assert each.shape == (9,)
    loss.reduction = "mean_valid"
    weights = np.arange(9.0)
    found = number(loss(None, x, sample_weight=weights))
    assert found == pytest.approx((weights * each).sum() / weights.sum(), rel=1e-5)


def test_an_unbuilt_predictor_raises():
    with pytest.raises(ValueError, match="(?s)predictor.*EmbeddingModel.*build"):
        losses.SimSiamLoss()(None, views(0))
    with pytest.raises(TypeError, match="`predictor` must be a Keras layer"):
        losses.SimSiamLoss(predictor=lambda x: x)


def own_predictor():
    return keras.Sequential(
        [
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(4),
        ]
    )


# Keras warns about a model that is saved before the first step of its optimizer.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("predictor", [None, own_predictor], ids=["default", "own"])
def test_the_predictor_is_trained_and_saved(predictor):
    keras.config.set_floatx("float32")
    model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
    loss = losses.SimSiamLoss(predictor and predictor())
    # Compile one of them only: it takes ten times as long as these steps.
    eager = {"run_eagerly": predictor is None and BACKEND != "jax"}
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, **eager)
    x = views(6, size=16, dim=5).astype("float32")
    pairs = {"first": x[:, 0], "second": x[:, 1]}
    model(pairs)
    before = [w + 0 for w in model.loss_layers.get_weights()]
    assert len(before) == (5 if predictor is None else 8)
    model.fit(pairs, batch_size=8, epochs=2, shuffle=False, verbose=0)
    after = model.loss_layers.get_weights()
    # This includes the moving averages of the batch normalization.
    assert all((a != b).any() for a, b in zip(before, after))

    model.save("model.keras")
    again = keras.models.load_model("model.keras")
    assert type(again.loss) is losses.SimSiamLoss
    assert (again.loss.predictor is None) == (predictor is None)
    for a, b in zip(after, again.loss_layers.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    histories = [
        m.fit(pairs, batch_size=8, epochs=2, shuffle=False, verbose=0).history
        for m in (model, again)
    ]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-5)


TWO_VIEWS = {
    "VICReg": losses.VICRegLoss,
    "Barlow Twins": losses.BarlowTwinsLoss,
    "SimSiam": lambda: built(losses.SimSiamLoss()),
    "CLIP": losses.ClipLoss,
    "SigLIP": losses.SigLipLoss,
    "cosine regression": losses.CosineRegressionLoss,
}
# Labels that a model passes without y: each item is a class of its own.
NO_Y = np.arange(9, dtype="int32")


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_two_views_and_no_others(name):
    loss = TWO_VIEWS[name]()
    for count in (1, 3):
        with pytest.raises(ValueError, match=rf"\(batch, 2, dim\).*Received {count} branches"):
            loss(np.arange(4), np.ones((4, count, 4), "float32"))
    with pytest.raises(ValueError, match="ready-made tuples"):
        loss(np.zeros(4, "int32"), np.ones((4, 4), "float32"))


# The contract tests have more degenerate batches, of all losses.
ODD_VIEWS = {
    "one view zero": lambda x: x * np.array([0, 1]).reshape(1, 2, 1),
    "all tiny": lambda x: 1e-20 * x,
    "a constant dimension": lambda x: x * np.array([1, 0, 1, 1]),
}


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_odd_views_are_finite(name):
    loss = TWO_VIEWS[name]()
    run = differentiated(lambda z: loss(NO_Y, z), jit=BACKEND == "jax")
    for batch, change in ODD_VIEWS.items():
        value, gradient = run(change(views(7)).astype("float32"))
        assert np.isfinite(value) and np.isfinite(gradient).all(), batch


def test_wrong_weights_of_terms_raise():
    for name in ("invariance_lambda", "variance_mu", "covariance_v"):
        with pytest.raises(ValueError, match=f"`{name}` must be at least 0"):
            losses.VICRegLoss(**{name: -1})
    with pytest.raises(ValueError, match="`redundancy_weight` must be at least 0"):
        losses.BarlowTwinsLoss(-1)
    with pytest.raises(ValueError, match="has no rows that `sample_weight`"):
        losses.VICRegLoss()(None, views(0), sample_weight=np.ones(9))


# Pairs of two sides -----------------------------------------------------------------------------


def same_label(y, i, j):
    """Whether items i and j are a positive pair: ids, or rows of 0 and 1."""
    return i == j or (y[i] @ y[j] > 0 if y.ndim == 2 else y[i] == y[j])


def clip(x, y, temperature):
    """Cross-entropy of both directions; several positives have equal targets."""
    n, value = len(x), 0.0
    for first, second in ((0, 1), (1, 0)):
        for i in range(n):
            s = [cosine(x[i, first], x[j, second]) / temperature for j in range(n)]
            p = np.exp(s) / np.exp(s).sum()
            mine = [j for j in range(n) if same_label(y, i, j)]
            value -= sum(np.log(p[j]) for j in mine) / len(mine) / n / 2
    return value


def sig_lip(x, y, temperature, bias):
    n, value = len(x), 0.0
    for i in range(n):
        for j in range(n):
            z = 1 if same_label(y, i, j) else -1
            value += np.log(1 + np.exp(-z * (cosine(x[i, 0], x[j, 1]) / temperature + bias))) / n
    return value


SIDES = {
    "all different": np.arange(9),
    "some the same": np.array([4, 2, 4, 0, 1, 4, 2, 7, 9]),
    "one class": np.zeros(9, "int64"),
    "multi-hot, one row empty": np.eye(5, dtype="int64")[[0, 1, 2, 3, 4, 0, 1, 2, 3]]
    + np.eye(5, dtype="int64")[[1, 1, 0, 3, 4, 0, 2, 2, 0]]
    > 0,
}


@pytest.mark.parametrize("case", SIDES)
def test_clip_and_sig_lip_equal_loops(case):
    y, x = SIDES[case].astype("int32"), views(10)
    settings = {"labels": "multi_hot"} if y.ndim == 2 else {}
    if y.ndim == 2:
        # The two branches of an item without a label are still a positive pair.
        y[4] = 0
    loss = double(losses.ClipLoss, temperature=0.3, **settings)
    agrees(lambda z: loss(y, z), lambda z: clip(z, y, 0.3), x)
    loss = double(losses.SigLipLoss, temperature=0.4, bias=-1.5, **settings)
    agrees(lambda z: loss(y, z), lambda z: sig_lip(z, y, 0.4, -1.5), x)


def test_clip_of_itself_is_nt_xent_over_half_the_positives():
    """For distinct items one direction is InfoNCE: log-softmax of the diagonal."""
    x = views(11)
    a, b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x[:, 0], x[:, 1]))
    s = a @ b.T / 0.5
    each = (np.logaddexp.reduce(s, 1) + np.logaddexp.reduce(s, 0) - 2 * np.diag(s)) / 2
    loss = losses.ClipLoss(temperature=0.5)
    assert number(loss(np.arange(9), x)) == pytest.approx(each.mean(), rel=1e-5)
    weights = np.array([0, 1, 2, 0.5, 3, 1, 1, 0, 2])
    found = number(loss(np.arange(9), x, sample_weight=weights))
    assert found == pytest.approx((weights * each).sum() / weights.sum(), rel=1e-5)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, 5.0), (-2.0, 3.0)])
def test_cosine_regression_equals_loops(bounds):
    low, high = bounds
    x, y = views(12), np.random.default_rng(0).uniform(low, high, size=9)

    def oracle(z):
        terms = [(cosine(*v) - (t - low) / (high - low)) ** 2 for v, t in zip(z, y)]
        return sum(terms) / len(terms)

    loss = double(losses.CosineRegressionLoss, y_min=low, y_max=high)
    agrees(lambda z: loss(y, z), oracle, x)
    agrees(lambda z: loss(y[:, None], z), oracle, x)


def test_scores_may_be_integers_and_bounds_must_be_in_order():
    x, y = views(13), np.arange(9) % 6
    loss = losses.CosineRegressionLoss(y_max=5)
    assert number(loss(y, x)) == pytest.approx(number(loss(y.astype("float32"), x)))
    with pytest.raises(ValueError, match="`y_max` must be greater than y_min=2.0"):
        losses.CosineRegressionLoss(y_min=2.0, y_max=2.0)


@pytest.mark.parametrize("positive_label", [0, 1])
def test_ready_made_pairs_of_the_signal_to_noise_ratio(positive_label):
    x, same = views(23), np.array([1, 0, 0, 1, 1, 0, 1, 0, 0])

    def snr(a, b):
        return np.var(a - b) / np.var(a)

    def oracle(z):
        pull = [snr(*v) for v, s in zip(z, same) if s]
        push = [max(2.0 - snr(*v), 0) for v, s in zip(z, same) if not s]
        zero = [0.2 * abs(a.sum()) for v in z for a in v]
        active = [p for p in push if p > 0]
        return np.mean(pull) + sum(active) / len(active) + np.mean(zero)

    loss = double(
        losses.SignalToNoiseRatioLoss,
        margin=2.0,
        zero_mean_weight=0.2,
        positive_label=positive_label,
    )
    y = same if positive_label else 1 - same
    agrees(lambda z: loss(y, z), oracle, x)


# Published numbers ------------------------------------------------------------------------------

ANGLES = np.deg2rad([0, 20, 40, 60, 80])


def test_golden_value_of_vicreg():
    k = np.arange(12)
    w = ((((37 * k) % 11) - 5) / 5 + 0.013 * k).reshape(4, 3)
    x = np.stack([w, 0.9 * w + 0.05], axis=1).astype(DTYPE)
    found = number(double(losses.VICRegLoss)(None, x))
    assert found == pytest.approx(13.3728386599, rel=1e-9 if DOUBLE else 1e-5)


def test_golden_value_of_nt_xent_on_views():
    """SelfSupervisedLoss of the peer: symmetric, and one direction."""
    first, second = (
        np.stack([np.cos(a), np.sin(a)], axis=1).astype(DTYPE)
        for a in (ANGLES, ANGLES + np.deg2rad(5))
    )
    loss = double(losses.NTXentLoss, temperature=0.5)
    found = number(loss(np.arange(5), np.stack([first, second], axis=1)))
    assert found == pytest.approx(1.8019220807, rel=1e-9 if DOUBLE else 1e-5)
    found = number(loss.against(np.arange(5), first, np.arange(5), second))
    assert found == pytest.approx(1.2612204823, rel=1e-9 if DOUBLE else 1e-5)


# Means of classes -------------------------------------------------------------------------------


def prototypical(x, y, shots=None, metric="squared_euclidean", references=(None, None)):
    others, labels = references
    terms = []
    for i in range(len(x)):
        logits = {}
        for c in set(y if labels is None else labels):
            if others is not None:
                members = [others[j] for j in range(len(others)) if labels[j] == c]
            else:
                members = [j for j in range(len(x)) if y[j] == c]
                if shots is None:
                    members = [j for j in members if j != i]
                elif i in members[:shots]:
                    logits = None
                    break
                members = [x[j] for j in members[:shots]]
            if members:
                logits[c] = -reference.distance(x[i], np.mean(members, axis=0), metric)
        if logits and y[i] in logits:
            terms.append(np.logaddexp.reduce(list(logits.values())) - logits[y[i]])
    return np.mean(terms) if terms else 0.0


@pytest.mark.parametrize("metric", ["squared_euclidean", "euclidean", "cosine"])
@pytest.mark.parametrize("shots", [None, 1, 2, 4])
def test_prototypical_equals_loops(shots, metric):
    loss = double(losses.PrototypicalLoss, shots=shots, distance=metric)
    x = 2 * rows(30)
    agrees(lambda z: loss(LABELS, z), lambda z: prototypical(z, LABELS, shots, metric), x)


@pytest.mark.parametrize("shots", [None, 2])
def test_prototypical_against_references_equals_loops(shots):
    x, others = rows(31, 8), rows(32)
    # -2, 5 and 11 have no reference: before, between and after the others.
    y = np.array([3, 0, 1, 9, 5, 3, 11, -2])
    loss = double(losses.PrototypicalLoss, shots=shots)
    agrees(
        lambda z: loss.against(y, z, LABELS, others.astype(DTYPE)),
        lambda z: prototypical(z, y, references=(others, LABELS)),
        x,
    )


def test_prototypical_without_queries():
    """The loss is 0 if all items are support."""
    loss = losses.PrototypicalLoss(shots=6)
    run = differentiated(lambda z: loss(LABELS, z), jit=BACKEND == "jax")
    value, gradient = run(rows(33).astype("float32"))
    assert value == 0 and not gradient.any()


def test_shots_are_counted():
    with pytest.raises(ValueError, match="`shots` must be at least 1"):
        losses.PrototypicalLoss(shots=0)


# Random walks -----------------------------------------------------------------------------------


def manifold(x, proxies, meta, weight, alpha, margin):
    """The formulas of the paper, with explicit walks instead of the inverse matrix."""
    nodes, n = np.concatenate([x, proxies]), len(x)
    count = len(nodes)
    s = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if i != j:
                s[i, j] = np.exp(max(cosine(nodes[i], nodes[j]), 0) / 0.5)
    degree = s.sum(1)
    steps = np.array(
        [[s[i, j] / np.sqrt(degree[i] * degree[j]) for j in range(count)] for i in range(count)]
    )
    walks, power = np.zeros_like(s), (1 - alpha) * np.eye(count)
    while abs(power).max() > 1e-14:
        walks, power = walks + power, alpha * power @ steps

    def term(similarity, own):
        gaps = [s - similarity[own] + margin for k, s in enumerate(similarity) if k != own]
        return np.log(1 + sum(np.exp(g) for g in gaps if g >= 0))

    value = 0.0
    for i in range(n):
        alike = [cosine(walks[i], walks[n + k]) for k in range(len(proxies))]
        value += term(walks[i, n:], meta[i]) + weight * term(alike, meta[i])
    return value / n


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_manifold_equals_loops(weight):
    settings = {"num_proxies": 5, "context_weight": weight, "alpha": 0.7, "margin": 0.02}
    loss = double(losses.ManifoldLoss, embedding_dim=5, meta_classes="labels", **settings)
    proxies = loss.proxies.get_weights()[0]
    meta = LABELS % 5
    agrees(
        lambda z: loss(LABELS, z), lambda z: manifold(z, proxies, meta, weight, 0.7, 0.02), rows(40)
    )


def test_manifold_assigns_proxies_equally_often():
    loss = losses.ManifoldLoss(embedding_dim=4, num_proxies=5, seed=3)
    assigned = [keras.ops.convert_to_numpy(loss.proxies.assigned(12)) for _ in range(3)]
    for meta in assigned:
        assert sorted(np.bincount(meta, minlength=5)) == [2, 2, 2, 3, 3]
    assert (assigned[0] != assigned[1]).any() and (assigned[1] != assigned[2]).any()
    again = losses.ManifoldLoss(embedding_dim=4, num_proxies=5, seed=3)
    np.testing.assert_array_equal(
        assigned[0], keras.ops.convert_to_numpy(again.proxies.assigned(12))
    )
    # With fewer items than proxies some proxies have none.
    few = keras.ops.convert_to_numpy(loss.proxies.assigned(3))
    assert len(set(few)) == 3 and few.max() < 5


def test_manifold_trains_its_proxies_without_labels():
    keras.config.set_floatx("float32")
    model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
    model.compile(keras.optimizers.SGD(0.1), losses.ManifoldLoss(num_proxies=3, seed=0))
    x = rows(41).astype("float32")
    model(x)
    before = model.loss_layers.get_weights()[0] + 0
    model.fit(x, batch_size=8, verbose=0)
    after = model.loss_layers.get_weights()[0]
    assert before.shape == (3, 4) and (before != after).any(axis=1).all()
    again = type(model).from_config(model.get_config())
    again.compile_from_config(model.get_compile_config())
    assert again.loss.get_config() == model.loss.get_config()


@pytest.mark.parametrize("broken", ["items", "proxies"])
def test_manifold_of_nan_is_nan(broken):
    loss, x = losses.ManifoldLoss(embedding_dim=5, num_proxies=3), rows(43).astype("float32")
    if broken == "items":
        x[2] = np.nan
    else:
        loss.proxies.set_weights([np.full((3, 5), np.nan)])
    assert np.isnan(number(loss(LABELS, x)))


def test_manifold_raises():
    x = rows(42).astype("float32")
    with pytest.raises(ValueError, match="manifold_proxies.*EmbeddingModel"):
        losses.ManifoldLoss()(LABELS, x)
    with pytest.raises(ValueError, match="takes no reference set"):
        losses.ManifoldLoss(embedding_dim=5).against(LABELS, x, LABELS, x)
    with pytest.raises(ValueError, match="`alpha` must be less than 1"):
        losses.ManifoldLoss(alpha=1.0)
    model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=4)
    with pytest.raises(ValueError, match="embeddings of length 5.*embeddings of length 4"):
        model.compile("sgd", losses.ManifoldLoss(embedding_dim=5))
    model.compile("sgd", losses.ManifoldLoss(meta_classes="labels"))
    with pytest.raises(ValueError, match="needs integer class ids"):
        model.fit(x, verbose=0)
