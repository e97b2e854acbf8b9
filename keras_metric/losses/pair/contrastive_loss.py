"""ContrastiveLoss: positives together, negatives at least a margin apart."""

import numbers

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import as_array, check_number
from keras_metric.losses.metric_loss import check_branches, scores_of_pairs
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import bounded_square, masked_terms, single_terms

MEANING_OF_Y = "1 where the two items are the same, 0 where they differ"


def pull_and_push(distance, margin, positive_margin, power):
    """Terms of a pair at `distance` if it is a positive, and if it is a negative."""
    pull, push = ops.relu(distance - positive_margin), ops.relu(margin - distance)
    return (bounded_square(pull), bounded_square(push)) if power == 2 else (pull, push)


def contrastive_pairs(distance, pairs, margin, positive_margin, power=1):
    """Parts of a labelled batch: positive and negative terms."""
    pull, push = pull_and_push(distance, margin, positive_margin, power)
    return [masked_terms(pull, pairs.positive), masked_terms(push, pairs.negative)]


def contrastive_tuples(
    reports, y_true, branches, metric, margin, positive_margin, power=1, positive_label=1
):
    """Parts of ready-made pairs: positive and negative terms."""
    check_branches(branches, 2, "first, second")
    distance = distances.elementwise(*branches, metric)
    check_same(y_true)
    same = scores_of_pairs(y_true, branches[0])
    if positive_label == 0:
        same = 1 - same
    reports.add_distances(distance, distance, same, 1 - same)
    pull, push = pull_and_push(distance, margin, positive_margin, power)
    # Graded targets between 0 and 1 count as a part of each kind.
    return [single_terms(same * pull, same > 0), single_terms((1 - same) * push, same < 1)]


def check_one_of(argument, value, allowed):
    """Raise unless `value` is one of the integers `allowed`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value not in allowed:
        raise ValueError(f"`{argument}` must be one of {allowed}. Received: {argument}={value!r}")


def check_same(y):
    """Raise unless each of the NumPy `y` of ready-made pairs is 0, 1 or between them."""
    if ops.is_tensor(y):
        return
    y = as_array("y_true", y)
    if y.dtype.kind in "iuf" and y.size and not (y.min() >= 0 and y.max() <= 1):
        raise ValueError(
            f"`y_true` of pairs must lie between 0 and 1. Received: from {y.min()} to "
            f"{y.max()}. Of -1 and 1 make (y + 1) / 2; of two class ids a pair, "
            "np.equal(first, second).astype('float32')."
        )


@export
class ContrastiveLoss(PairLoss):
    """Pulls the two items of a positive pair together, pushes those of a negative pair apart.

    For pairs: y_true says whether the two are the same, embeddings have shape (batch, 2, dim).
    A labelled batch (integer labels, embeddings (batch, dim)) gives all its ordered pairs.

        positive pair: max(d - positive_margin, 0)**power
        negative pair: max(margin - d, 0)**power

    The mean over the positive terms and the mean over the negative terms are added, so that the
    many negatives of a batch do not outweigh its few positives.

    Args:
        margin: distance beyond which a negative pair is left alone, in units of `distance`.
            Default 1, the middle of the range 0 to 2 of unit vectors.
        positive_margin: distance up to which a positive pair is left alone. Default 0.
        power: 1 (default, as in pytorch-metric-learning) or 2 (the literature).
        distance: metric name, see `keras_metric.distances`. Default "euclidean".
        positive_label: value of y_true that means "same" in ready-made pairs: 1 (default), or 0
            for the convention of Hadsell et al.
        mining: which pairs of a labelled batch count: "all" (default), the name of a strategy of
            `layers.PairMiner`, or a miner. Ready-made pairs are all taken.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            sharing a label makes a positive pair.
        memory: a `layers.CrossBatchMemory`, to compare with past batches as well. Default None.
        reduction: "mean_active" (default): positive and negative terms each averaged over those
            greater than zero. "mean_valid": each over all pairs of its kind.
            "sum_over_batch_size" on ready-made pairs: sum of all terms over the batch, the
            formula of the literature.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, labels of a batch that are no class ids, another number
            of branches, or y of pairs outside 0 to 1.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> pairs = np.array([[[0.0, 0.0], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.4]]], "float32")
    >>> loss = keras_metric.losses.ContrastiveLoss(power=2, reduction="sum_over_batch_size")
    >>> round(float(loss(np.array([1, 0]), pairs)), 3)
    0.305

    Reference:
        Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping",
        2006, https://doi.org/10.1109/CVPR.2006.100
    """

    num_branches = (2,)
    y_of_pairs = MEANING_OF_Y

    def __init__(
        self,
        margin=1.0,
        positive_margin=0.0,
        power=1,
        distance="euclidean",
        positive_label=1,
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_active",
        name="contrastive_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        check_number("margin", margin)
        check_number("positive_margin", positive_margin)
        check_one_of("power", power, (1, 2))
        check_one_of("positive_label", positive_label, (0, 1))
        self.margin = margin
        self.positive_margin = positive_margin
        self.power = power
        self.positive_label = positive_label

    def pair_parts(self, distance, partners):
        return contrastive_pairs(distance, partners, self.margin, self.positive_margin, self.power)

    def check_pairs(self, y):
        check_same(y)

    def reads_ids(self, num_branches):
        return False

    def tuple_parts(self, reports, y_true, branches):
        settings = (self.margin, self.positive_margin, self.power, self.positive_label)
        return contrastive_tuples(reports, y_true, branches, self.distance, *settings)
