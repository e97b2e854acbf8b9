"""Dynamic soft margin loss."""

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
    """Fraction of the differences d_ap - d_an in each bin, (bins,): a running mean over batches."""

    def __init__(self, bins, **kwargs):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})
        self.bins = bins

    def build(self, input_shape):
        self.fractions = self.add_weight((self.bins,), "zeros", trainable=False, name="fractions")

    def updated(self, counts, momentum):
        """The fractions after a batch with these `counts` (bins,); the first batch sets them."""
        number = ops.sum(counts)
        old = ops.cast(self.fractions, counts.dtype)
        momentum = ops.where(ops.sum(old) > 0, momentum, 1.0)
        new = (1 - momentum) * old + momentum * counts / ops.maximum(number, 1)
        return ops.where(number > 0, new, old)


class Bins:
    """Bins of equal width from `lowest` to -lowest."""

    def __init__(self, lowest, number):
        self.lowest, self.number = lowest, number
        self.width = 2 * abs(lowest) / number

    def position(self, difference):
        """Position of a difference in units of bins, from 0 to number - 1."""
        return ops.clip((difference - self.lowest) / self.width, 0, self.number - 1)

    def counts(self, difference, exists):
        """Counts (bins,); a difference contributes to its two nearest bins by interpolation."""
        position, exists = self.position(difference), ops.cast(exists, difference.dtype)
        near = (ops.relu(1 - ops.abs(position - bin)) for bin in range(self.number))
        return ops.stack([ops.sum(part * exists) for part in near])

    def rank(self, difference, fractions):
        """Fraction of all differences in the bin of this one, or lower."""
        position, fractions = self.position(difference), ops.cast(fractions, difference.dtype)
        return sum(ops.where(position >= bin, fractions[bin], 0) for bin in range(self.number))


def histogram_of_triplets(distance, pairs, bins):
    """Counts (bins,) of the differences of every triplet."""

    def step(rank, column, exists, counts):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        here = ops.logical_and(exists[:, None], pairs.negative)
        return (counts + bins.counts(near - distance, here),)

    zero = ops.zeros((bins.number,), dtype=distance.dtype)
    return pairs.for_each_positive(step, (zero,))[0]


def triplet_gradient(distance, pairs, bins, fractions):
    """Derivatives (batch, references) of each row's sum of rank * (d_ap - d_an)."""

    def step(rank, column, exists, gradient):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        here = ops.logical_and(exists[:, None], pairs.negative)
        push = ops.where(here, bins.rank(near - distance, fractions), 0)
        mine = ops.cast(ops.equal(pairs.columns, column[:, None]), gradient.dtype)
        return (gradient - push + mine * ops.sum(push, axis=1, keepdims=True),)

    return pairs.for_each_positive(step, (ops.zeros_like(distance),))[0]


@export
class DynamicSoftMarginLoss(MetricLoss):
    """Dynamic soft margin: triplets weighted by the running distribution of d_ap - d_an.

    Use it where no fixed margin fits: image patches, local descriptors, data that become harder
    during training. A running histogram of the differences d_ap - d_an gives the weight of a
    triplet; `EmbeddingModel` updates and saves it. From a labelled batch it takes all triplets.
    Ready-made triplets (batch, 3, dim) are used as they are. For pairs (batch, 2, dim) the negative
    is the nearest item of a pair with another label.

        loss = mean over triplets of CDF(d_ap - d_an) * (d_ap - d_an)

    with CDF the fraction of differences, those of this batch included, in the same or a lower bin;
    it gets no gradient. The loss is negative where d_an > d_ap for most triplets.

    Args:
        min_val: lower end of the histogram, below 0, in units of `distance`; the upper end is its
            negative. Default -2, for Euclidean distances of unit vectors.
        num_bins: number of bins of the histogram, at least 2. Default 10, as in
            pytorch-metric-learning.
        momentum: weight of the current batch in the running histogram, above 0 and at most 1.
            Default 0.01.
        distance: metric name; default "euclidean".
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        reduction: default "mean_valid", the mean over triplets. Terms can be negative; all count as
            active.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a number out of range, labels of a wrong kind, or
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

    num_branches = (2, 3)
    keeps_state = True

    def __init__(
        self,
        min_val=-2.0,
        num_bins=10,
        momentum=0.01,
        distance="euclidean",
        labels="ids",
        reduction="mean_valid",
        name="dynamic_soft_margin_loss",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.min_val = check_number("min_val", min_val)
        if min_val >= 0:
            raise ValueError(f"`min_val` must be less than 0. Received: min_val={min_val!r}")
        self.num_bins = check_count("num_bins", num_bins, at_least=2)
        self.momentum = check_number("momentum", momentum, above=0, at_most=1)
        distances.check_metric("distance", distance)
        self.labels = check_choice("labels", labels, LABELS)
        self.distance = distance
        self.bins = Bins(min_val, num_bins)
        self.histogram = RunningHistogram(num_bins, name=name)
        self.layers = (self.histogram, *distances.layers_of(distance))

    def batch_parts(self, reports, labels, embeddings, *references):
        distance, pairs = measured_pairs(reports, labels, embeddings, self.distance, *references)
        # The loss is linear in the distances, since the ranks get no gradient.
        constant = ops.stop_gradient(distance)
        fractions = self._updated_fractions(
            reports, histogram_of_triplets(constant, pairs, self.bins)
        )
        gradient = ops.stop_gradient(triplet_gradient(constant, pairs, self.bins, fractions))
        number = ops.cast(pairs.num_positives * pairs.num_negatives, distance.dtype)
        total = ops.sum(gradient * distance, axis=1)
        # Terms can be negative: all of them count as active.
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
        difference = near - far
        constant = ops.stop_gradient(difference)
        fractions = self._updated_fractions(reports, self.bins.counts(constant, exists))
        weight = exists * ops.stop_gradient(self.bins.rank(constant, fractions))
        return [Rows(weight * difference, exists, exists)]

    def _nearest_of_others(self, y_true, branches):
        """Distances of each pair, and to the nearest item of a pair with another label."""
        matrix = distances.pairwise(*branches, metric=self.distance)
        labels = self._checked_labels(y_true, "y_true")
        check_one_each(labels, branches[0], "y_true", "y_pred")
        others = class_pairs.from_labels(labels).negative
        apart = ops.where(others, matrix, MASKED_DISTANCE)
        far = ops.minimum(ops.min(apart, axis=1), ops.min(apart, axis=0))
        exists = ops.cast(ops.any(others, axis=1), matrix.dtype)
        near = distances.elementwise(*branches, self.distance)
        return near, ops.where(exists > 0, far, near), exists

    def _updated_fractions(self, reports, counts):
        fractions = ops.stop_gradient(self.histogram.updated(counts, self.momentum))
        reports.update(self.histogram.fractions, fractions)
        return fractions
