"""MarginLoss: positives below a boundary distance, negatives above it, each by a margin."""

from keras import ops

from keras_metric import mining as rules
from keras_metric._checks import check_choice, check_number
from keras_metric._export import export
from keras_metric.layers.triplet_miner import TripletMiner
from keras_metric.losses.metric_loss import measured_pairs
from keras_metric.losses.pair_loss import PairLoss, chosen_pairs
from keras_metric.losses.rows import Rows
from keras_metric.losses.triplet_rows import triplet_counts
from keras_metric.mining import pair_rules

COUNTS = ("pairs", "triplets")


def margin_rows(distance, positive, negative, margin, beta):
    """Rows over pairs that count `positive` and `negative` times, both (batch, references)."""
    pull = ops.where(positive > 0, ops.relu(distance - beta + margin), 0)
    push = ops.where(negative > 0, ops.relu(beta - distance + margin), 0)
    active = ops.where(pull > 0, positive, 0) + ops.where(push > 0, negative, 0)
    total = ops.sum(pull * positive + push * negative, axis=1)
    return Rows(total, ops.sum(active, axis=1), ops.sum(positive + negative, axis=1))


@export
class MarginLoss(PairLoss):
    """Keeps positives nearer than a boundary, and negatives beyond it, each by a margin.

    As simple as the contrastive loss, and as lenient as the triplet loss: positives need not
    meet in a point. Reach for it together with `mining="distance-weighted"`, the sampling that
    the paper wants for it, on unit vectors.

        positive pair: max(d - beta + margin, 0)
        negative pair: max(beta - d + margin, 0)

    Each triplet (a, p, n) gives both, so a pair counts once for each triplet it is part of; the
    loss is the mean over those greater than zero.

    Args:
        margin: how far from the boundary pairs are to be, in units of `distance`. Default 0.2,
            as in the paper.
        beta: the boundary, in units of `distance`. Default 1.2, for Euclidean distances of unit
            vectors.
        count: "triplets" (default): a pair counts once for each triplet it is part of, as in
            pytorch-metric-learning. "pairs": every pair counts once.
        distance: metric name; default "euclidean".
        mining: which triplets or pairs count: "all" (default), the name of a strategy of
            `layers.TripletMiner` or of `layers.PairMiner`, or a miner. A pair miner leaves every
            triplet of the pairs that it chooses.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        reduction: default "mean_active", the mean over terms greater than zero.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        ValueError: for an unknown name, a number out of its range, or labels of another kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> loss = keras_metric.losses.MarginLoss()
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.8

    Reference:
        Wu, Manmatha, Smola and Krähenbühl, "Sampling Matters in Deep Embedding Learning", 2017,
        https://arxiv.org/abs/1706.07567
    """

    def __init__(
        self,
        margin=0.2,
        beta=1.2,
        count="triplets",
        distance="euclidean",
        mining="all",
        labels="ids",
        reduction="mean_active",
        name="margin_loss",
        dtype=None,
    ):
        super().__init__(distance, _miner(mining), labels, reduction, name, dtype)
        check_number("margin", margin)
        check_number("beta", beta)
        check_choice("count", count, COUNTS)
        self.margin = margin
        self.beta = beta
        self.count = count
        self.mining = mining

    def batch_parts(self, labels, embeddings, *references):
        distance, partners = measured_pairs(labels, embeddings, self.distance, *references)
        context = self.context(distance, embeddings, *references)
        counts = self._counts(distance, partners, context)
        return [margin_rows(distance, *counts, self.margin, self.beta)]

    def _counts(self, distance, partners, context):
        """How often each positive and each negative pair counts."""
        if isinstance(self.miner, TripletMiner):
            counts = triplet_counts(distance, partners, self.miner, **context)
            return counts if self.count == "triplets" else [ops.minimum(c, 1) for c in counts]
        chosen = chosen_pairs(self.miner, distance, partners)
        masks = chosen.positive, chosen.negative
        counts = [ops.cast(mask, distance.dtype) for mask in masks]
        if self.count == "pairs":
            return counts
        others = chosen.num_negatives, chosen.num_positives
        return [c * ops.cast(number, c.dtype)[:, None] for c, number in zip(counts, others)]


def _miner(mining):
    """`mining`, with a miner for the name of a strategy that chooses triplets."""
    if isinstance(mining, str):
        check_choice("mining", mining, (*rules.STRATEGIES, *pair_rules.STRATEGIES))
        if mining in rules.STRATEGIES and mining != "all":
            return TripletMiner(mining)
    return mining
