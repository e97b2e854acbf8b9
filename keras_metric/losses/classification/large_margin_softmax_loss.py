"""LargeMarginSoftmaxLoss: classification with the angle to the own class multiplied."""

import math

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_count, check_number
from keras_metric.losses.classification.class_loss import ClassLoss, check_scale, cosines


def falling_cosine(cosine, factor):
    """psi(angle) for angles given as cosines; `factor` an integer of at least 1.

    (-1)^k cos(factor * angle) - 2k, where k counts the turns by 180 degrees that factor * angle
    has behind it: what cos(factor * angle) begins as, falling all the way to 180 degrees.
    """
    before, multiple = ops.ones_like(cosine), cosine
    turns = ops.zeros_like(cosine)
    for turn in range(1, factor):
        before, multiple = multiple, 2 * cosine * multiple - before
        turns = turns + ops.cast(cosine <= math.cos(math.pi * turn / factor), cosine.dtype)
    return (1 - 2 * ops.mod(turns, 2)) * multiple - 2 * turns


def blended(cosine, factor, blend):
    """Weighted mean of a cosine and its `falling_cosine`: (blend cos + falling) / (blend + 1)."""
    return (blend * cosine + falling_cosine(cosine, factor)) / (blend + 1)


def lengths(x):
    """Length of each row, (rows, 1), with a gradient of 0 for a row of zeros."""
    return distances.elementwise(x, ops.zeros_like(x))[:, None]


@export
class LargeMarginSoftmaxLoss(ClassLoss):
    """L-Softmax: the angle to the own class has to be smaller by a factor.

    Reads the length of embeddings and of class vectors: give the model `normalize=False`. It is
    hard to train from scratch; a `blend` helps. `EmbeddingModel` trains and saves the class
    vectors.

        loss = mean over items of -log( e_y(psi(angle_y)) / (e_y(psi(angle_y))
               + sum of e_c(cos(angle_c)) over the other classes c) )
        e_c(s) = exp(scale |x| |w_c| s)
        psi(a) = (-1)^k cos(margin a) - 2k,   k = floor(margin a / 180 degrees)

    with angle_c between the item x and the vector w_c of class c, y its own.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        margin: integer factor of the angle, 1 or more. Default 4, the paper's largest.
        scale: factor of the logits, above 0. Default 1.
        blend: weight of the plain cosine, at least 0: the own class gets
            (blend cos(a) + psi(a)) / (blend + 1). Default 0; the papers start from 1,000 and go
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
    >>> from keras_metric.losses import LargeMarginSoftmaxLoss
    >>> loss = LargeMarginSoftmaxLoss(2, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    1.635

    Reference:
        Liu, Wen, Yu and Yang, "Large-Margin Softmax Loss for Convolutional Neural Networks", 2016,
        https://arxiv.org/abs/1612.02295
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
        name="large_margin_softmax_loss",
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
        factor = lengths(embeddings) * ops.transpose(lengths(vectors))
        return cosines(embeddings, vectors), self.scale * factor

    def with_margin(self, cosine):
        return blended(cosine, self.margin, self.blend)
