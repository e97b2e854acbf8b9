"""SphereFaceLoss: the large margin softmax with class vectors of length 1."""

from keras_metric._export import export
from keras_metric._validation import check_count, check_number
from keras_metric.losses.classification.class_loss import ClassLoss, check_scale, cosines
from keras_metric.losses.classification.large_margin_softmax_loss import (
    blended,
    lengths,
)


@export
class SphereFaceLoss(ClassLoss):
    """A-Softmax: as `LargeMarginSoftmaxLoss`, but the length of class vectors does not count.

    The first of the angular margins for faces; `ArcFaceLoss` and `CosFaceLoss` are easier to train.
    Reads the length of embeddings: give the model `normalize=False`. `EmbeddingModel` trains and
    saves the class vectors.

        loss = mean over items of -log( e(psi(angle_y)) / (e(psi(angle_y))
               + sum of e(cos(angle_c)) over the other classes c) ),   e(s) = exp(scale |x| s)
        psi(a) = (-1)^k cos(margin a) - 2k,   k = floor(margin a / 180 degrees)

    with angle_c between the item x and the vector of class c, y its own.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        margin: integer factor of the angle, 1 or more. Default 4, as in the paper.
        scale: factor of the logits, above 0. Default 1.
        blend: weight of the plain cosine, at least 0: the own class gets
            (blend cos(a) + psi(a)) / (blend + 1). Default 0; the authors start from 1,000 and go
            down to 5 in training.
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
    >>> loss = keras_metric.losses.SphereFaceLoss(2, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    1.635

    Reference:
        Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", 2017,
        https://arxiv.org/abs/1704.08063
    """

    def __init__(
        self,
        num_classes,
        margin=4,
        scale=1,
        blend=0,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="sphere_face_loss",
        dtype=None,
    ):
        super().__init__(num_classes, embedding_dim, initializer, reduction, name, dtype)
        check_count("margin", margin)
        check_scale(scale)
        check_number("blend", blend, at_least=0)
        self.margin = margin
        self.scale = scale
        self.blend = blend

    def class_logits(self, embeddings, vectors):
        return cosines(embeddings, vectors), self.scale * lengths(embeddings)

    def with_margin(self, cosine):
        return blended(cosine, self.margin, self.blend)
