"""DynamicSoftMarginLoss: triplets weigh as much as they rank among those seen so far."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_count, check_number, check_one_each
from keras_metric.losses.metric_loss import MetricLoss, measured_pairs
from keras_metric.losses.pair.pair_loss import LABELS
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import Rows
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


class RunningHistogram(keras.layers.Layer):
    """Shares of the gaps d_ap - d_an in bins, (bins,): a running mean over batches."""

    def __init__(self, bins, **kwargs):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})
        self.bins = bins

    def build(self, input_shape):
        self.shares = self.add_weight((self.bins,), "zeros", trainable=False, name="shares")

    def moved(self, counts, momentum):
        """The shares after a batch with these `counts` (bins,); the first batch sets them."""
        number = ops.sum(counts)
        old = ops.cast(self.shares, counts.dtype)
        rate = ops.where(ops.sum(old) > 0, momentum, 1.0)
        new = (1 - rate) * old + rate * counts / ops.maximum(number, 1)
        return ops.where(number > 0, new, old)


class Bins:
    """Equal bins from `lowest` on, of which the middle one begins at 0."""

    def __init__(self, lowest, number):
        self.lowest, self.number = lowest, number
        self.width = 2 * abs(lowest) / number

    def place(self, gap):
        """Where in units of bins a gap lies, from 0 to number - 1."""
        return ops.clip((gap - self.lowest) / self.width, 0, self.number - 1)

    def counts(self, gap, exists):
        """Gaps shared out among the two bins they lie between, (bins,)."""
        place, exists = self.place(gap), ops.cast(exists, gap.dtype)
        near = (ops.relu(1 - ops.abs(place - bin)) for bin in range(self.number))
        return ops.stack([ops.sum(part * exists) for part in near])

    def rank(self, gap, shares):
        """Share of what was seen that lies in the gap's bin or below it."""
        place, shares = self.place(gap), ops.cast(shares, gap.dtype)
        return sum(ops.where(place >= bin, shares[bin], 0) for bin in range(self.number))


def histogram_of_triplets(distance, partners, bins):
    """Counts (bins,) of the gaps of every triplet."""

    def step(rank, column, exists, counts):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        here = ops.logical_and(exists[:, None], partners.negative)
        return (counts + bins.counts(near - distance, here),)

    zero = ops.zeros((bins.number,), dtype=distance.dtype)
    return partners.for_each_positive(step, (zero,))[0]


def triplet_slopes(distance, partners, bins, shares):
    """Derivatives (batch, references) of each row's sum of rank * (d_ap - d_an)."""

    def step(rank, column, exists, slope):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        here = ops.logical_and(exists[:, None], partners.negative)
        push = ops.where(here, bins.rank(near - distance, shares), 0)
        mine = ops.cast(ops.equal(partners.columns, column[:, None]), slope.dtype)
        return (slope - push + mine * ops.sum(push, axis=1, keepdims=True),)

    return partners.for_each_positive(step, (ops.zeros_like(distance),))[0]


@export
class DynamicSoftMarginLoss(MetricLoss):
    """A triplet loss without a margin: harder triplets than usual weigh more.

    Reach for it where no margin fits: patches and local descriptors, data that get harder with
    time. A running histogram of the gaps d_ap - d_an says how hard a triplet is among those seen
    before; `EmbeddingModel` keeps and saves it. A labelled batch gives all of its triplets.
    Ready-made triplets (batch, 3, dim) are taken as they are; of pairs (batch, 2, dim) each has
    for its negative the nearest item of another pair.

        loss = mean over triplets of CDF(d_ap - d_an) * (d_ap - d_an)

    with CDF the share of gaps, this batch's included, that fall into the same bin or a lower one;
    no gradient flows through it. The loss is negative where most triplets are in order.

    Args:
        min_value: lower end of the histogram, below 0, in units of `distance`; the upper end is its
            opposite. Default -2, for Euclidean distances of unit vectors.
        num_bins: bins of the histogram, at least 2. Default 10, as in pytorch-metric-learning.
        momentum: share of a batch in the running histogram, above 0 and at most 1. Default 0.01.
        distance: metric name; default "euclidean".
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        reduction: default "mean_valid", the mean over triplets. Terms may be negative, and all of
            them count as active.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a number out of its range, labels of another kind, or
            outside an `EmbeddingModel`, which keeps the histogram.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric
    >>> loss = keras_metric.losses.DynamicSoftMarginLoss()
    >>> model = keras_metric.EmbeddingModel(keras.layers.Dense(8), embedding_dim=4)
    >>> model.compile(keras.optimizers.Adam(1e-2), loss)
    >>> x, y = np.random.default_rng(0).normal(size=(32, 5)), np.arange(32) % 4
    >>> history = model.fit(x, y, epochs=3, verbose=0)
    >>> bool(history.history["loss"][-1] < history.history["loss"][0])
    True

    Reference:
        Zhang and Rusinkiewicz, "Learning Local Descriptors With a CDF-Based Dynamic Soft Margin",
        2019, https://doi.org/10.1109/ICCV.2019.00306
    """

    renamed_arguments = {"min_val": "min_value"}
    num_branches = (2, 3)
    keeps_state = True

    def __init__(
        self,
        min_value=-2.0,
        num_bins=10,
        momentum=0.01,
        distance="euclidean",
        labels="ids",
        reduction="mean_valid",
        name="dynamic_soft_margin_loss",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        check_number("min_value", min_value)
        if min_value >= 0:
            raise ValueError(f"`min_value` must be less than 0. Received: min_value={min_value!r}")
        check_count("num_bins", num_bins, at_least=2)
        check_number("momentum", momentum, above=0, at_most=1)
        distances.check_metric("distance", distance)
        check_choice("labels", labels, LABELS)
        self.min_value = min_value
        self.num_bins = num_bins
        self.momentum = momentum
        self.distance = distance
        self.labels = labels
        self.bins = Bins(min_value, num_bins)
        self.histogram = RunningHistogram(num_bins, name=name)
        self.layers = (self.histogram, *distances.layers_of(distance))

    def batch_parts(self, reports, labels, embeddings, *references):
        distance, partners = measured_pairs(reports, labels, embeddings, self.distance, *references)
        # The loss is linear in the distances once the ranks are known.
        still = ops.stop_gradient(distance)
        shares = self._moved(reports, histogram_of_triplets(still, partners, self.bins))
        slope = ops.stop_gradient(triplet_slopes(still, partners, self.bins, shares))
        number = ops.cast(partners.num_positives * partners.num_negatives, distance.dtype)
        total = ops.sum(slope * distance, axis=1)
        # Terms have a sign here: all of them pull or push.
        return [Rows(total, number, number)]

    def reads_ids(self, num_branches):
        return num_branches == 2

    def tuple_parts(self, reports, y_true, branches):
        if len(branches) == 3:
            near, far = (
                distances.elementwise(branches[0], other, self.distance) for other in branches[1:]
            )
            exists = ops.ones_like(near)
        elif len(branches) == 2:
            near, far, exists = self._nearest_of_others(y_true, branches)
        else:
            raise ValueError(
                "Expected embeddings of shape (batch, 3, dim), triplets, or (batch, 2, dim), "
                f"pairs. Received {len(branches)} branches."
            )
        reports.add_distances(near, far, exists > 0, exists > 0)
        gap = near - far
        still = ops.stop_gradient(gap)
        shares = self._moved(reports, self.bins.counts(still, exists))
        weight = exists * ops.stop_gradient(self.bins.rank(still, shares))
        return [Rows(weight * gap, exists, exists)]

    def _nearest_of_others(self, y_true, branches):
        """Distances of each pair, and to the nearest item of a pair of another label."""
        matrix = distances.pairwise(*branches, metric=self.distance)
        labels = self._checked_labels(y_true, "y_true")
        check_one_each(labels, branches[0], "y_true", "y_pred")
        others = class_pairs.from_labels(labels).negative
        apart = ops.where(others, matrix, MASKED_DISTANCE)
        far = ops.minimum(ops.min(apart, axis=1), ops.min(apart, axis=0))
        exists = ops.cast(ops.any(others, axis=1), matrix.dtype)
        near = distances.elementwise(*branches, self.distance)
        return near, ops.where(exists > 0, far, near), exists

    def _moved(self, reports, counts):
        shares = ops.stop_gradient(self.histogram.moved(counts, self.momentum))
        reports.update(self.histogram.shares, shares)
        return shares
