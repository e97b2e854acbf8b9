"""The lifted structure loss of tensorflow-addons."""

from keras_metric.addons.losses.addons_loss import AddonsLoss, as_margin, drop_in
from keras_metric.addons.losses.metric_learning import pairwise_distance
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.pair_terms import lifted_structure_rows


@drop_in
class LiftedStructLoss(AddonsLoss):
    """Compares each positive pair of a batch with every negative of its two items.

        J(i, j) = log(sum_k exp(margin - d(i, k)) + sum_l exp(margin - d(j, l))) + d(i, j)
        loss    = 1/2 * mean of max(J(i, j), 0)**2 over the positive pairs

    with k over the negatives of i, l over those of j, and Euclidean distances of embeddings that
    are not normalised. New code takes `keras_metric.losses.LiftedStructureLoss`, whose defaults are
    the same.

    A batch of one class, and one without two items of a class, NaN in tensorflow-addons, give 0.

    Args:
        margin: in units of the distance. Default 1.
        name: name of the loss.
        **kwargs: `reduction`, one of Keras's names. The loss is one number, so none changes it.

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
        partners = class_pairs.from_labels(labels)
        reports.add_distances(distance, distance, partners.positive, partners.negative)
        return [lifted_structure_rows(distance, partners, self.margin, 0.0, smooth=True)]


@drop_in
def lifted_struct_loss(labels, embeddings, margin=1.0):
    """`LiftedStructLoss` as a function.

    Args:
        labels: class ids `(batch,)` or `(batch, 1)`, compared as they are.
        embeddings: `(batch, dim)`, not normalised.
        margin: in units of the distance. Default 1.

    Returns:
        The loss, a scalar with the dtype of `embeddings`.

    Raises:
        ValueError: for labels of a wrong shape or kind.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> round(float(tfa.losses.lifted_struct_loss(np.array([0, 0, 1, 1]), points)), 3)
    2.007
    """
    return LiftedStructLoss(margin, name="lifted_struct_loss")(labels, embeddings)


__all__ = ["LiftedStructLoss", "lifted_struct_loss"]
