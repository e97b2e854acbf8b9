"""AdaFaceLoss: an angular margin that goes by the quality of a picture, read off its length."""

import math

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import (
    ClassLoss,
    check_scale,
    cosines,
    cross_entropy_rows,
    report_cosines,
)
from keras_metric.losses.classification.large_margin_softmax_loss import lengths

# The authors' bounds: of a length, and of how near an angle may come to 0 and 180 degrees.
_SHORTEST, _LONGEST, _EDGE = 1e-3, 100.0, 1e-3


class RunningLength(keras.layers.Layer):
    """Running mean and standard deviation of the lengths of embeddings."""

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})

    def build(self, input_shape):
        # Where the authors begin; a thousand steps later nothing of it is left.
        for name, start in (("mean", 20.0), ("deviation", 100.0)):
            start = keras.initializers.Constant(start)
            setattr(self, name, self.add_weight((), start, trainable=False, name=name))

    def moved(self, lengths, rate):
        """(mean, deviation) after a batch of `lengths` (batch, 1)."""
        mean = ops.mean(lengths)
        number = ops.cast(ops.shape(lengths)[0], lengths.dtype)
        spread = ops.sum(ops.square(lengths - mean)) / ops.maximum(number - 1, 1)
        return [
            rate * new + (1 - rate) * ops.cast(old, new.dtype)
            for new, old in ((mean, self.mean), (ops.sqrt(spread), self.deviation))
        ]


@export
class AdaFaceLoss(ClassLoss):
    """ArcFace and CosFace at once, with a margin that adapts to the quality of each picture.

    A good picture has a long embedding, a blurred one a short one. Long ones get a margin that asks
    for more where they are hard; short ones, which may not be recognisable at all, ask for less.
    Give the model `normalize=False`: the length of an embedding is read, though never trained.
    `EmbeddingModel` trains and saves the class vectors, and keeps the running mean and deviation of
    lengths.

        q    = clip(concentration (|x| - mean) / deviation, -1, 1)
        loss = mean over items of -log( e(cos(angle_y - m q) - (m + m q)) / (e(...)
               + sum of e(cos(angle_c)) over the other classes c) ),   e(s) = exp(scale * s)

    with m the margin, and angle_c between the item x and the vector of class c, y its own.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        margin: m, at least 0, in radians and as a cosine. Default 0.4, as in the paper.
        concentration: how strongly lengths count, above 0. Default 0.333: a length one deviation from the mean
            is a third of the way to the bounds.
        scale: factor of the cosines, above 0. Default 64, as in the paper.
        momentum: share of a batch in the running mean and deviation, above 0 and at most 1. Default
            0.01.
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
    >>> loss = keras_metric.losses.AdaFaceLoss(2, scale=4, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.924

    Reference:
        Kim, Jain and Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", 2022,
        https://arxiv.org/abs/2204.00964
    """

    renamed_arguments = {"h": "concentration", "t_alpha": "momentum"}
    # Its running mean is of the lengths of the whole batch.
    rows_depend_on = "batch"
    keeps_state = True

    def __init__(
        self,
        num_classes,
        margin=0.4,
        concentration=0.333,
        scale=64,
        momentum=0.01,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="ada_face_loss",
        dtype=None,
    ):
        super().__init__(num_classes, embedding_dim, initializer, reduction, name, dtype)
        check_number("margin", margin, at_least=0)
        check_number("concentration", concentration, above=0)
        check_scale(scale)
        check_number("momentum", momentum, above=0, at_most=1)
        self.margin = margin
        self.concentration = concentration
        self.scale = scale
        self.momentum = momentum
        self.running = RunningLength(name=f"{name}_lengths")
        self.layers += (self.running,)
        if embedding_dim is not None:
            self.running.build((None, embedding_dim))

    def class_parts(self, reports, embeddings, vectors, own):
        cosine = ops.clip(cosines(embeddings, vectors), _EDGE - 1, 1 - _EDGE)
        report_cosines(reports, cosine, own)
        length = ops.clip(ops.stop_gradient(lengths(embeddings)), _SHORTEST, _LONGEST)
        mean, deviation = self.running.moved(length, self.momentum)
        reports.update(self.running.mean, mean)
        reports.update(self.running.deviation, deviation)
        quality = ops.clip(self.concentration * (length - mean) / (deviation + _EDGE), -1, 1)
        # An angle takes long: only that with the own class is asked for.
        mine = ops.sum(ops.where(own, cosine, 0), axis=1, keepdims=True)
        angle = ops.arccos(mine) - self.margin * quality
        harder = ops.cos(ops.clip(angle, _EDGE, math.pi - _EDGE)) - self.margin * (1 + quality)
        return [cross_entropy_rows(self.scale * ops.where(own, harder, cosine), own)]
