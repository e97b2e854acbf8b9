"""SoftTriple loss."""

import functools

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_count, check_number
from keras_metric.losses.classification.class_loss import ClassLoss


def center_regularizer(vectors, num_classes, each):
    """Mean of sqrt(2 - 2 cos) / 2 over the pairs of centers of one class; 0 with one center."""
    if each == 1:
        return ops.zeros((), dtype=vectors.dtype)
    unit = ops.reshape(distances.unit(vectors), (num_classes, each, -1))
    cosine = ops.matmul(unit, ops.transpose(unit, (0, 2, 1)))
    off_diagonal = 1 - ops.eye(each, dtype=cosine.dtype)
    # Exclude the diagonal and keep off zero, where the square root has no derivative.
    gap = ops.sqrt(ops.maximum(2 - 2 * ops.where(off_diagonal > 0, cosine, 0), 1e-5))
    return ops.sum(gap * off_diagonal) / (2 * num_classes * each * (each - 1))


def mixed(products, temperature):
    """Mean of the products of each class, weighted by their softmax, and its derivative.

    `products`: (classes, each, batch).
    """
    weights = ops.softmax(products / temperature, axis=1)
    mean = ops.sum(weights * products, axis=1)
    return mean, weights * (1 + (products - mean[:, None]) / temperature)


@export
class SoftTripleLoss(ClassLoss):
    """SoftTriple: softmax over classes with several centers each, mixed by similarity.

    It is equivalent to a smoothed triplet loss without sampling. Use it where a class has several
    modes, such as cars seen from the front and from the side. `EmbeddingModel` trains and saves the
    centers.

        S_c  = sum_k q_k cos(x, w_ck),   q = softmax over k of cos(x, w_ck) / gamma
        loss = mean over items of -log( exp(scale (S_y - margin)) / (exp(scale (S_y - margin))
               + sum of exp(scale S_c) over the other classes c) ) + regularization_weight R

    with w_ck center k of class c, normalised to norm 1, and R half the mean of |w_ck - w_cl| over
    the pairs of centers of a class. R merges the centers that a class does not need.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        centers_per_class: number of centers per class, 1 or more. Default 10, as in the paper.
        scale: factor of the similarities, above 0; lambda in the paper. Default 20, as in the
            paper.
        gamma: temperature of the softmax over centers, above 0. Default 0.1, as
            there.
        margin: subtracted from the similarity of the own class. Default 0.01, as in the paper.
        regularization_weight: weight of R, at least 0; tau in the paper. Default 0, as in
            pytorch-metric-learning; the paper uses 0.2.
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
    >>> from keras_metric.losses import SoftTripleLoss
    >>> loss = SoftTripleLoss(2, 1, scale=4, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.302

    Reference:
        Qian, Shang, Sun, Hu, Li and Jin, "SoftTriple Loss: Deep Metric Learning Without Triplet
        Sampling", 2019, https://arxiv.org/abs/1909.05235
    """

    renamed_arguments = {"la": "scale", "tau": "regularization_weight"}

    def __init__(
        self,
        num_classes,
        centers_per_class=10,
        scale=20,
        gamma=0.1,
        margin=0.01,
        regularization_weight=0,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="soft_triple_loss",
        dtype=None,
        sample_rate=1.0,
    ):
        self.centers_per_class = check_count("centers_per_class", centers_per_class)
        super().__init__(
            num_classes,
            embedding_dim,
            initializer,
            reduction,
            name,
            dtype,
            centers_per_class,
            sample_rate=sample_rate,
        )
        self.scale = check_number("scale", scale, above=0)
        self.gamma = check_number("gamma", gamma, above=0)
        self.margin = check_number("margin", margin)
        self.regularization_weight = check_number(
            "regularization_weight", regularization_weight, at_least=0
        )

    @property
    def form(self):
        if self.centers_per_class == 1:
            return super().form
        temperature = self.gamma * self.scale
        return super().form._replace(pool=functools.partial(mixed, temperature=temperature))

    def with_margin(self, cosine):
        return cosine - self.margin

    def class_parts(self, reports, embeddings, vectors, own):
        (rows,) = super().class_parts(reports, embeddings, vectors, own)
        if self.regularization_weight == 0:
            return [rows]
        regularizer = center_regularizer(vectors, self.num_classes, self.centers_per_class)
        return [rows._replace(total=rows.total + self.regularization_weight * regularizer)]
