"""SoftTripleLoss: classification with several centres a class, mixed by their nearness."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_count, check_number
from keras_metric.losses.classification.class_loss import ClassLoss, cosines


def likeness_of_centers(vectors, num_classes, each):
    """Mean of sqrt(2 - 2 cos) / 2 over the pairs of centres of one class; 0 with one centre."""
    if each == 1:
        return ops.zeros((), dtype=vectors.dtype)
    unit = ops.reshape(distances.unit(vectors), (num_classes, each, -1))
    cosine = ops.matmul(unit, ops.transpose(unit, (0, 2, 1)))
    apart = 1 - ops.eye(each, dtype=cosine.dtype)
    # On the diagonal the square root has no slope; the rest is kept off zero.
    gap = ops.sqrt(ops.maximum(2 - 2 * ops.where(apart > 0, cosine, 0), 1e-5))
    return ops.sum(gap * apart) / (2 * num_classes * each * (each - 1))


@export
class SoftTripleLoss(ClassLoss):
    """Classes of several clusters: an item's similarity to a class mixes those to its centres.

    Equal to a smoothed triplet loss without sampling. Reach for it where a class has several looks,
    a car from the front and from the side. `EmbeddingModel` trains and saves the centres.

        S_c  = sum_k q_k cos(x, w_ck),   q = softmax over k of cos(x, w_ck) / temperature
        loss = mean over items of -log( exp(scale (S_y - margin)) / (exp(scale (S_y - margin))
               + sum of exp(scale S_c) over the other classes c) ) + regularization_weight R

    with w_ck the k-th centre of class c, and R half the mean of |w_ck - w_cl| over the pairs of
    centres of a class, all of length 1, so that centres a class does not need become one.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        centers_per_class: 1 or more. Default 10, as in the paper.
        scale: factor of the similarities, above 0. Default 20, as in the paper.
        temperature: temperature of the mixture, above 0. Default 0.1, as in the paper.
        margin: taken off the own class. Default 0.01, as in the paper.
        regularization_weight: weight of R, at least 0. Default 0, as in pytorch-metric-learning; the paper has 0.2.
        embedding_dim: length of an embedding. Default None: `EmbeddingModel` tells it. Give it to
            use the loss in a step of your own.
        initializer: Keras initializer of the class vectors, (num_classes * centers_per_class, dim).
            Default None: normal, of length about 1, so that a step turns them neither too
            little nor too far.
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result. It is computed in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for a number out of its range, an id outside 0 to num_classes - 1, or outside an
            `EmbeddingModel` as long as `embedding_dim` is not given.

    Example:
    >>> import numpy as np
    >>> from keras_metric.losses import SoftTripleLoss
    >>> loss = SoftTripleLoss(2, centers_per_class=1, scale=4, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.302

    Reference:
        Qian, Shang, Sun, Hu, Li and Jin, "SoftTriple Loss: Deep Metric Learning Without Triplet
        Sampling", 2019, https://arxiv.org/abs/1909.05235
    """

    renamed_arguments = {"la": "scale", "gamma": "temperature", "tau": "regularization_weight"}

    def __init__(
        self,
        num_classes,
        centers_per_class=10,
        scale=20,
        temperature=0.1,
        margin=0.01,
        regularization_weight=0,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="soft_triple_loss",
        dtype=None,
    ):
        check_count("centers_per_class", centers_per_class)
        super().__init__(
            num_classes, embedding_dim, initializer, reduction, name, dtype, centers_per_class
        )
        check_number("scale", scale, above=0)
        check_number("temperature", temperature, above=0)
        check_number("margin", margin)
        check_number("regularization_weight", regularization_weight, at_least=0)
        self.centers_per_class = centers_per_class
        self.scale = scale
        self.temperature = temperature
        self.margin = margin
        self.regularization_weight = regularization_weight

    def class_logits(self, embeddings, vectors):
        cosine = cosines(embeddings, vectors)
        if self.centers_per_class == 1:
            return cosine, self.scale
        each = ops.reshape(cosine, (-1, self.num_classes, self.centers_per_class))
        return ops.sum(ops.softmax(each / self.temperature, axis=2) * each, axis=2), self.scale

    def with_margin(self, cosine):
        return cosine - self.margin

    def class_parts(self, reports, embeddings, vectors, own):
        (rows,) = super().class_parts(reports, embeddings, vectors, own)
        if self.regularization_weight == 0:
            return [rows]
        likeness = likeness_of_centers(vectors, self.num_classes, self.centers_per_class)
        return [rows._replace(total=rows.total + self.regularization_weight * likeness)]
