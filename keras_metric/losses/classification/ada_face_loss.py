"""AdaFace loss."""

import functools
import math

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import (
    ClassLoss,
    cross_entropy_rows,
)
from keras_metric.losses.classification.large_margin_softmax_loss import norms

# Bounds of the authors' code: norms, and the distance of an angle from 0 and 180 degrees (radians).
_MIN_NORM, _MAX_NORM, _EPSILON = 1e-3, 100.0, 1e-3


class RunningLength(keras.layers.Layer):
    """Running mean and standard deviation of embedding norms.

    The name of the class is part of the file format, as are those of all layers of losses.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})

    def build(self, input_shape):
        # Initial values of the authors' code; their weight is negligible after 1,000 steps.
        for name, start in (("mean", 20.0), ("deviation", 100.0)):
            start = keras.initializers.Constant(start)
            setattr(self, name, self.add_weight((), start, trainable=False, name=name))

    def updated(self, norms, t_alpha):
        """(mean, deviation) after a batch of `norms` (batch, 1)."""
        mean = ops.mean(norms)
        number = ops.cast(ops.shape(norms)[0], norms.dtype)
        variance = ops.sum(ops.square(norms - mean)) / ops.maximum(number - 1, 1)
        return [
            t_alpha * new + (1 - t_alpha) * ops.cast(old, new.dtype)
            for new, old in ((mean, self.mean), (ops.sqrt(variance), self.deviation))
        ]


def clipped(products, limit):
    """The products (classes, 1, batch), at most `limit` in size, and their derivative."""
    inside = ops.cast(ops.abs(products) <= limit, products.dtype)
    return ops.clip(products[:, 0], -limit, limit), inside


@export
class AdaFaceLoss(ClassLoss):
    """AdaFace: an angular margin adapted to image quality, estimated from the embedding norm.

    Use it for images of uneven quality. A high norm indicates a good image: the margin then
    emphasizes hard items. A low norm indicates an image that may be unrecognisable: the margin then
    de-emphasizes it. The norm itself gets no gradient. Set `normalize=False` in the model, since
    the loss reads the norm. `EmbeddingModel` trains and saves the class vectors, and updates the
    running mean and standard deviation of the norms.

        q    = clip(concentration (|x| - mean) / deviation, -1, 1)
        loss = mean over items of -log( e(cos(angle_y - m q) - (m + m q)) / (e(...)
               + sum of e(cos(angle_c)) over the other classes c) ),   e(s) = exp(scale * s)

    with m the margin, angle_c the angle between the item x and the vector of class c, and y the
    class of x.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        margin: m, at least 0, in radians and as a cosine. Default 0.4, as in the paper.
        concentration: factor of the standardized norm, above 0; `h` in the paper. Default 0.333: a
            norm of one standard deviation above the mean gives q = 0.333.
        scale: factor of the cosines, above 0. Default 64, as in the paper.
        t_alpha: weight of the current batch in the running mean and standard deviation, above 0
            and at most 1; `t_alpha` in the authors' code. Default 0.01.
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
    >>> loss = keras_metric.losses.AdaFaceLoss(2, scale=4, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.924

    Reference:
        Kim, Jain and Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", 2022,
        https://arxiv.org/abs/2204.00964
    """

    renamed_arguments = {"h": "concentration"}
    # The running statistics are over the norms of the whole batch.
    rows_depend_on = "batch"
    keeps_state = True

    def __init__(
        self,
        num_classes,
        margin=0.4,
        concentration=0.333,
        scale=64,
        t_alpha=0.01,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="ada_face_loss",
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
        self.concentration = check_number("concentration", concentration, above=0)
        self.scale = check_number("scale", scale, above=0)
        self.t_alpha = check_number("t_alpha", t_alpha, above=0, at_most=1)
        self.running = RunningLength(name=f"{name}_lengths")
        self.layers += (self.running,)
        if embedding_dim is not None:
            self.running.build((None, embedding_dim))

    def class_parts(self, reports, embeddings, vectors, own):
        others, logit = self.against_classes(reports, embeddings, vectors, own)
        norm = ops.clip(ops.stop_gradient(norms(embeddings)), _MIN_NORM, _MAX_NORM)
        mean, deviation = self.running.updated(norm, self.t_alpha)
        reports.update(self.running.mean, mean)
        reports.update(self.running.deviation, deviation)
        quality = self.concentration * (norm[:, 0] - mean) / (deviation + _EPSILON)
        quality = ops.clip(quality, -1, 1)
        angle = ops.arccos(logit / self.scale) - self.margin * quality
        harder = ops.cos(ops.clip(angle, _EPSILON, math.pi - _EPSILON))
        target = self.scale * (harder - self.margin * (1 + quality))
        return [cross_entropy_rows(others, target, own.valid)]

    @property
    def form(self):
        limit = self.scale * (1 - _EPSILON)
        return super().form._replace(pool=functools.partial(clipped, limit=limit))
