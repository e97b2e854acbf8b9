"""CosFaceLoss: classification with a margin taken off the cosine of the own class."""

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import ClassLoss, check_scale


@export
class CosFaceLoss(ClassLoss):
    """Large margin cosine loss: an item's cosine with its class has to be larger by a margin.

    Easier to train than `ArcFaceLoss`, and nearly as sharp. Batches need no two items of a class.
    `EmbeddingModel` trains and saves the class vectors.

        loss = mean over items of -log( e(cos_y - margin) / (e(cos_y - margin)
               + sum of e(cos_c) over the other classes c) ),   e(s) = exp(scale * s)

    with cos_c the cosine of the item and the vector of class c, y its own.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        margin: taken off the cosine, at least 0. Default 0.35, as in the paper.
        scale: factor of the cosines, above 0. Default 64, as in the paper.
        embedding_dim: length of an embedding. Default None: `EmbeddingModel` tells it. Give it to
            use the loss in a step of your own.
        initializer: Keras initializer of the class vectors, (num_classes, dim). Default None:
            normal, of length about 1, so that a step turns them neither too little nor too far.
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
    >>> loss = keras_metric.losses.CosFaceLoss(2, scale=4, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.836

    Reference:
        Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", 2018,
        https://arxiv.org/abs/1801.09414
    """

    def __init__(
        self,
        num_classes,
        margin=0.35,
        scale=64,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="cos_face_loss",
        dtype=None,
    ):
        super().__init__(num_classes, embedding_dim, initializer, reduction, name, dtype)
        check_number("margin", margin, at_least=0)
        check_scale(scale)
        self.margin = margin
        self.scale = scale

    def with_margin(self, cosine):
        return cosine - self.margin
