"""Margin loss."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_count, check_flag, check_number
from keras_metric.losses.classification.class_loss import check_class_ids, members
from keras_metric.losses.metric_loss import measured_pairs
from keras_metric.losses.pair.pair_loss import PairLoss, chosen_pairs
from keras_metric.losses.reductions import count_once
from keras_metric.losses.triplet.triplet_loss import triplet_counts
from keras_metric.mining import pair_rules, triplet_rules
from keras_metric.mining.triplet_miner import TripletMiner
from keras_metric.pairwise.anchor_rows import Rows

COUNTS = ("pairs", "triplets")


def margin_rows(distance, positive, negative, margin, beta):
    """Rows over pairs; `positive` and `negative` (batch, references) hold how often each counts."""
    near = ops.where(positive > 0, ops.relu(distance - beta + margin), 0)
    far = ops.where(negative > 0, ops.relu(beta - distance + margin), 0)
    active = ops.where(near > 0, positive, 0) + ops.where(far > 0, negative, 0)
    total = ops.sum(near * positive + far * negative, axis=1)
    return Rows(total, ops.sum(active, axis=1), ops.sum(positive + negative, axis=1))


class Boundaries(keras.layers.Layer):
    """Learned boundaries (number,): one for all classes, or one for each."""

    def __init__(self, number, start, **kwargs):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})
        self.number, self.start = number, start

    def build(self, input_shape):
        start = keras.initializers.Constant(self.start)
        self.beta = self.add_weight((self.number,), start, name="beta")


@export
class MarginLoss(PairLoss):
    """Margin loss: positive distances below a boundary, negative distances above it.

    It is computed as simply as the contrastive loss, but like the triplet loss it does not move the
    positives to one point. Use it with `mining="distance-weighted"`, the sampling of the paper, on
    unit vectors.

        positive pair: max(d - beta + margin, 0)
        negative pair: max(beta - d + margin, 0)

    Each triplet (a, p, n) has both terms, so a pair counts once for each triplet it is part of; the
    loss is the mean over the terms greater than zero.

    Args:
        margin: distance that pairs should keep from the boundary, in units of `distance`. Default
            0.2, as in the paper.
        beta: the boundary, in units of `distance`. Default 1.2, for Euclidean distances of unit
            vectors.
        learn_beta: True trains the boundary, from `beta` on; `EmbeddingModel` trains and saves it.
            Default False. Set its own learning rate with `keras.optimizers.MultiOptimizer`; the
            paper uses 10 times that of the network.
        num_classes: with `learn_beta`, one boundary per class, ids 0 to num_classes - 1. Default
            None: one boundary for all classes.
        nu: with `learn_beta`, weight of the boundaries in the loss, at least 0: limits their
            growth. Default 0. As in pytorch-metric-learning, one boundary adds nu * beta;
            boundaries of classes add the sum of nu * beta over triplets, divided as the loss is.
        count: "triplets" (default): a pair counts once for each triplet it is part of, as in
            pytorch-metric-learning. "pairs": every pair counts once.
        distance: metric name; default "euclidean".
        mining: triplets or pairs to use: "all" (default), a strategy of `layers.TripletMiner` or of
            `layers.PairMiner`, or a miner. With a pair miner all triplets of its pairs count.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_active", the mean over terms greater than zero, as in the authors'
            code.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a number out of range, or labels of a wrong kind.

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
        learn_beta=False,
        num_classes=None,
        nu=0.0,
        count="triplets",
        distance="euclidean",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_active",
        name="margin_loss",
        dtype=None,
    ):
        super().__init__(distance, _miner(mining), labels, reduction, name, dtype, memory)
        self.margin = check_number("margin", margin)
        self.beta = check_number("beta", beta)
        self.learn_beta = check_flag("learn_beta", learn_beta)
        self.nu = check_number("nu", nu, at_least=0)
        if num_classes is not None:
            check_count("num_classes", num_classes, at_least=2)
        if not learn_beta and (num_classes is not None or nu):
            raise ValueError(
                "`num_classes` and `nu` require learned boundaries, learn_beta=True. "
                f"Received: num_classes={num_classes!r}, nu={nu!r}"
            )
        self.count = check_choice("count", count, COUNTS)
        if labels != "ids" and num_classes is not None:
            raise ValueError(
                f'A boundary for each class needs labels="ids". Received: labels={labels!r}'
            )
        self.num_classes = num_classes
        self.mining = mining
        self.boundaries = None
        if learn_beta:
            self.boundaries = Boundaries(num_classes or 1, beta, name=name)
            self.layers += (self.boundaries,)

    def check_ids(self, labels):
        """Raise unless each of the NumPy `labels` has a boundary."""
        super().check_ids(labels)
        if self.num_classes is not None:
            check_class_ids(self.name, labels, self.num_classes)

    def _checked_labels(self, labels, name):
        ids = super()._checked_labels(labels, name)
        if name == "y_true" and self.num_classes is not None and not ops.is_tensor(labels):
            check_class_ids(self.name, labels, self.num_classes)
        return ids

    def batch_parts(self, reports, labels, embeddings, *references):
        distance, pairs = measured_pairs(reports, labels, embeddings, self.distance, *references)
        context = self.context(distance, embeddings, *references)
        counts = self._counts(distance, pairs, context)
        if self.boundaries is None:
            return [margin_rows(distance, *counts, self.margin, self.beta)]
        beta = self._learned(reports, labels, distance.dtype)
        rows = margin_rows(distance, *counts, self.margin, beta)
        if not self.nu:
            return [rows]
        # A class boundary counts once for each of its positive pairs, a single boundary once.
        once = self.num_classes is None
        number = count_once(rows, self.reduction) if once else ops.sum(counts[0], axis=1)
        return [rows._replace(total=rows.total + self.nu * beta[:, 0] * number)]

    def _learned(self, reports, labels, dtype):
        """The boundary of each anchor, (batch, 1), or (1, 1)."""
        beta = ops.cast(self.boundaries.beta, dtype)
        if self.num_classes is None:
            return beta[:, None]
        own = members(reports, labels, self.num_classes, self)
        mine = ops.sum(ops.where(own, beta[None, :], 0), axis=1, keepdims=True)
        return ops.where(ops.any(own, axis=1, keepdims=True), mine, float("nan"))

    def _counts(self, distance, pairs, context):
        """Number of times that each positive and each negative pair counts."""
        if isinstance(self.miner, TripletMiner):
            counts = triplet_counts(distance, pairs, self.miner, **context)
            return counts if self.count == "triplets" else [ops.minimum(c, 1) for c in counts]
        chosen = chosen_pairs(self.miner, distance, pairs)
        masks = chosen.positive, chosen.negative
        counts = [ops.cast(mask, distance.dtype) for mask in masks]
        if self.count == "pairs":
            return counts
        others = chosen.num_negatives, chosen.num_positives
        return [c * ops.cast(number, c.dtype)[:, None] for c, number in zip(counts, others)]


def _miner(mining):
    """`mining`, or a `TripletMiner` if it is the name of a triplet strategy."""
    if isinstance(mining, str):
        check_choice("mining", mining, (*triplet_rules.STRATEGIES, *pair_rules.STRATEGIES))
        if mining in triplet_rules.STRATEGIES and mining != "all":
            return TripletMiner(mining)
    return mining
