"""ArcFace loss."""

import math

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import ClassLoss

# Squared sines below this get no gradient: the derivative of the angle is infinite at cosine 1.
_MIN_SQUARED_SINE = 1e-7


def cosine_of_sum(cosine, margin):
    """cos(angle + margin) for angles given as cosines; `margin` in radians, 0 to pi.

    Beyond 180 degrees it keeps decreasing: cos(angle) - margin * sin(margin).
    """
    sine = ops.sqrt(ops.maximum(1 - ops.square(cosine), _MIN_SQUARED_SINE))
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    return ops.where(
        cosine >= math.cos(math.pi - margin), moved, cosine - margin * math.sin(margin)
    )


@export
class ArcFaceLoss(ClassLoss):
    """ArcFace: softmax over cosines with an additive angular margin for the item's own class.

    The standard loss of face recognition. Use it for many classes with clean labels; for noisy
    labels use `SubCenterArcFaceLoss`, for images of uneven quality `AdaFaceLoss`. A batch may hold
    one item of a class. `EmbeddingModel` trains and saves the class vectors.

        loss = mean over items of -log( e(angle_y + margin) / (e(angle_y + margin)
               + sum of e(angle_c) over the other classes c) ),   e(a) = exp(scale * cos(a))

    with angle_c the angle between the item and the vector of class c, and y the item's class. Where
    angle_y + margin exceeds 180 degrees, its cosine is replaced by cos(angle_y) - margin *
    sin(margin), which keeps decreasing.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        margin: in degrees, 0 to 180. Default 28.6, which is 0.5 in radians, as in the paper.
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
        self.margin = check_number("margin", margin, at_least=0, at_most=180)
        self.scale = check_number("scale", scale, above=0)

    def with_margin(self, cosine):
        return cosine_of_sum(cosine, math.radians(self.margin))
