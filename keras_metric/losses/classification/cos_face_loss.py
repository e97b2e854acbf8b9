"""CosFace loss."""

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import ClassLoss


@export
class CosFaceLoss(ClassLoss):
    """CosFace: softmax over cosines, minus a margin for the item's own class.

    Easier to train than `ArcFaceLoss`, with similar accuracy. A batch may hold one item of a class.
    `EmbeddingModel` trains and saves the class vectors.

        loss = mean over items of -log( e(cos_y - margin) / (e(cos_y - margin)
               + sum of e(cos_c) over the other classes c) ),   e(s) = exp(scale * s)

    with cos_c the cosine of the item and the vector of class c, and y the item's class.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        margin: subtracted from the cosine, at least 0. Default 0.35, as in the paper.
        scale: factor of the cosines, above 0. Default 64, as in the paper.
        embedding_dim: dimension of the embeddings. Default None: `EmbeddingModel` sets it.
        initializer: Keras initializer of the class vectors. Default None: normal, norm about 1.
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result; computed in float32 or wider.
        sample_rate: fraction of the other classes in a training step, above 0 and at most 1; the
            classes of the batch are always included. Default 1.0, all classes; 0.1 saves most of
            the time and memory from about 100,000 classes on. See "Many classes" in docs/losses.md.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for a number out of range, an id outside 0 to num_classes - 1, or a call outside
            an `EmbeddingModel` with `embedding_dim=None`.

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
        sample_rate=1.0,
    ):
        super().__init__(
            num_classes,
            embedding_dim,
            initializer,
            reduction,
            name,
            dtype,
            sample_rate=sample_rate,
        )
        self.margin = check_number("margin", margin, at_least=0)
        self.scale = check_number("scale", scale, above=0)

    def with_margin(self, cosine):
        return cosine - self.margin
