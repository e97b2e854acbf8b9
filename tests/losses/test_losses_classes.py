"""Losses with class vectors, compared with loops in NumPy."""

import keras
import numpy as np
import pytest
from autodiff import step_by_step, value_and_gradient

from keras_metric import losses
from keras_metric.data import BalancedBatches
from keras_metric.layers import PairMiner
from keras_metric.models import EmbeddingModel, SiameseModel

BACKEND = keras.backend.backend()
DTYPE = "float64" if BACKEND == "tensorflow" else "float32"
TIGHT = 1e-9 if DTYPE == "float64" else 2e-4

CLASSES, DIM, EACH = 5, 4, 3
LABELS = np.array([2, 0, 2, 4, 1, 2, 0, 1, 2])
X = 0.9 * np.random.default_rng(0).normal(size=(9, DIM)) + 0.1


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax_term(logits, own):
    return np.log(np.sum(np.exp(logits - logits[own]), dtype="float64"))


def mean_of_terms(logits_of):
    """Loop: the mean of -log softmax over items, with the logits of `logits_of`."""

    def loop(x, y, w):
        return np.mean([softmax_term(logits_of(x[i], y[i], w), y[i]) for i in range(len(x))])

    return loop


def normalized(x, own, w):
    return np.array([unit(x) @ unit(c) / 0.3 for c in w])


def arc(margin, scale):
    def logits(x, own, w):
        result = []
        for c in range(len(w)):
            angle = np.arccos(unit(x) @ unit(w[c]))
            if c != own:
                result.append(np.cos(angle))
            elif angle + np.radians(margin) <= np.pi:
                result.append(np.cos(angle + np.radians(margin)))
            else:
                result.append(np.cos(angle) - np.radians(margin) * np.sin(np.radians(margin)))
        return scale * np.array(result)

    return logits


def cos_face(x, own, w):
    return 7 * np.array([unit(x) @ unit(c) - 0.2 * (i == own) for i, c in enumerate(w)])


def psi(angle, margin):
    turn = min(int(margin * angle / np.pi), margin - 1)
    return (-1) ** turn * np.cos(margin * angle) - 2 * turn


def large_margin(margin, of_weight, multiple, blend=0.0):
    def logits(x, own, w):
        result = []
        for i, c in enumerate(w):
            angle = np.arccos(np.clip(unit(x) @ unit(c), -1, 1))
            value = np.cos(angle)
            if i == own:
                value = (blend * value + multiple(angle, margin)) / (blend + 1)
            length = np.linalg.norm(c) if of_weight else 1
            result.append(1.3 * np.linalg.norm(x) * length * value)
        return np.array(result)

    return logits


def plain_multiple(angle, margin):
    return np.cos(margin * angle)


def sub_centers(x, own, w):
    best = [max(unit(x) @ unit(v) for v in group) for group in w.reshape(CLASSES, EACH, DIM)]
    angles = np.arccos(best)
    return 6 * np.array([np.cos(a + 0.4 * (i == own)) for i, a in enumerate(angles)])


def soft_triple(x, own, w):
    result = []
    for i, group in enumerate(w.reshape(CLASSES, EACH, DIM)):
        cosine = np.array([unit(x) @ unit(v) for v in group])
        weights = np.exp(cosine / 0.2) / np.exp(cosine / 0.2).sum()
        result.append(5 * (weights @ cosine - 0.03 * (i == own)))
    return np.array(result)


def soft_triple_with_centers(x, y, w):
    gaps = []
    for group in unit(w).reshape(CLASSES, EACH, DIM):
        gaps += [np.linalg.norm(group[t] - group[s]) for t in range(EACH) for s in range(t)]
    return mean_of_terms(soft_triple)(x, y, w) + 0.2 * np.sum(gaps) / (CLASSES * EACH * (EACH - 1))


def proxy_nca(x, own, w):
    return -3 * np.array([np.sum((x - unit(c)) ** 2) for c in w])


def proxy_nca_of_others(x, y, w):
    terms = []
    for i in range(len(x)):
        logits = proxy_nca(x[i], y[i], w)
        others = np.delete(logits, y[i])
        terms.append(np.log(np.exp(others).sum()) - logits[y[i]])
    return np.mean(terms)


def proxy_anchor(x, y, w):
    pull, push = [], []
    for c in range(len(w)):
        cosine = np.array([unit(row) @ unit(w[c]) for row in x])
        if (y == c).any():
            pull.append(np.log1p(np.exp(-4 * (cosine[y == c] - 0.2)).sum()))
        push.append(np.log1p(np.exp(4 * (cosine[y != c] + 0.2)).sum()))
    return np.mean(pull) + np.mean(push)


def p2s_grad(x, y, w):
    return np.mean([[(unit(x[i]) @ unit(w[c]) - (c == y[i])) ** 2 for c in range(len(w))]
                    for i in range(len(x))])  # fmt: skip


def center(x, y, w):
    return np.mean([np.sum((x[i] - w[y[i]]) ** 2) / 2 for i in range(len(x))])


def ada_face(x, y, w):
    norms = np.clip(np.linalg.norm(x, axis=1), 1e-3, 100)
    mean = 0.3 * norms.mean() + 0.7 * 20
    deviation = 0.3 * norms.std(ddof=1) + 0.7 * 100
    terms = []
    for i in range(len(x)):
        quality = np.clip(0.5 * (norms[i] - mean) / (deviation + 1e-3), -1, 1)
        cosine = np.clip([unit(x[i]) @ unit(c) for c in w], -1 + 1e-3, 1 - 1e-3)
        angle = np.clip(np.arccos(cosine[y[i]]) - 0.3 * quality, 1e-3, np.pi - 1e-3)
        cosine[y[i]] = np.cos(angle) - (0.3 + 0.3 * quality)
        terms.append(softmax_term(6 * cosine, y[i]))
    return np.mean(terms)


CASES = {
    "normalized softmax": (
        lambda: losses.NormalizedSoftmaxLoss(CLASSES, 0.3),
        mean_of_terms(normalized),
    ),
    "ArcFace": (lambda: losses.ArcFaceLoss(CLASSES, 20, 5), mean_of_terms(arc(20, 5))),
    "ArcFace, beyond 180 degrees": (
        lambda: losses.ArcFaceLoss(CLASSES, 120, 5),
        mean_of_terms(arc(120, 5)),
    ),
    "CosFace": (lambda: losses.CosFaceLoss(CLASSES, 0.2, 7), mean_of_terms(cos_face)),
    "large margin softmax": (
        lambda: losses.LargeMarginSoftmaxLoss(CLASSES, 3, 1.3),
        mean_of_terms(large_margin(3, True, psi)),
    ),
    "SphereFace": (
        lambda: losses.SphereFaceLoss(CLASSES, 4, 1.3),
        mean_of_terms(large_margin(4, False, psi)),
    ),
    "SphereFace, blended": (
        lambda: losses.SphereFaceLoss(CLASSES, 4, 1.3, blend=5),
        mean_of_terms(large_margin(4, False, psi, 5)),
    ),
    "SphereFace, margin of 1": (
        lambda: losses.SphereFaceLoss(CLASSES, 1, 1.3),
        mean_of_terms(large_margin(1, False, plain_multiple)),
    ),
    "sub-center ArcFace": (
        lambda: losses.SubCenterArcFaceLoss(CLASSES, np.degrees(0.4), 6, EACH),
        mean_of_terms(sub_centers),
    ),
    "SoftTriple": (
        lambda: losses.SoftTripleLoss(CLASSES, EACH, 5, 0.2, 0.03),
        mean_of_terms(soft_triple),
    ),
    "SoftTriple with regularizer": (
        lambda: losses.SoftTripleLoss(CLASSES, EACH, 5, 0.2, 0.03, regularization_weight=0.2),
        soft_triple_with_centers,
    ),
    "Proxy-NCA": (lambda: losses.ProxyNCALoss(CLASSES, 3.0), mean_of_terms(proxy_nca)),
    "Proxy-NCA of others": (
        lambda: losses.ProxyNCALoss(CLASSES, 3.0, denominator="others"),
        proxy_nca_of_others,
    ),
    "Proxy-Anchor": (lambda: losses.ProxyAnchorLoss(CLASSES, 0.2, 4), proxy_anchor),
    "P2SGrad": (lambda: losses.P2SGradLoss(CLASSES), p2s_grad),
    "center": (lambda: losses.CenterLoss(CLASSES), center),
    "AdaFace": (lambda: losses.AdaFaceLoss(CLASSES, 0.3, 0.5, 6, 0.3), ada_face),
}
# Losses whose gradient treats a part of the formula as a constant.
CONSTANT_PART = ("AdaFace",)


def with_vectors(make, seed=1):
    """The loss of `make` with random class vectors, and these vectors."""
    loss = make()
    for layer in loss.layers:
        layer.build((None, DIM))
    shape = tuple(loss.proxies.vectors.shape)
    vectors = np.random.default_rng(seed).normal(size=shape)
    loss.proxies.vectors.assign(vectors.astype(DTYPE))
    return loss, vectors


@pytest.fixture(autouse=True)
def double():
    keras.config.set_floatx(DTYPE)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_equal_those_of_a_loop(case):
    make, loop = CASES[case]
    loss, vectors = with_vectors(make)
    value, gradient = value_and_gradient(lambda z: loss(LABELS, z), X.astype(DTYPE))
    assert float(value) == pytest.approx(loop(X, LABELS, vectors), rel=TIGHT)
    if case in CONSTANT_PART:
        return
    step = 1e-6 if DTYPE == "float64" else 1e-3
    tolerance = 1e-5 if DTYPE == "float64" else 2e-2
    rng = np.random.default_rng(2)
    for along in rng.normal(size=(3, *X.shape)):
        up, down = (loop(X + sign * step * along, LABELS, vectors) for sign in (1, -1))
        assert (gradient * along).sum() == pytest.approx(
            (up - down) / (2 * step), rel=tolerance, abs=tolerance
        )


@pytest.mark.parametrize("case", [case for case in CASES if case != "center"])
def test_the_class_vectors_get_their_gradient(case):
    make, loop = CASES[case]
    loss, vectors = with_vectors(make)

    def of_vectors(w):
        with keras.StatelessScope([(loss.proxies.vectors, w)]):
            return loss(LABELS, X.astype(DTYPE))

    _, gradient = value_and_gradient(of_vectors, vectors.astype(DTYPE))
    step = 1e-6
    tolerance = 1e-5 if DTYPE == "float64" else 1e-3
    for along in np.random.default_rng(3).normal(size=(3, *vectors.shape)):
        up, down = (loop(X, LABELS, vectors + sign * step * along) for sign in (1, -1))
        assert (gradient * along).sum() == pytest.approx(
            (up - down) / (2 * step), rel=tolerance, abs=tolerance
        )


def test_a_classifier_has_no_margin():
    loss, vectors = with_vectors(lambda: losses.ArcFaceLoss(CLASSES, 40, 5))
    found = keras.ops.convert_to_numpy(loss.logits(X.astype(DTYPE)))
    np.testing.assert_allclose(found, 5 * unit(X) @ unit(vectors).T, rtol=1e-4)


def test_psi_decreases():
    from keras_metric.losses.classification.large_margin_softmax_loss import decreasing_cosine

    angles = np.linspace(0.01, np.pi - 0.01, 400)
    for margin in (1, 2, 3, 4, 5):
        found = keras.ops.convert_to_numpy(
            decreasing_cosine(keras.ops.convert_to_tensor(np.cos(angles)), margin)
        )
        expected = [psi(angle, margin) for angle in angles]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)
        assert (np.diff(found) < 1e-6).all()


class TestSubCenters:
    def test_outliers_and_dominant_vectors(self):
        loss, vectors = with_vectors(lambda: losses.SubCenterArcFaceLoss(CLASSES, sub_centers=EACH))
        rng = np.random.default_rng(4)
        labels = rng.integers(0, CLASSES - 1, 60)
        x = rng.normal(size=(60, DIM))
        far, dominant = [], []
        groups = vectors.reshape(CLASSES, EACH, DIM)
        for c in range(CLASSES):
            mine = np.flatnonzero(labels == c)
            cosine = np.array([[unit(x[i]) @ unit(v) for v in groups[c]] for i in mine])
            votes = np.bincount(cosine.argmax(1), minlength=EACH) if len(mine) else [1, 0, 0]
            best = int(np.argmax(votes))
            dominant.append(groups[c][best])
            far += [i for i, row in zip(mine, cosine) if np.degrees(np.arccos(row[best])) > 60]
        found, centers = loss.outliers(x, labels, threshold=60)
        assert found.tolist() == sorted(far) and 0 < len(far) < 60
        np.testing.assert_allclose(centers, dominant, rtol=1e-6)

    def test_wrong_input(self):
        loss, _ = with_vectors(lambda: losses.SubCenterArcFaceLoss(CLASSES))
        with pytest.raises(
            ValueError, match=r"one label each\. Received: embeddings.shape=\(9, 4\)"
        ):
            loss.outliers(X, LABELS[:3])
        with pytest.raises(ValueError, match="ids must run from 0 to 4"):
            loss.outliers(X, LABELS + 3)


def model_of(loss, **settings):
    keras.utils.set_random_seed(0)
    model = EmbeddingModel(keras.layers.Dense(6), embedding_dim=DIM, **settings)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


@pytest.mark.touches_keras
@pytest.mark.parametrize(
    "name", ["NPairsLoss", "InstanceLoss", "DynamicSoftMarginLoss", "NTXentLoss"]
)
def test_one_label_for_all_pairs_raises(name):
    loss = getattr(losses, name)()
    for layer in loss.layers:
        layer.build((None, 3))
    with pytest.raises(ValueError, match=r"one label. Received: y_true.shape=\(1,\)"):
        loss([0], np.random.default_rng(0).normal(size=(4, 2, 3)).astype("float32"))


@pytest.mark.parametrize("number", [1, 3])
def test_a_miner_requires_one_label_per_item(number):
    with pytest.raises(ValueError, match="one id for each"):
        PairMiner("all")(np.zeros((4, 2), "float32"), labels=np.zeros(number, "int32"))


def test_negative_terms_are_averaged_too():
    x, y = X.astype("float32"), LABELS % CLASSES
    values = []
    for reduction in ("mean_active", "mean_valid"):
        loss = losses.ProxyNCALoss(
            CLASSES, denominator="others", embedding_dim=DIM, reduction=reduction
        )
        loss.proxies.vectors.assign(np.arange(CLASSES * DIM, dtype="float32").reshape(CLASSES, DIM))
        values.append(float(loss(y, 3 * x)))
    assert values[0] == pytest.approx(values[1])


def test_logits_of_half_precision_and_of_integers():
    loss = losses.SphereFaceLoss(3, embedding_dim=4)
    x = 400 * np.eye(4)[:2]
    exact, found = (
        keras.ops.convert_to_numpy(loss.logits(x.astype(dtype))) for dtype in ("float32", "float16")
    )
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    with pytest.raises(ValueError, match="must be floating point"):
        loss.logits(x.astype("int32"))


class TestCenters:
    def test_stay_frozen_in_a_model_that_is_unfrozen(self):
        model = model_of(losses.CenterLoss(CLASSES), normalize=False)
        model.train_on_batch(X.astype("float32"), LABELS)
        model.trainable = False
        model.trainable = True
        assert not [v.path for v in model.trainable_variables if "center" in v.path]
        assert len(model.trainable_variables) > 0

    def test_report_no_distance_to_other_classes(self):
        model = model_of(losses.CenterLoss(CLASSES), normalize=False, train_health=True)
        logs = model.fit(X.astype("float32"), LABELS % CLASSES, verbose=0).history
        assert "positive_distance" in logs and "negative_distance" not in logs

    def test_are_updated_in_training_only(self):
        model = model_of(losses.CenterLoss(CLASSES, alpha=0.4), normalize=False)
        x = X.astype("float32")
        z = model.predict(x, verbose=0)
        model.evaluate(x, LABELS, verbose=0)
        assert not model.loss.class_vectors.any()
        model.train_on_batch(x, LABELS)
        expected = np.zeros((CLASSES, DIM))
        for c in range(CLASSES):
            mine = z[c == LABELS]
            expected[c] = 0.4 * mine.sum(0) / (1 + len(mine))
        np.testing.assert_allclose(model.loss.class_vectors, expected, rtol=1e-4, atol=1e-6)

    def test_ada_face_updates_its_statistics(self):
        model = model_of(losses.AdaFaceLoss(CLASSES, t_alpha=0.25), normalize=False)
        x = X.astype("float32")
        norms = np.linalg.norm(model.predict(x, verbose=0), axis=1)
        model.evaluate(x, LABELS, verbose=0)
        state = model.loss.running
        assert float(state.mean.numpy()) == 20 and float(state.deviation.numpy()) == 100
        model.train_on_batch(x, LABELS)
        assert float(state.mean.numpy()) == pytest.approx(15 + norms.mean() / 4, rel=1e-5)
        assert float(state.deviation.numpy()) == pytest.approx(75 + norms.std(ddof=1) / 4, rel=1e-5)


class Source(keras.utils.PyDataset):
    """One batch."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X.astype("float32"), LABELS.astype("int32")


class TestInvalidIds:
    """A class id outside 0 to num_classes - 1 raises as early as it can be detected."""

    def test_in_a_call(self):
        for loss in (
            losses.ArcFaceLoss(4, embedding_dim=DIM),
            losses.ProxyAnchorLoss(4, embedding_dim=DIM),
        ):
            with pytest.raises(
                ValueError, match=r"ids must run from 0 to 3\. Received ids from 0 to 4"
            ):
                loss(LABELS, X)
            with pytest.raises(ValueError, match="Received ids from -1 to 0"):
                loss(np.array([-1, 0]), X[:2])

    @pytest.mark.parametrize("make", [losses.ArcFaceLoss, losses.ProxyAnchorLoss])
    def test_in_a_traced_step_the_loss_is_nan_without_a_gradient(self, make):
        loss, _ = with_vectors(lambda: make(CLASSES))
        labels = keras.ops.convert_to_tensor(np.where(LABELS == 4, 9, LABELS), "int32")
        value, gradient = value_and_gradient(lambda z: loss(labels, z), X.astype(DTYPE))
        assert np.isnan(value) and np.isfinite(gradient).all()
        assert not gradient[LABELS == 4].any()

    @pytest.mark.touches_keras
    def test_in_arrays_and_batches_before_training(self):
        keras.config.set_floatx("float32")
        model = model_of(
            losses.WeightedSum([(1, losses.CosFaceLoss(4)), (1, losses.TripletLoss())])
        )
        before = [w + 0 for w in model.get_weights()]
        x = X.astype("float32")
        with pytest.raises(ValueError, match="cos_face_loss has num_classes=4"):
            model.fit(x, LABELS, verbose=0)
        with pytest.raises(ValueError, match="Received ids from 0 to 4"):
            model.fit(
                BalancedBatches(np.tile(x, (2, 1)), np.tile(np.arange(18) % 5, 1), 2, 2), verbose=0
            )
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.touches_keras
    def test_each_loss_of_a_sum_is_named(self):
        keras.config.set_floatx("float32")
        kind, colour = losses.ArcFaceLoss(4, name="kind"), losses.CosFaceLoss(10, name="colour")
        model = model_of(losses.WeightedSum([(1.0, colour), (1.0, kind)]))

        for call in (model.evaluate, model.fit):
            with pytest.raises(ValueError, match="no class of colour.* or kind, which has num_cla"):
                call(Source(), verbose=0)

    @pytest.mark.touches_keras
    def test_in_a_data_set_at_the_end_of_the_epoch(self):
        keras.config.set_floatx("float32")
        model = model_of(losses.NormalizedSoftmaxLoss(4))

        with pytest.raises(ValueError, match="1 labels were no class of normalized_softmax_loss"):
            model.fit(Source(), verbose=0)
        assert all(np.isfinite(w).all() for w in model.get_weights())
        history = model.fit(X.astype("float32"), LABELS % 4, verbose=0)
        assert list(history.history) == ["loss"] and np.isfinite(history.history["loss"][0])


class TestWithoutAnEmbeddingModel:
    def test_a_plain_model_is_an_error(self):
        model = keras.Sequential([keras.layers.Dense(DIM)])
        model.compile("sgd", losses.ArcFaceLoss(CLASSES))
        with pytest.raises(ValueError, match="no model trains or saves"):
            model.fit(X.astype("float32"), LABELS, verbose=0)

    def test_references_and_tuples(self):
        loss, _ = with_vectors(lambda: losses.ArcFaceLoss(CLASSES))
        with pytest.raises(ValueError, match="takes no reference set"):
            loss.against(LABELS, X.astype(DTYPE), LABELS, X.astype(DTYPE))
        with pytest.raises(ValueError, match="needs a labelled batch"):
            step_by_step(loss)(LABELS, np.stack([X, X], 1).astype(DTYPE))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: losses.ArcFaceLoss(1), "num_classes=1"),
            (lambda: losses.ArcFaceLoss(2.0), "must be an integer"),
            (lambda: losses.ArcFaceLoss(5, 181), "at most 180"),
            (lambda: losses.CosFaceLoss(5, scale=0), "greater than 0"),
            (lambda: losses.SphereFaceLoss(5, margin=1.5), "must be an integer"),
            (lambda: losses.SoftTripleLoss(5, 0), "centers_per_class=0"),
            (lambda: losses.ProxyNCALoss(5, denominator="none"), "must be one of"),
            (lambda: losses.AdaFaceLoss(5, t_alpha=0), "greater than 0"),
            (lambda: losses.CenterLoss(5, embedding_dim=0), "embedding_dim=0"),
            (lambda: losses.ArcFaceLoss(5, initializer="no such"), "initializer"),
            (lambda: losses.MarginLoss(nu=0.1), "learn_beta=True"),
            (lambda: losses.MarginLoss(num_classes=4), "learn_beta=True"),
        ],
    )
    def test_wrong_settings(self, make, message):
        with pytest.raises((ValueError, TypeError), match=message):
            make()


@pytest.mark.touches_keras
def test_multi_optimizer():
    """`MultiOptimizer` sets a separate learning rate for the proxies."""
    keras.config.set_floatx("float32")
    model = model_of(losses.ProxyAnchorLoss(CLASSES))
    optimizers = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(0.0), {"proxy_anchor_loss/.*": keras.optimizers.SGD(0.5)}
    )
    model.compile(keras.optimizers.MultiOptimizer(optimizers))
    model(X.astype("float32"))
    before, vectors = [w + 0 for w in model.encoder.get_weights()], model.loss.class_vectors + 0
    model.fit(X.astype("float32"), LABELS, epochs=2, verbose=0)
    for a, b in zip(before, model.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(model.loss.class_vectors - vectors).max() > 1e-3


@pytest.mark.touches_keras
def test_two_losses_of_one_class_need_names():
    """PyTorch stores parameters by path; two with the same path would conflict."""
    keras.config.set_floatx("float32")
    unnamed = [(1, losses.ArcFaceLoss(CLASSES)), (1, losses.ArcFaceLoss(CLASSES))]
    with pytest.raises(ValueError, match="a name of its own"):
        model_of(losses.WeightedSum(unnamed))
    named = [(1, losses.ArcFaceLoss(CLASSES, name=name)) for name in ("kind", "colour")]
    model = model_of(losses.WeightedSum(named))
    model.fit(X.astype("float32"), LABELS, verbose=0)
    assert {w.path for w in model.loss_layers.weights} == {"kind/vectors", "colour/vectors"}


@pytest.mark.touches_keras
def test_summary_lists_the_weights_of_a_loss():
    keras.config.set_floatx("float32")
    model = model_of(losses.ArcFaceLoss(CLASSES))
    model.fit(X.astype("float32"), LABELS, verbose=0)
    lines = []
    model.summary(print_fn=lines.append)
    row = next(line for line in "\n".join(lines).splitlines() if "loss_layers" in line)
    assert str(CLASSES * DIM) in row


def test_a_class_loss_in_a_siamese_model_raises():
    keras.config.set_floatx("float32")
    model = SiameseModel(keras.layers.Dense(6), embedding_dim=DIM)
    model.compile("sgd", losses.ArcFaceLoss(CLASSES))
    pairs = {"first": X.astype("float32"), "second": X.astype("float32")}
    with pytest.raises(ValueError, match="needs a labelled batch"):
        model.fit(pairs, LABELS, verbose=0)
