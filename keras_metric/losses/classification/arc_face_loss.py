"""ArcFaceLoss: classification with a margin added to the angle to the own class."""

import math

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import ClassLoss, check_scale

# Sines below this have no slope: that of the angle is infinite where the cosine is 1.
_TINY = 1e-7


def cosine_of_sum(cosine, margin):
    """cos(angle + margin) for angles given as cosines; `margin` in radians, 0 to pi.

    Beyond 180 degrees it goes on falling: cos(angle) - margin * sin(margin).
    """
    sine = ops.sqrt(ops.maximum(1 - ops.square(cosine), _TINY))
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    return ops.where(
        cosine >= math.cos(math.pi - margin), moved, cosine - margin * math.sin(margin)
    )


@export
class ArcFaceLoss(ClassLoss):
    """Additive angular margin: an item has to be nearer to its class by an angle.

    The standard of face recognition. Reach for it with many classes and clean labels; with noisy
    ones see `SubCenterArcFaceLoss`, with pictures of uneven quality `AdaFaceLoss`. Batches need no
    two items of a class. `EmbeddingModel` trains and saves the class vectors.

        loss = mean over items of -log( e(angle_y + margin) / (e(angle_y + margin)
               + sum of e(angle_c) over the other classes c) ),   e(a) = exp(scale * cos(a))

    with angle_c between the item and the vector of class c, y its own. Where angle_y + margin is
    beyond 180 degrees, its cosine is replaced by cos(angle_y) - margin * sin(margin), which goes on
    falling.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        margin: in degrees, 0 to 180. Default 28.6, which is 0.5 in radians, as in the paper.
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
    >>> loss = keras_metric.losses.ArcFaceLoss(2, scale=4, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.877

    Reference:
        Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019,
        https://arxiv.org/abs/1801.07698
    """

    def __init__(
        self,
        num_classes,
        margin=28.6,
        scale=64,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="arc_face_loss",
        dtype=None,
    ):
        super().__init__(num_classes, embedding_dim, initializer, reduction, name, dtype)
        check_number("margin", margin, at_least=0, at_most=180)
        check_scale(scale)
        self.margin = margin
        self.scale = scale

    def with_margin(self, cosine):
        return cosine_of_sum(cosine, math.radians(self.margin))
