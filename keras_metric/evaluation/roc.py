"""The receiver operating characteristic: accepted pairs of every threshold on a score."""

from typing import NamedTuple

import numpy as np

from keras_metric._validation import as_array, check_flag, is_numeric


class Roc(NamedTuple):
    """Errors of every threshold, from the one that accepts nothing to the one that accepts all.

    `thresholds`: (points,), the scores that occur, closest first, after an infinite one that
    accepts nothing; a pair is accepted if its score equals the threshold or is closer.
    `false_accepts`, `true_accepts`: (points,), numbers of accepted different and same pairs.
    """

    thresholds: np.ndarray
    false_accepts: np.ndarray
    true_accepts: np.ndarray

    @property
    def num_different(self):
        """Number of pairs of two classes."""
        return int(self.false_accepts[-1])

    @property
    def num_same(self):
        """Number of pairs of one class."""
        return int(self.true_accepts[-1])

    @property
    def far(self):
        """False accept rate (points,): fraction of the different pairs that are accepted."""
        return _fraction(self.false_accepts, self.num_different)

    @property
    def tar(self):
        """True accept rate (points,): fraction of the same pairs that are accepted."""
        return _fraction(self.true_accepts, self.num_same)

    @property
    def area(self):
        """Area under TAR over FAR: the probability that a same pair is closer than a different one.

        Computed by trapezoids, so that a tie counts 1/2.
        """
        # NumPy's function for it has another name from version 2 on.
        return float(np.diff(self.far) @ (self.tar[1:] + self.tar[:-1])) / 2

    @property
    def crossing(self):
        """Number of the first point whose false accept rate is at least its false reject rate."""
        missed = self.num_same - self.true_accepts
        # Compare integers: 3 / 10 and 1 - 7 / 10 are not equal as floats.
        return int(np.argmax(self.false_accepts * self.num_same >= missed * self.num_different))

    @property
    def equal_error_rate(self):
        """Rate at which the line through the points crosses FAR = 1 - TAR."""
        gap = self.far - (1.0 - self.tar)
        if np.isnan(gap).any():
            return float("nan")
        after = self.crossing
        before = after - 1  # the first point has a gap of -1
        weight = gap[before] / (gap[before] - gap[after])
        return float(self.far[before] + weight * (self.far[after] - self.far[before]))

    def within(self, far):
        """Number of the last point whose false accept rate is at most `far`."""
        return int(np.searchsorted(self.far, far, side="right")) - 1


def roc_curve(scores, same, larger_is_closer=False):
    """Count the pairs that each threshold on the scores accepts.

    Use it to plot a curve or to choose an operating point; `evaluation.verification_metrics`
    returns the usual metrics and `viz.plot_roc` plots the curve.

    A pair is accepted, that is, classified as "same", if its distance is at most the threshold (if
    its similarity is at least the threshold). With D different pairs and S same ones:

        far = accepted different pairs / D        tar = accepted same pairs / S

    Every score that occurs is a point. scikit-learn's `roc_curve` has the same points with
    `drop_intermediate=False`; by default it drops those on a straight line.

    Args:
        scores: Array `(pairs,)` of distances, or of similarities. Finite.
        same: Array `(pairs,)` of 1 or True for a pair of one class, 0 or False for one of two.
        larger_is_closer: True if the scores are similarities. Default False, for distances.

    Returns:
        A tuple with the arrays `thresholds`, `false_accepts` and `true_accepts`, all `(points,)`,
        the closest threshold first; it also has the arrays `far` and `tar`, and the numbers
        `area`, `equal_error_rate`, `num_same` and `num_different`.

    Raises:
        ValueError: Arrays of unequal length, NaN or infinity, or `same` that is not 0 or 1.

    Example:
        >>> from keras_metric.evaluation import roc_curve
        >>> curve = roc_curve([0.1, 0.2, 0.2, 0.9], [1, 1, 0, 0])
        >>> curve.thresholds.tolist(), curve.far.tolist(), curve.tar.tolist()
        ([-inf, 0.1, 0.2, 0.9], [0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
        >>> curve.area
        0.875

    Reference:
        Fawcett (2006), An Introduction to ROC Analysis.
    """
    check_flag("larger_is_closer", larger_is_closer)
    scores, same = as_pairs(scores, same)
    # scikit-learn's roc_curve takes as long (9 s for 10 million pairs on 2 cores). It returns rates
    # instead of counts, and NaN if there are only same or only different pairs.
    signed = -scores if larger_is_closer else scores
    order = np.argsort(signed, kind="stable")
    ordered = signed[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # the last of equal scores
    true = np.concatenate([[0], np.cumsum(same[order])[ends]])
    both = np.concatenate([[0], ends + 1])
    nothing = np.inf if larger_is_closer else -np.inf
    return Roc(np.concatenate([[nothing], scores[order][ends]]), both - true, true)


def as_pairs(scores, same):
    """Return finite float64 `scores` and boolean `same`, both `(pairs,)`."""
    scores, same = as_array("scores", scores), as_array("same", same)
    scores, same = (v[:, 0] if v.ndim == 2 and v.shape[1] == 1 else v for v in (scores, same))
    if scores.ndim != 1 or scores.shape != same.shape or len(scores) == 0:
        raise ValueError(
            "`scores` and `same` must have one number for each pair, shape (pairs,). "
            f"Received: scores.shape={scores.shape}, same.shape={same.shape}. Compute scores of "
            "pairs by keras_metric.distances.elementwise(a, b)."
        )
    if not is_numeric(scores) or not np.isfinite(scores).all():
        raise ValueError(
            "`scores` must be finite numbers. Received: NaN, infinity or no numbers in "
            f"scores={scores!r}"
        )
    if same.dtype.kind not in "biuf" or not np.isin(same, (0, 1)).all():
        raise ValueError(
            "`same` must be 1 (True) for a pair of one class and 0 (False) for one of two. "
            f"Received: same={same!r}. Compute it from labels: labels_a == labels_b."
        )
    return scores.astype("float64"), same.astype(bool)


def _fraction(counts, total):
    return counts / total if total else np.full(len(counts), np.nan)
