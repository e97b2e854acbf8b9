"""Verification metrics: classification of pairs by a threshold on their distance."""

import numpy as np

from keras_metric._validation import check_count, check_number
from keras_metric.evaluation._input_checks import as_codes, as_labels, as_rates
from keras_metric.evaluation.roc import as_pairs, roc_curve


def verification_metrics(
    scores,
    same,
    larger_is_closer=False,
    far=(0.1, 0.01, 0.001),
    threshold=None,
    folds=None,
    groups=None,
):
    """Measure how well a threshold on the distance of pairs separates same from different pairs.

    The metrics of face, speaker and signature verification. A pair is accepted, that is, classified
    as "same", if its distance is at most the threshold. The false accept rate (FAR; also false
    match rate, FMR) is the fraction of the different pairs that are accepted, the true accept rate
    (TAR) that of the same pairs. The false reject rate FRR (also false non-match rate, FNMR) is
    1 - TAR.

    | key | |
    |---|---|
    | `auc` | area under TAR over FAR; equal scores of a same and a different pair count 1/2 |
    | `eer` | equal error rate: where FAR = FRR, on the line between the two nearest points |
    | `eer_threshold` | strictest score at which FAR >= FRR |
    | `average_precision` | sum over thresholds of the increase in recall times the precision |
    | `tar_at_far_x` | largest TAR of the thresholds with FAR <= x |
    | `fnmr_at_fmr_x` | 1 - `tar_at_far_x` |
    | `threshold_at_far_x` | that threshold |
    | `best_f1`, `best_f1_threshold` | largest F1 of all thresholds |
    | `threshold` | the given one, else the strictest of those with the best accuracy |
    | `accuracy`, `precision`, `recall`, `f1`, `far`, `frr` | at `threshold` |
    | `fold_accuracy` | mean over folds of the accuracy at the best threshold of the others |
    | `fold_accuracy_error` | standard error of that mean |
    | `num_pairs`, `num_same` | |

    Thresholds are scores that occur (an infinite one accepts nothing). The best accuracy on the
    same pairs is too high; `folds`, or a `threshold` that was chosen on other pairs, avoid that.

    `x` below 1 / (number of different pairs) allows no false accept.

    Other conventions: `auc` and `average_precision` are scikit-learn's. `eer` is the result of
    `scipy.optimize.brentq` on scikit-learn's curve; the mean of FAR and FRR at the nearest
    threshold, which is also common, differs if pairs are few. TAR and FNMR are not interpolated:
    they are those of a threshold. open-metric-learning uses the interpolated percentile of the
    different pairs as the threshold, and counts a same pair at the threshold as rejected.
    FaceNet's and InsightFace's code search the threshold of a fold on a grid, and report the
    standard deviation of the folds; the standard error, required by LFW, is sqrt(folds) times
    smaller.

    Args:
        scores: Array `(pairs,)` of distances, or of similarities. Finite.
        same: Array `(pairs,)` of 1 or True for a pair of one class, 0 or False for one of two.
        larger_is_closer: True if the scores are similarities: a pair is then accepted if its
            score is at least the threshold. Default False.
        far: Number or numbers in 0 to 1: the false accept rates x.
        threshold: None, or a threshold that was chosen on other pairs, in units of the scores.
        folds: None; the number of folds of equal size, of consecutive pairs (10, for LFW in the
            order of its list), at most one for each pair; or an array `(pairs,)` of fold names.
        groups: None, or an array `(pairs,)` with an attribute of each pair, of any kind. Adds,
            for each group g, the metrics of its pairs, as `"g/auc"` and so on; `threshold` is that
            of all pairs. `"g/far_at_shared_far_x"` and `"g/frr_at_shared_far_x"` are the group's
            error rates at the `threshold_at_far_x` of all pairs, as in a system with one threshold.
            A group with one kind of pairs has NaN for metrics that need both.

    Returns:
        Dict of floats, as in the table; `fold_...` only with `folds`.

    Raises:
        ValueError: Pairs of one kind only, NaN, or arrays of unequal length.

    Example:
        >>> from keras_metric.evaluation import verification_metrics
        >>> distances, same = [0.1, 0.3, 0.4, 0.2, 0.6, 0.8, 0.9, 1.0], [1, 1, 1, 0, 1, 0, 0, 0]
        >>> result = verification_metrics(distances, same, far=0.25)
        >>> result["auc"], result["eer"], result["tar_at_far_0.25"]
        (0.8125, 0.25, 1.0)
        >>> result["accuracy"], result["threshold"]
        (0.875, 0.6)

    Reference:
        Huang et al. (2007), Labeled Faces in the Wild (10 folds); Grother, Ngan, Hanaoka (2019),
        Face Recognition Vendor Test Part 3: Demographic Effects (errors of groups at one
        threshold).
    """
    rates = as_rates(far)
    if threshold is not None:
        check_number("threshold", threshold)
    scores, same = as_pairs(scores, same)
    _check_both(same, "All pairs are of one kind")
    folds = _as_folds(folds, len(scores))
    if groups is not None:
        groups = as_labels("groups", groups, len(scores), as_ids=False)
    curve = roc_curve(scores, same, larger_is_closer)
    if threshold is None:
        threshold = float(curve.thresholds[_most_accurate(curve)])
    distances, sign = (-scores, -1.0) if larger_is_closer else (scores, 1.0)
    result = _of_curve(curve, rates) | _at(sign * threshold, distances, same)
    result["threshold"] = float(threshold)
    if folds is not None:
        result |= _over_folds(scores, same, folds, larger_is_closer)
    for group, inside in () if groups is None else _each(groups):
        own = distances[inside], same[inside]
        part = _of_curve(roc_curve(scores[inside], own[1], larger_is_closer), rates)
        part |= _at(sign * threshold, *own)
        for rate in rates:
            shared = _at(sign * result[f"threshold_at_far_{rate:g}"], *own)
            part |= {f"{key}_at_shared_far_{rate:g}": shared[key] for key in ("far", "frr")}
        result |= {f"{group}/{key}": value for key, value in part.items()}
    return result


def _of_curve(curve, rates):
    same, different = curve.num_same, curve.num_different
    nan = float("nan")
    result = dict(auc=nan, eer=nan, eer_threshold=nan, average_precision=nan)
    if same and different:
        result["auc"], result["eer"] = curve.area, curve.equal_error_rate
        result["eer_threshold"] = float(curve.thresholds[curve.crossing])
    accepted = curve.true_accepts + curve.false_accepts
    precision = curve.true_accepts / np.maximum(accepted, 1)
    if same:
        result["average_precision"] = float(np.diff(curve.tar) @ precision[1:])
    for rate in rates:
        point = curve.within(rate)
        tar, at = (curve.tar[point], curve.thresholds[point]) if different else (nan, nan)
        result[f"tar_at_far_{rate:g}"] = float(tar)
        result[f"fnmr_at_fmr_{rate:g}"] = float(1.0 - tar)
        result[f"threshold_at_far_{rate:g}"] = float(at)
    f1 = 2.0 * curve.true_accepts / np.maximum(accepted + same, 1)
    best = int(np.argmax(f1))
    result |= {"best_f1": float(f1[best]), "best_f1_threshold": float(curve.thresholds[best])}
    return result | {"num_pairs": float(same + different), "num_same": float(same)}


def _most_accurate(curve):
    """Return the number of the point with the most correct decisions, the strictest of several."""
    return int(np.argmax(curve.true_accepts - curve.false_accepts))


def _at(threshold, distances, same):
    accepted = distances <= threshold
    true, false = np.sum(accepted & same), np.sum(accepted & ~same)
    num_same, num_different = np.sum(same), np.sum(~same)
    rejected = num_same - true

    def fraction(part, whole):
        return float(part / whole) if whole else float("nan")

    return {
        "accuracy": fraction(true + num_different - false, len(same)),
        # The precision is 0 if nothing is accepted, as in scikit-learn.
        "precision": float(true / max(true + false, 1)),
        "recall": fraction(true, num_same),
        "f1": float(2 * true / max(2 * true + false + rejected, 1)),
        "far": fraction(false, num_different),
        "frr": fraction(rejected, num_same),
    }


def _as_folds(folds, num_pairs):
    """Return the fold of each pair, or None."""
    if folds is None:
        return None
    if np.ndim(folds) == 0:
        check_count("folds", folds, at_least=2)
        if folds > num_pairs:
            raise ValueError(
                f"`folds` must be at most {num_pairs}, one for each pair. Received: {folds}"
            )
        # Consecutive pairs; the first folds are one longer if the number is not divisible.
        return np.repeat(
            np.arange(folds), [len(p) for p in np.array_split(range(num_pairs), folds)]
        )
    folds = as_labels("folds", folds, num_pairs, as_ids=False)
    if len(list(_each(folds))) < 2:
        raise ValueError(f"`folds` must name two folds or more. Received: folds={folds!r}")
    return folds


def _over_folds(scores, same, folds, larger_is_closer):
    accuracies = []
    for fold, held in _each(folds):
        _check_both(same[~held], f"All pairs outside fold {fold!r} are of one kind")
        curve = roc_curve(scores[~held], same[~held], larger_is_closer)
        sign = -1.0 if larger_is_closer else 1.0
        threshold = curve.thresholds[_most_accurate(curve)]
        accuracies.append(_at(sign * threshold, sign * scores[held], same[held])["accuracy"])
    error = np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))
    return {"fold_accuracy": float(np.mean(accuracies)), "fold_accuracy_error": float(error)}


def _each(names):
    """Yield each name that occurs, in order, and the mask of its rows."""
    codes = as_codes(names)[0]
    first = np.unique(codes, return_index=True)[1]
    for code, row in enumerate(first):
        yield names[row], codes == code


def _check_both(same, problem):
    if same.all() or not same.any():
        raise ValueError(
            f"Verification needs same and different pairs. Received: {int(same.sum())} same among "
            f"{len(same)}. {problem}; pass `folds` as an array if the pairs are sorted by kind."
        )
