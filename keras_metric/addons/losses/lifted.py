"""Lifted structure loss of tensorflow-addons."""

from keras_metric.addons.losses.addons_loss import AddonsLoss, as_margin, drop_in
from keras_metric.addons.losses.metric_learning import pairwise_distance
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.pair_terms import lifted_structure_rows


@drop_in
class LiftedStructLoss(AddonsLoss):
    """Lifted structure loss: each positive pair of a batch against all negatives of its two items.

        J(i, j) = log(sum_k exp(margin - d(i, k)) + sum_l exp(margin - d(j, l))) + d(i, j)
        loss    = 1/2 * mean of max(J(i, j), 0)**2 over the positive pairs

    with k over the negatives of i, l over those of j, and Euclidean distances of embeddings that
    are not normalised. In new code use `keras_metric.losses.LiftedStructureLoss`, which has the
    same defaults. A batch of one class, and a batch without two items of a class, are 0 (NaN in
    tensorflow-addons).

    Args:
        margin: in units of the distance. Default 1.
        name: name of the loss.
        **kwargs: `reduction`, a reduction of Keras; it has no effect on a scalar.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown reduction, or labels of a wrong shape or kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> loss = tfa.losses.LiftedStructLoss()
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    2.007

    Reference:
        Song, Xiang, Jegelka and Savarese, "Deep Metric Learning via Lifted Structured Feature
        Embedding", 2016, https://arxiv.org/abs/1511.06452
    """

    def __init__(self, margin=1.0, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.margin = as_margin(margin)

    def batch_parts(self, reports, labels, embeddings):
        distance = pairwise_distance(embeddings)
        pairs = class_pairs.from_labels(labels)
        reports.add_distances(distance, distance, pairs.positive, pairs.negative)
        return [lifted_structure_rows(distance, pairs, self.margin, 0.0, smooth=True)]


@drop_in
def lifted_struct_loss(labels, embeddings, margin=1.0):
    """`LiftedStructLoss` as a function, with the same errors.

    Args:
        labels: class ids `(batch,)` or `(batch, 1)`, compared without rounding.
        embeddings: `(batch, dim)`, not normalised.
        margin: in units of the distance. Default 1.

    Returns:
        The loss, a scalar with the dtype of `embeddings`.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> round(float(tfa.losses.lifted_struct_loss(np.array([0, 0, 1, 1]), points)), 3)
    2.007
    """
    return LiftedStructLoss(margin, name="lifted_struct_loss")(labels, embeddings)


__all__ = ["LiftedStructLoss", "lifted_struct_loss"]
