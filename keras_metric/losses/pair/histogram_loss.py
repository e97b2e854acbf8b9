"""Histogram loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_count, check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import whole_batch
from keras_metric.pairwise.blockwise import incoming_gradient, untraced


def histogram_value(cosine, positive, negative, num_bins):
    """The loss, a scalar; the masks have the shape of `cosine`."""
    width = 2 / num_bins

    @ops.custom_gradient
    def run(cosine):
        (cosine,) = untraced((cosine,))
        position = (cosine + 1) / width
        bin_of = ops.cast(ops.where(position > 0, ops.minimum(position, num_bins - 1), 0), "int32")
        beyond = position - ops.cast(bin_of, position.dtype)
        # Bins of positives, then of negatives, then one bin for entries that are no pair.
        bin_of = ops.where(negative, bin_of + num_bins, bin_of)
        bin_of = ops.where(ops.logical_or(positive, negative), bin_of, 2 * num_bins)

        number = _sums(ops.ones_like(beyond), bin_of, 2 * num_bins + 1)
        shift = _sums(beyond, bin_of, 2 * num_bins + 1)
        near, near_pairs = _histogram(number[:num_bins], shift[:num_bins])
        far, far_pairs = _histogram(number[num_bins:-1], shift[num_bins:-1])

        def grad(*args, upstream=None):
            # A larger cosine moves weight from the lower edge of the bin to the upper one.
            by_near, by_far = -far[:-1] / near_pairs, near[1:] / far_pairs
            gradient = ops.concatenate([by_near, by_far, ops.zeros_like(by_near[:1])]) / width
            return incoming_gradient(args, upstream) * ops.take(gradient, bin_of)

        return ops.sum(far * ops.cumsum(near)), grad

    return run(cosine)


def _sums(values, bin_of, bins):
    """Sums of `values` by bin, (bins,). Rows are summed first, so that float counts stay exact."""
    rows = ops.shape(values)[0]
    position = bin_of + bins * ops.arange(rows, dtype="int32")[:, None]
    flat = (ops.reshape(x, (-1,)) for x in (values, position))
    return ops.sum(ops.reshape(ops.segment_sum(*flat, rows * bins), (rows, bins)), axis=0)


def _histogram(number, shift):
    """Fraction of the pairs at each edge of the bins, and the number of pairs (at least 1).

    A pair contributes `shift` to the upper edge of its bin and the rest to the lower edge.
    """
    edges = ops.pad(number - shift, (0, 1)) + ops.pad(shift, (1, 0))
    pairs = ops.maximum(ops.sum(number), 1)
    return edges / pairs, pairs


@export
class HistogramLoss(PairLoss):
    """Histogram loss: probability that a negative pair is more similar than a positive pair.

    It has no margin to tune, but needs large batches to estimate the two histograms of
    similarities.

        loss = sum over edges r of h_negative(r) * (sum over q up to r of h_positive(q))

    with h the fractions of the pairs at the edges of `num_bins` bins over the cosines -1 to 1. A
    pair contributes to the two edges next to its cosine, by linear interpolation. Each pair of
    items counts once, if one of the two has both a positive and a negative.

    It is one value for the whole batch: it takes no `reduction` and no `sample_weight`.

    Args:
        num_bins: number of bins, at least 1; there is one edge more. Default None: 100, or 2 /
            `delta`. With fewer bins each pair has a wider influence.
        delta: width of a bin, 2 / num_bins; an alternative to `num_bins`. Default None.
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        name: name of the loss.
        dtype: dtype of the result; cosines are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a `delta` that does not divide 2 or contradicts `num_bins`,
            sample weights, or labels of a wrong kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]], "float32")
    >>> loss = keras_metric.losses.HistogramLoss()
    >>> round(float(loss(np.array([0, 1, 0, 1]), points)), 3)
    0.75

    Reference:
        Ustinova and Lempitsky, "Learning Deep Embeddings with Histogram Loss", 2016,
        https://arxiv.org/abs/1611.00822
    """

    is_one_number = True

    renamed_arguments = {"n_bins": "num_bins"}
    # The histograms are over the pairs of the whole batch.
    rows_depend_on = "batch"

    def __init__(
        self,
        num_bins=None,
        delta=None,
        mining="all",
        labels="ids",
        memory=None,
        name="histogram_loss",
        dtype=None,
    ):
        whole = "sum_over_batch_size"
        super().__init__("cosine", mining, labels, whole, name, dtype, memory)
        if num_bins is not None:
            check_count("num_bins", num_bins)
        if delta is not None:
            check_number("delta", delta, above=0, at_most=2)
        self.num_bins = num_bins
        self.delta = delta
        self.bins = _number_of_bins(num_bins, delta)

    def batch_parts(self, reports, labels, embeddings, *references):
        distance, pairs = self.chosen(reports, labels, embeddings, *references)
        both = pairs.has_both[:, None]
        masks = [ops.logical_and(mask, both) for mask in (pairs.positive, pairs.negative)]
        if not references:
            # (i, j) and (j, i) count half each, if either counts.
            masks = [ops.logical_or(mask, ops.transpose(mask)) for mask in masks]
        value = histogram_value(1 - distance, *masks, self.bins)
        return whole_batch(value, ops.shape(embeddings)[0])


def _number_of_bins(num_bins, delta):
    if delta is None:
        return num_bins or 100
    bins = round(2 / delta)
    if abs(bins * delta - 2) > 1e-6 or num_bins not in (None, bins):
        raise ValueError(
            "`delta` must be 2 / num_bins for a whole number of bins. Give one of the two. "
            f"Received: num_bins={num_bins!r}, delta={delta!r}"
        )
    return bins
