"""SphereFace loss (A-Softmax)."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_count, check_number
from keras_metric.losses.classification.class_log_sums import Form
from keras_metric.losses.classification.class_loss import ClassLoss
from keras_metric.losses.classification.large_margin_softmax_loss import blended, norms

# Norms below this count as this in the angle to the own class.
_MIN_NORM = 1e-12


@export
class SphereFaceLoss(ClassLoss):
    """SphereFace (A-Softmax): `LargeMarginSoftmaxLoss` with class vectors normalised to norm 1.

    The first angular margin loss for faces; `ArcFaceLoss` and `CosFaceLoss` are easier to train. It
    reads the norm of embeddings: set `normalize=False` in the model. `EmbeddingModel` trains and
    saves the class vectors.

        loss = mean over items of -log( e(psi(angle_y)) / (e(psi(angle_y))
               + sum of e(cos(angle_c)) over the other classes c) ),   e(s) = exp(scale |x| s)
        psi(a) = (-1)^k cos(margin a) - 2k,   k = floor(margin a / 180 degrees)

    with angle_c the angle between the item x and the vector of class c, and y the class of x.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        margin: integer factor of the angle, 1 or more. Default 4, as in the paper.
        scale: factor of the logits, above 0. Default 1.
        blend: weight of the plain cosine, at least 0. The logit of the item's own class uses (blend
            cos(a) + psi(a)) / (blend + 1). Default 0; the authors reduce it from 1,000 to 5 during
            training.
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
        self.margin = check_count("margin", margin)
        self.scale = check_number("scale", scale, above=0)
        self.blend = check_number("blend", blend, at_least=0)

    @property
    def form(self):
        return Form()

    def left(self, embeddings):
        return self.scale * norms(embeddings) * distances.unit(embeddings)

    def factor(self, embeddings):
        # A vector of zeros has logits of 0.
        return self.scale * ops.maximum(norms(embeddings)[:, 0], _MIN_NORM)

    def with_margin(self, cosine):
        return blended(cosine, self.margin, self.blend)
