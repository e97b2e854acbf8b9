"""verification_metrics and roc_curve compared with loops, scikit-learn and published cases."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_metric.evaluation import roc_curve, verification_metrics

FARS = (0.0, 0.01, 0.1, 0.35)


def pairs(rng, size=200, ties=True):
    """Overlapping distances, unbalanced, many of them equal."""
    same = rng.random(size) < 0.3
    scores = rng.normal(np.where(same, 1.0, 2.0), 0.7)
    return np.round(scores, 1) if ties else scores, same


def by_hand(scores, same, fars=FARS):
    """Every threshold, pair by pair."""
    candidates = [-np.inf, *sorted(set(scores))]
    rows = []
    for threshold in candidates:
        tp = sum(1 for s, y in zip(scores, same) if y and s <= threshold)
        fp = sum(1 for s, y in zip(scores, same) if not y and s <= threshold)
        rows.append((threshold, tp, fp))
    num_same, num_different = sum(same), len(same) - sum(same)
    wins = sum(
        (a < b) + 0.5 * (a == b)
        for a, y in zip(scores, same)
        if y
        for b, z in zip(scores, same)
        if not z
    )
    result = {"auc": wins / num_same / num_different}

    def accuracy(tp, fp):
        return (tp + num_different - fp) / len(same)

    def f1(tp, fp):
        precision, recall = tp / max(tp + fp, 1), tp / num_same
        return 2 * precision * recall / (precision + recall) if tp else 0.0

    best = max(accuracy(tp, fp) for _, tp, fp in rows)
    threshold, tp, fp = next(row for row in rows if accuracy(*row[1:]) == best)
    result |= {"accuracy": best, "threshold": threshold, "recall": tp / num_same}
    result |= {"precision": tp / max(tp + fp, 1), "f1": f1(tp, fp)}
    result |= {"far": fp / num_different, "frr": 1 - tp / num_same}
    result["best_f1"] = max(f1(tp, fp) for _, tp, fp in rows)
    for far in fars:
        threshold, tp, _ = [row for row in rows if row[2] / num_different <= far][-1]
        result[f"tar_at_far_{far:g}"] = tp / num_same
        result[f"fnmr_at_fmr_{far:g}"] = 1 - tp / num_same
        result[f"threshold_at_far_{far:g}"] = threshold
    return result


@pytest.mark.parametrize("ties", [True, False])
def test_equals_the_definitions(ties, rng):
    scores, same = pairs(rng, ties=ties)
    ours, expected = verification_metrics(scores, same, far=FARS), by_hand(scores, same)
    assert {key: ours[key] for key in expected} == pytest.approx(expected, abs=1e-12)


def test_agrees_with_scikit_learn(rng):
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq
    from sklearn import metrics

    scores, same = pairs(rng, 500)
    ours = verification_metrics(scores, same)
    assert ours["auc"] == pytest.approx(metrics.roc_auc_score(same, -scores))
    expected = metrics.average_precision_score(same, -scores)
    assert ours["average_precision"] == pytest.approx(expected)
    fpr, tpr, thresholds = metrics.roc_curve(same, -scores, drop_intermediate=False)
    curve = roc_curve(scores, same)
    np.testing.assert_allclose(curve.far, fpr)
    np.testing.assert_allclose(curve.tar, tpr)
    np.testing.assert_array_equal(curve.thresholds, -thresholds)
    eer = brentq(lambda x: 1.0 - x - interp1d(fpr, tpr)(x), 0.0, 1.0)
    assert ours["eer"] == pytest.approx(eer, abs=1e-9)
    accepted = scores <= ours["threshold"]
    for name in ("accuracy", "precision", "recall", "f1"):
        assert ours[name] == pytest.approx(getattr(metrics, f"{name}_score")(same, accepted))
    precision, recall, _ = metrics.precision_recall_curve(same, -scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert ours["best_f1"] == pytest.approx(f1.max())


def test_published_case():
    """tests/test_oml/test_functional/test_metrics of open-metric-learning."""
    scores = [0, 0, 1, 1, 2, 2, 5, 5, 9, 9, 3, 3, 4, 4, 6, 6, 7, 7, 8, 8]
    ours = verification_metrics(scores, [1] * 10 + [0] * 10, far=(0.1, 0.5))
    assert ours["fnmr_at_fmr_0.1"] == pytest.approx(0.4)
    assert ours["fnmr_at_fmr_0.5"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("scores", "eer", "threshold"),
    [
        # From (FAR, FRR) = (1/6, 1/3) at score 2 to (1/2, 1/3) at 3: FAR meets FRR at 1/3.
        ([1, 1, 1, 1, 5, 5, 2, 3, 3, 6, 6, 7], 1 / 3, 3),
        # At score 1, three of ten are accepted and three of ten rejected; 1 - 0.7 is above 0.3.
        ([1] * 7 + [3] * 3 + [1] * 3 + [2] * 7, 0.3, 1),
    ],
)
def test_crossing_between_two_points_and_on_a_point(scores, eer, threshold):
    same = np.arange(len(scores)) < len(scores) / 2
    found = verification_metrics(scores, same)
    assert found["eer"] == pytest.approx(eer) and found["eer_threshold"] == threshold


def test_a_rate_that_is_a_fraction_of_the_pairs(rng):
    """29 of 100: 0.29 * 100 is 28.99... in floats, but 29 / 100 is 0.29."""
    scores = np.concatenate([np.arange(100.0), [28.5, 29.5]])
    same = np.arange(102) >= 100
    assert verification_metrics(scores, same, far=0.29)["tar_at_far_0.29"] == 0.5
    assert verification_metrics(scores, same, far=0.30)["tar_at_far_0.3"] == 1.0


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_similarities_are_negated_distances(items):
    scores, same = np.array([s for s, _ in items], float), np.array([y for _, y in items])
    if same.all() or not same.any():
        return
    distances = verification_metrics(scores, same, groups=scores % 2, far=FARS)
    settings = dict(larger_is_closer=True, groups=scores % 2, far=FARS)
    similarities = verification_metrics(-scores, same, **settings)
    for key, value in distances.items():
        flip = -1 if "threshold" in key else 1
        assert similarities[key] == pytest.approx(flip * value, nan_ok=True), key
    assert distances["auc"] == pytest.approx(by_hand(scores, same)["auc"])


class TestFolds:
    def test_threshold_of_the_other_folds(self, rng):
        from sklearn.model_selection import KFold

        scores, same = pairs(rng, 103)
        accuracies = []
        for train, test in KFold(10).split(scores):
            threshold = by_hand(scores[train], same[train])["threshold"]
            accuracies.append(np.mean((scores[test] <= threshold) == same[test]))
        ours = verification_metrics(scores, same, folds=10)
        assert ours["fold_accuracy"] == pytest.approx(np.mean(accuracies))
        error = np.std(accuracies, ddof=1) / np.sqrt(10)
        assert ours["fold_accuracy_error"] == pytest.approx(error)
        named = np.repeat([f"set {i}" for i in range(10)], [11] * 3 + [10] * 7)
        assert verification_metrics(scores, same, folds=named) == ours

    def test_fold_accuracy_is_below_the_best_accuracy(self, rng):
        scores, same = rng.random(300), np.arange(300) % 2
        ours = verification_metrics(scores, same, folds=10)
        assert ours["fold_accuracy"] < ours["accuracy"]


class TestGroups:
    def test_curves_of_groups_and_shared_thresholds(self, rng):
        scores, same = pairs(rng, 300)
        group = np.array(["a", "b"])[rng.integers(0, 2, 300)]
        scores[group == "b"] += 0.5
        ours = verification_metrics(scores, same, far=FARS, groups=group)
        for name in "ab":
            inside = group == name
            own = by_hand(scores[inside], same[inside])
            for key in ("auc", "best_f1", "tar_at_far_0.1", "threshold_at_far_0.1"):
                assert ours[f"{name}/{key}"] == pytest.approx(own[key])
            accepted = scores[inside] <= ours["threshold"]
            assert ours[f"{name}/accuracy"] == pytest.approx(np.mean(accepted == same[inside]))
            accepted = scores[inside] <= ours["threshold_at_far_0.1"]
            expected = accepted[~same[inside]].mean(), 1 - accepted[same[inside]].mean()
            assert ours[f"{name}/far_at_shared_far_0.1"] == pytest.approx(expected[0])
            assert ours[f"{name}/frr_at_shared_far_0.1"] == pytest.approx(expected[1])
        assert ours["a/far_at_shared_far_0.1"] > ours["b/far_at_shared_far_0.1"]

    def test_groups_must_be_comparable(self):
        groups = np.array(["f", None, "m", "f"], object)
        with pytest.raises(ValueError, match="comparable"):
            verification_metrics([0.1, 0.2, 0.3, 0.4], [1, 0, 1, 0], groups=groups)

    def test_a_group_of_one_kind_has_nan(self):
        ours = verification_metrics([1, 2, 3, 4], [1, 0, 1, 1], groups=[0, 0, 1, 1])
        assert np.isnan(ours["1/auc"]) and np.isnan(ours["1/eer"]) and np.isnan(ours["1/far"])
        assert np.isnan(ours["1/tar_at_far_0.1"])
        assert ours["1/recall"] == 1.0 and ours["0/auc"] == 1.0


class TestInputs:
    def test_a_given_threshold(self):
        ours = verification_metrics([0.1, 0.4, 0.3, 0.9], [1, 1, 0, 0], threshold=0.35)
        assert ours["threshold"] == 0.35
        assert (ours["accuracy"], ours["far"], ours["frr"]) == (0.5, 0.5, 0.5)

    @pytest.mark.touches_keras
    def test_tensors_columns_and_lists(self):
        scores, same = [0.5, 0.25, 1.0, 2.0], [1, 1, 0, 0]
        expected = verification_metrics(scores, same)
        assert all(type(value) is float for value in expected.values())
        tensors = keras.ops.array(scores)[:, None], keras.ops.array(same, "float32")
        assert verification_metrics(*tensors) == expected
        assert verification_metrics(np.array(scores, "float16"), np.array(same, bool)) == expected

    def test_the_ends_of_float64(self):
        """The difference of these scores is infinite."""
        ours = verification_metrics([-1.7e308, 1.7e308, 1.7e308], [1, 1, 0])
        assert ours["auc"] == 0.75 and ours["threshold"] == -1.7e308

    def test_equal_scores(self):
        ours = verification_metrics(np.ones(10), np.arange(10) % 2)
        assert (ours["auc"], ours["eer"], ours["accuracy"]) == (0.5, 0.5, 0.5)
        assert ours["tar_at_far_0.1"] == 0.0 and ours["threshold_at_far_0.1"] == -np.inf

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(scores=[1, 2], same=[1]), "one number for each pair"),
            (dict(scores=[[1, 2]], same=[[1, 0]]), "one number for each pair"),
            (dict(scores=[], same=[]), "one number for each pair"),
            (dict(scores=[1, np.nan], same=[1, 0]), "finite"),
            (dict(scores=["a", "b"], same=[1, 0]), "finite numbers"),
            (dict(scores=[1, 2], same=[1, 2]), "labels_a == labels_b"),
            (dict(scores=[1, 2], same=[1, 1]), "same and different"),
            (dict(scores=[1, 2], same=[1, 0], far=2), "at most 1"),
            (dict(scores=[1, 2], same=[1, 0], far=(0.1, 0.10000001)), "first six digits"),
            (dict(scores=[1, 2], same=[1, 0], threshold=10**400), "finite"),
            (dict(scores=np.ma.array([1, 2], mask=[0, 1]), same=[1, 0]), "1 masked"),
            (dict(scores=[1, 2], same=[1, 0], folds=1), "at least 2"),
            (dict(scores=[1, 2], same=[1, 0], folds=3), "at most 2, one for each"),
            (dict(scores=[1, 2], same=[1, 0], folds=[1, 1]), "two folds"),
            (dict(scores=[1, 2, 3, 4], same=[1, 1, 0, 0], folds=2), "sorted by kind"),
            (dict(scores=[1, 2], same=[1, 0], groups=[1]), "groups"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            verification_metrics(**arguments)
