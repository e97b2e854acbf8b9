"""Quadruplet loss."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_number
from keras_metric.losses.metric_loss import MetricLoss, check_branches, measured_pairs
from keras_metric.losses.pair.pair_loss import among_references, chosen_pairs
from keras_metric.losses.triplet.triplet_loss import as_miner, triplet_rows
from keras_metric.mining.pair_miner import PairMiner
from keras_metric.pairwise.anchor_rows import Rows, masked_terms, single_terms
from keras_metric.pairwise.blockwise import of_matrix
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE, argmin

QUADRUPLETS = ("second_negative", "two_anchors")
SECOND_PAIRS = ("hardest", "nearest")


@export
class QuadrupletLoss(MetricLoss):
    """Quadruplet loss: a triplet loss with a second negative, or with a second anchor.

    Use it where triplets are satisfied around each anchor but classes overlap across the data set:
    the second term requires every positive pair to be closer than negative pairs without the
    anchor, which bounds the size of classes absolutely.

    `form="second_negative"` (Chen et al.), quadruplets (anchor, positive, negative,
    second_negative), with the two negatives from two further classes:

        max(d(a, p) - d(a, n) + margin, 0) + max(d(a, p) - d(n, n2) + second_margin, 0)

    `form="two_anchors"`, quadruplets (anchor, second_anchor, positive, negative), five distances in
    four hinges:

        max(d(a, p) - d(a, n) + margin, 0)         + max(d(a2, p) - d(a2, n) + margin, 0)
      + max(d(a, a2) - d(a, n) + second_margin, 0) + max(d(a, a2) - d(a2, n) + second_margin, 0)

    From a labelled batch (integer labels, embeddings (batch, dim)) it computes quadruplets without
    listing them. Two anchors: all quadruplets, exactly; a class needs three items. Second negative:
    the first term over the triplets of `mining`, the second over every positive pair and one pair
    (n, n2) of two other classes, chosen by `second_pair`.

    Args:
        margin: of the first term, in units of `distance`. Default 1, as in the paper.
        second_margin: of the second, weaker term; default 0.5, as in the paper.
        distance: metric name or a `layers.Mahalanobis`; default "squared_euclidean", as in the
            paper.
        form: "second_negative" (default) or "two_anchors".
        mining: triplets of a labelled batch: a strategy of `layers.TripletMiner` or a miner;
            default "all". With a `layers.PairMiner`, all triplets of its pairs.
        second_pair: for form="second_negative". "hardest" (default): the closest pair of two other
            classes in the batch. "nearest": the anchor's nearest negative and the nearest item of a
            third class to it, which distributes the gradient over more pairs.
        reduction: default "mean_active": each hinge is averaged over its terms greater than zero,
            then the averages are added, so that solved terms do not shrink the gradient.
            "sum_over_batch_size" on ready-made quadruplets is the formula above, averaged over the
            batch.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, float labels, or a wrong number of branches.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> quadruplet = np.array([[[0.0], [1.0], [1.5], [2.5]]], "float32")
    >>> loss = keras_metric.losses.QuadrupletLoss(distance="euclidean")
    >>> round(float(loss(np.array([0]), quadruplet)), 3)
    1.0

    Reference:
        Chen, Chen, Zhang and Huang, "Beyond triplet loss: a deep quadruplet network for person
        re-identification", 2017, https://arxiv.org/abs/1704.01719
    """

    num_branches = (4,)

    def __init__(
        self,
        margin=1.0,
        second_margin=0.5,
        distance="squared_euclidean",
        form="second_negative",
        mining="all",
        second_pair="hardest",
        reduction="mean_active",
        name="quadruplet_loss",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.margin = check_number("margin", margin)
        self.second_margin = check_number("second_margin", second_margin)
        distances.check_metric("distance", distance)
        self.form = check_choice("form", form, QUADRUPLETS)
        self.second_pair = check_choice("second_pair", second_pair, SECOND_PAIRS)
        if form == "two_anchors" and second_pair != "hardest":
            raise ValueError(
                '`second_pair` requires form="second_negative": two anchors have no second pair. '
                f"Received: form={form!r}, second_pair={second_pair!r}"
            )
        self.distance = distance
        self.mining = mining
        self.pair_miner = mining if isinstance(mining, PairMiner) else None
        self.miner = as_miner(mining, margin)
        self.layers = (self.pair_miner or self.miner, *distances.layers_of(distance))

    def batch_parts(self, reports, labels, embeddings, references=None, reference_labels=None):
        if references is not None and self.form == "two_anchors":
            raise ValueError(
                'form="two_anchors" compares the items of a batch with each other: it takes no '
                'reference set. Use form="second_negative", or put the references into the batch.'
            )
        distance, pairs = measured_pairs(
            reports, labels, embeddings, self.distance, references, reference_labels
        )

        chosen = chosen_pairs(self.pair_miner, distance, pairs)
        between = None
        if self.miner.needs_among:
            between = among_references(distance, self.distance, references)

        def triplets(margin):
            return triplet_rows(
                reports,
                of_matrix(distance),
                chosen,
                self.miner,
                margin,
                "hinge",
                metric=distances.name_of(self.distance),
                dim=embeddings.shape[1],
                among=between,
            )

        if self.form == "two_anchors":
            # Each triplet occurs in one quadruplet for every further item of the class, and the
            # two anchors are interchangeable.
            further = ops.maximum(pairs.num_positives - 1, 0)
            times = ops.cast(further, distance.dtype)
            first, second = (
                Rows(*(times * count for count in triplets(margin)))
                for margin in (self.margin, self.second_margin)
            )
            return [first, first, second, second]
        among = distance
        if references is not None and self.second_pair == "nearest":
            among = distances.pairwise(embeddings, metric=self.distance)
        other, exists = second_pair_distance(distance, pairs, among, self.second_pair)
        gap = distance - other[:, None] + self.second_margin
        mask = ops.logical_and(pairs.positive, exists[:, None])
        return [triplets(self.margin), masked_terms(ops.relu(gap), mask)]

    def tuple_parts(self, reports, y_true, branches):
        def measure(i, j):
            return distances.elementwise(branches[i], branches[j], self.distance)

        if self.form == "two_anchors":
            check_branches(branches, 4, "anchor, second_anchor, positive, negative")
            anchors, near, second_near = measure(0, 1), measure(0, 2), measure(1, 2)
            far, second_far = measure(0, 3), measure(1, 3)
            gaps = [
                near - far + self.margin,
                second_near - second_far + self.margin,
                anchors - far + self.second_margin,
                anchors - second_far + self.second_margin,
            ]
        else:
            check_branches(branches, 4, "anchor, positive, negative, second_negative")
            near, far, others = measure(0, 1), measure(0, 2), measure(2, 3)
            gaps = [near - far + self.margin, near - others + self.second_margin]
        reports.add_distances(near, far)
        return [single_terms(ops.relu(gap)) for gap in gaps]


def second_pair_distance(distance, pairs, among, second_pair):
    """Distance of one pair of two other classes for each anchor, and whether such a pair exists.

    The first of the pair is an item of the batch, the second a reference (without a reference set,
    an item of the batch). `distance` (batch, references); `among` (batch, batch) ranks the batch
    around an anchor for "nearest". There is no loop over classes: the nearest reference of another
    class for each item, and the nearest of a third class, suffice to exclude any anchor's class.
    """
    labels, columns = pairs.labels, pairs.columns
    constant, among = (ops.stop_gradient(matrix) for matrix in (distance, among))
    others = ops.where(pairs.negative, constant, MASKED_DISTANCE)
    nearest, nearest_distance = argmin(others, columns)
    their_class = ops.take(pairs.reference_labels, nearest)
    same = ops.equal(pairs.reference_labels[None, :], their_class[:, None])
    nearest_third, third_distance = argmin(ops.where(same, MASKED_DISTANCE, others), columns)

    foreign = ops.not_equal(labels[:, None], labels[None, :])
    if second_pair == "nearest":
        reach = among
    else:
        # For anchor i and item j: distance of j to the nearest class other than those of i and j.
        clash = ops.equal(their_class[None, :], labels[:, None])
        reach = ops.where(clash, third_distance[None, :], nearest_distance[None, :])
    items = ops.arange(ops.shape(labels)[0], dtype="int32")[None, :]
    row, _ = argmin(ops.where(foreign, reach, MASKED_DISTANCE), items)
    clash = ops.equal(ops.take(their_class, row), labels)
    column = ops.where(clash, ops.take(nearest_third, row), ops.take(nearest, row))
    values = ops.take_along_axis(ops.take(distance, row, axis=0), column[:, None], axis=1)[:, 0]
    first, second = ops.take(labels, row), ops.take(pairs.reference_labels, column)
    exists = ops.not_equal(first, second)
    for label in (first, second):
        exists = ops.logical_and(exists, ops.not_equal(label, labels))
    return values, exists
