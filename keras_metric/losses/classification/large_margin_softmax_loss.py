"""Large-margin softmax loss (L-Softmax)."""

import math

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_count, check_number
from keras_metric.losses.classification.class_log_sums import Form
from keras_metric.losses.classification.class_loss import ClassLoss


def decreasing_cosine(cosine, factor):
    """psi(angle) for angles given as cosines; `factor` an integer of at least 1.

    (-1)^k cos(factor * angle) - 2k with k = floor(factor * angle / 180 degrees): it equals
    cos(factor * angle) up to 180 degrees / factor and decreases monotonically up to 180 degrees.
    """
    before, multiple = ops.ones_like(cosine), cosine
    turns = ops.zeros_like(cosine)
    for turn in range(1, factor):
        before, multiple = multiple, 2 * cosine * multiple - before
        turns = turns + ops.cast(cosine <= math.cos(math.pi * turn / factor), cosine.dtype)
    return (1 - 2 * ops.mod(turns, 2)) * multiple - 2 * turns


def blended(cosine, factor, blend):
    """Weighted mean of a cosine and its `falling_cosine`: (blend cos + falling) / (blend + 1)."""
    return (blend * cosine + decreasing_cosine(cosine, factor)) / (blend + 1)


def norms(x):
    """Euclidean norm of each row, (rows, 1), with a gradient of 0 for a row of zeros."""
    return distances.elementwise(x, ops.zeros_like(x))[:, None]


@export
class LargeMarginSoftmaxLoss(ClassLoss):
    """L-Softmax: softmax with the angle to the item's own class multiplied by an integer margin.

    It reads the norms of embeddings and class vectors: set `normalize=False` in the model. Training
    from random weights is unstable; `blend` stabilizes it. `EmbeddingModel` trains and saves the
    class vectors.

        loss = mean over items of -log( e_y(psi(angle_y)) / (e_y(psi(angle_y))
               + sum of e_c(cos(angle_c)) over the other classes c) )
        e_c(s) = exp(scale |x| |w_c| s)
        psi(a) = (-1)^k cos(margin a) - 2k,   k = floor(margin a / 180 degrees)

    with angle_c the angle between the item x and the vector w_c of class c, and y the class of x.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        margin: integer factor of the angle, 1 or more. Default 4, the paper's largest.
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
        return Form(unit=False)

    def left(self, embeddings):
        return self.scale * norms(embeddings) * distances.unit(embeddings)

    def target(self, embeddings, vectors, own, logit):
        # The norms of the class vectors have a gradient, unlike in other losses.
        mine = ops.take(vectors, own.ids, axis=0)
        cosine = ops.sum(distances.unit(embeddings) * distances.unit(mine), axis=1)
        factor = self.scale * norms(embeddings)[:, 0] * norms(mine)[:, 0]
        return factor * self.with_margin(cosine)

    def report(self, reports, embeddings, vectors, own, logit, sums, number):
        unit, vectors = distances.unit(embeddings), distances.unit(vectors)
        near = 1 - ops.sum(unit * ops.take(vectors, own.ids, axis=0), axis=1)
        far = self.num_classes - ops.sum(unit * ops.sum(vectors, axis=0), axis=1) - near
        near, far = ops.where(own.valid, near, 0), ops.where(own.valid, far, 0)
        number = (self.num_classes - 1) * ops.cast(own.valid, near.dtype)
        reports.add_distance_sums(near, far, own.valid, number)

    def with_margin(self, cosine):
        return blended(cosine, self.margin, self.blend)
