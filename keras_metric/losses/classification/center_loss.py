"""Center loss."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import ClassLoss, class_terms


def updated_centers(centers, embeddings, own, alpha):
    """Class centers (classes, dim) after an update of step size `alpha` towards the batch."""
    ones = ops.cast(own.valid, embeddings.dtype)[:, None]
    rows = ops.concatenate([ops.where(own.valid[:, None], embeddings, 0), ones], axis=1)
    sums = ops.segment_sum(rows, own.ids, num_segments=centers.shape[0])
    number = sums[:, -1:]
    difference = number * centers - sums[:, :-1]
    return centers - alpha * difference / (1 + number)


@export
class CenterLoss(ClassLoss):
    """Center loss: squared distance of each item to a running center of its class.

    It has no term that separates classes, so add it to a loss that does, with `WeightedSum`:

        losses.WeightedSum([(1, losses.NormalizedSoftmaxLoss(C)), (0.003, losses.CenterLoss(C))])

    The optimizer does not train the centers: after each training step `EmbeddingModel` updates
    those of the classes in the batch, and saves them.

        loss = mean over items of |x - c_y|^2 / 2
        c_j <- c_j - alpha * sum over the items of class j of (c_j - x) / (1 + their number)

    with c_y the center of the item's class.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        alpha: step size of the center update, above 0 and at most 1. Default 0.5, as in the paper.
        embedding_dim: dimension of the embeddings. Default None: `EmbeddingModel` sets it.
        initializer: Keras initializer of the centers, (num_classes, dim). Default "zeros".
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result; computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for a number out of range, an id outside 0 to num_classes - 1, or a call outside
            an `EmbeddingModel` with `embedding_dim=None`.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> loss = keras_metric.losses.CenterLoss(2, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.223

    Reference:
        Wen, Zhang, Li and Qiao, "A Discriminative Feature Learning Approach for Deep Face
        Recognition", 2016, https://doi.org/10.1007/978-3-319-46478-7_31
    """

    is_softmax = False

    # The centers are updated by the items of the whole batch.
    rows_depend_on = "batch"
    keeps_state = True

    def __init__(
        self,
        num_classes,
        alpha=0.5,
        embedding_dim=None,
        initializer="zeros",
        reduction="mean_valid",
        name="center_loss",
        dtype=None,
    ):
        super().__init__(
            num_classes, embedding_dim, initializer, reduction, name, dtype, learned=False
        )
        self.alpha = check_number("alpha", alpha, above=0, at_most=1)

    def class_parts(self, reports, embeddings, vectors, own):
        vectors = ops.stop_gradient(vectors)
        centers = ops.take(vectors, own.ids, axis=0)
        distance = distances.elementwise(embeddings, centers, "squared_euclidean")
        reports.add_distances(distance, None, own.valid)
        reports.update(self.proxies.vectors, updated_centers(vectors, embeddings, own, self.alpha))
        return [class_terms(distance / 2, own.valid)]
