"""HistogramLoss: how likely a negative pair is more similar than a positive pair."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_count, check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import whole_batch
from keras_metric.pairwise.blockwise import incoming_gradient, untraced


def histogram_value(cosine, positive, negative, num_bins):
    """The loss of the pairs in two masks of the shape of `cosine`, one number."""
    width = 2 / num_bins

    @ops.custom_gradient
    def run(cosine):
        (cosine,) = untraced((cosine,))
        place = (cosine + 1) / width
        bin_of = ops.cast(ops.where(place > 0, ops.minimum(place, num_bins - 1), 0), "int32")
        beyond = place - ops.cast(bin_of, place.dtype)
        # Bins of positives, then of negatives, then one for those that are no pair.
        bin_of = ops.where(negative, bin_of + num_bins, bin_of)
        bin_of = ops.where(ops.logical_or(positive, negative), bin_of, 2 * num_bins)

        number = _sums(ops.ones_like(beyond), bin_of, 2 * num_bins + 1)
        shift = _sums(beyond, bin_of, 2 * num_bins + 1)
        near, near_pairs = _histogram(number[:num_bins], shift[:num_bins])
        far, far_pairs = _histogram(number[num_bins:-1], shift[num_bins:-1])

        def grad(*args, upstream=None):
            # A pair moves from the lower edge of its bin to the upper one.
            pull, push = -far[:-1] / near_pairs, near[1:] / far_pairs
            slopes = ops.concatenate([pull, push, ops.zeros_like(pull[:1])]) / width
            return incoming_gradient(args, upstream) * ops.take(slopes, bin_of)

        return ops.sum(far * ops.cumsum(near)), grad

    return run(cosine)


def _sums(values, bin_of, bins):
    """Sums of `values` by bin, (bins,): of each row first, so that counts stay exact."""
    rows = ops.shape(values)[0]
    place = bin_of + bins * ops.arange(rows, dtype="int32")[:, None]
    flat = (ops.reshape(x, (-1,)) for x in (values, place))
    return ops.sum(ops.reshape(ops.segment_sum(*flat, rows * bins), (rows, bins)), axis=0)


def _histogram(number, shift):
    """Shares of the edges of the bins, and how many pairs there are (1, if there is none).

    A pair counts for the two edges of its bin: `shift` of it for the upper, the rest for the
    lower edge.
    """
    edges = ops.pad(number - shift, (0, 1)) + ops.pad(shift, (1, 0))
    pairs = ops.maximum(ops.sum(number), 1)
    return edges / pairs, pairs


@export
class HistogramLoss(PairLoss):
    """Pulls the histograms of positive and of negative similarities apart.

    Reach for it where margins are hard to choose: it has none, nor any other number to tune. It
    estimates how likely a random negative pair is more similar than a random positive pair, and
    wants large batches for that.

        loss = sum over edges r of h_negative(r) * (sum over q up to r of h_positive(q))

    with h the shares of the pairs at the edges of `num_bins` bins over the cosines -1 to 1. A pair
    counts for the two edges beside its cosine, by its nearness to each. Each pair of items counts
    once, if one of the two has both a positive and a negative.

    It is one number for the whole batch: it takes no `reduction` and no `sample_weight`.

    Args:
        num_bins: number of bins, at least 1; the histogram has one edge more. Default None: 100, or
            what `delta` says. Fewer give each pair a wider reach.
        delta: width of a bin, 2 / num_bins, in place of `num_bins`. Default None.
        mining: which pairs count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        name: name of the loss.
        dtype: dtype of the result. Cosines are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a `delta` that does not divide 2 or contradicts `num_bins`,
            sample weights, or labels of another kind.

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
    # Its histograms are of the pairs of the whole batch.
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
        distance, partners = self.chosen(reports, labels, embeddings, *references)
        both = partners.has_both[:, None]
        masks = [ops.logical_and(mask, both) for mask in (partners.positive, partners.negative)]
        if not references:
            # A pair and the same pair turned round count half each, if either counts.
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
