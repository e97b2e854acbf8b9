"""Contrastive loss."""

import numbers

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import as_array, check_number
from keras_metric.losses.metric_loss import check_branches, scores_of_pairs
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.pairwise.anchor_rows import bounded_square, masked_terms, single_terms

MEANING_OF_Y = "1 where the two items are the same, 0 where they differ"


def hinge_terms(distance, margin, positive_margin, power):
    """Terms of pairs at `distance`: as positive pairs, and as negative pairs."""
    near, far = ops.relu(distance - positive_margin), ops.relu(margin - distance)
    return (bounded_square(near), bounded_square(far)) if power == 2 else (near, far)


def contrastive_pairs(distance, pairs, margin, positive_margin, power=1):
    """Parts of a labelled batch: positive and negative terms."""
    near, far = hinge_terms(distance, margin, positive_margin, power)
    return [masked_terms(near, pairs.positive), masked_terms(far, pairs.negative)]


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
    near, far = hinge_terms(distance, margin, positive_margin, power)
    # A graded target between 0 and 1 weights both kinds of terms.
    return [single_terms(same * near, same > 0), single_terms((1 - same) * far, same < 1)]


def check_one_of(argument, value, allowed):
    """Raise unless `value` is one of the integers `allowed`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value not in allowed:
        raise ValueError(f"`{argument}` must be one of {allowed}. Received: {argument}={value!r}")


def check_same(y):
    """Raise unless all NumPy `y` of ready-made pairs are in [0, 1]."""
    if ops.is_tensor(y):
        return
    y = as_array("y_true", y)
    if y.dtype.kind in "iuf" and y.size and not (y.min() >= 0 and y.max() <= 1):
        raise ValueError(
            f"`y_true` of pairs must lie between 0 and 1. Received: from {y.min()} to "
            f"{y.max()}. For -1 and 1 use (y + 1) / 2; for two class ids per pair use "
            "np.equal(first, second).astype('float32')."
        )


@export
class ContrastiveLoss(PairLoss):
    """Contrastive loss: positive pairs close together, negative pairs beyond a margin.

    For ready-made pairs y_true is 1 for a positive pair and 0 for a negative one, and embeddings
    have shape (batch, 2, dim). From a labelled batch (integer labels, embeddings (batch, dim)) it
    takes all ordered pairs.

        positive pair: max(d - positive_margin, 0)**power
        negative pair: max(margin - d, 0)**power

    The loss is the mean over the positive terms plus the mean over the negative terms, so that the
    many negatives of a batch do not dominate its few positives.

    Args:
        margin: distance above which a negative pair has no loss, in units of `distance`. Default 1,
            the middle of the range 0 to 2 of unit vectors.
        positive_margin: distance up to which a positive pair has no loss. Default 0.
        power: 1 (default, as in pytorch-metric-learning) or 2 (as in the paper).
        distance: metric name, see `keras_metric.distances`. Default "euclidean".
        positive_label: value of y_true of a positive ready-made pair: 1 (default), or 0 as in
            Hadsell et al.
        mining: pairs to use of a labelled batch: "all" (default), a strategy of `layers.PairMiner`,
            or a miner. All ready-made pairs are used.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_active": positive and negative terms are each averaged over those
            greater than zero, so that solved pairs do not shrink the gradient. "mean_valid": each
            over all pairs of its kind. "sum_over_batch_size" on ready-made pairs is the paper's sum
            of all terms over the batch size.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, labels that are not class ids, a wrong number
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
        self.margin = check_number("margin", margin)
        self.positive_margin = check_number("positive_margin", positive_margin)
        check_one_of("power", power, (1, 2))
        check_one_of("positive_label", positive_label, (0, 1))
        self.power = power
        self.positive_label = positive_label

    def pair_parts(self, distance, pairs):
        return contrastive_pairs(distance, pairs, self.margin, self.positive_margin, self.power)

    def check_pairs(self, y):
        check_same(y)

    def reads_ids(self, num_branches):
        return False

    def tuple_parts(self, reports, y_true, branches):
        settings = (self.margin, self.positive_margin, self.power, self.positive_label)
        return contrastive_tuples(reports, y_true, branches, self.distance, *settings)
