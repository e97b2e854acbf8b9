"""CenterLoss: items keep near the centre of their class, which follows them."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import ClassLoss, class_terms


def moved_centers(centers, embeddings, own, alpha):
    """The centres (classes, dim) after a batch, each a way `alpha` nearer to its items."""
    member = ops.cast(own, embeddings.dtype)
    number = ops.sum(member, axis=0)[:, None]
    pull = number * centers - ops.matmul(ops.transpose(member), embeddings)
    return centers - alpha * pull / (1 + number)


@export
class CenterLoss(ClassLoss):
    """Draws items to the centre of their class; a partner for a loss that keeps classes apart.

    By itself it is content with one point for all: add it to a loss on classes or pairs,

        losses.WeightedSum([(1, losses.NormalizedSoftmaxLoss(C)), (0.003, losses.CenterLoss(C))])

    The centres are no trained weights: after each training step `EmbeddingModel` moves those of the
    classes in the batch, and saves them.

        loss = mean over items of |x - c_y|^2 / 2
        c_j <- c_j - alpha * sum over the items of class j of (c_j - x) / (1 + their number)

    with c_y the centre of the item's class.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        alpha: how far centres move in a step, above 0 and at most 1. Default 0.5, as in the paper.
        embedding_dim: length of an embedding. Default None: `EmbeddingModel` tells it. Give it to
            use the loss in a step of your own.
        initializer: Keras initializer of the centres, (num_classes, dim). Default "zeros".
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result. It is computed in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for a number out of its range, an id outside 0 to num_classes - 1, or outside an
            `EmbeddingModel` as long as `embedding_dim` is not given.

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

    # The centres move by the items of the whole batch.
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
        check_number("alpha", alpha, above=0, at_most=1)
        self.alpha = alpha

    def class_parts(self, reports, embeddings, vectors, own):
        vectors = ops.stop_gradient(vectors)
        centers = ops.matmul(ops.cast(own, vectors.dtype), vectors)
        distance = distances.elementwise(embeddings, centers, "squared_euclidean")
        reports.add_distances(distance, None, ops.any(own, axis=1))
        reports.update(self.proxies.vectors, moved_centers(vectors, embeddings, own, self.alpha))
        return [class_terms(distance / 2, own)]
