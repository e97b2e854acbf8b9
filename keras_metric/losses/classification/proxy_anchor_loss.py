"""Proxy anchor loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification import class_sampling
from keras_metric.losses.classification.class_loss import ClassLoss, cosines, report_cosines
from keras_metric.pairwise.anchor_rows import whole_batch
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def log_one_plus_sum(logits, mask):
    """log(1 + sum of exp(logits)) over the rows where `mask`, for each class (column)."""
    logits = ops.where(mask, logits, -MASKED_DISTANCE)
    return ops.logsumexp(ops.pad(logits, ((1, 0), (0, 0))), axis=0)


@export
class ProxyAnchorLoss(ClassLoss):
    """Proxy anchor: each class proxy is an anchor that weights the items of the batch by hardness.

    It converges as fast as `ProxyNCALoss`, and its gradients depend on the relations between items,
    as in pair losses. Recommended for fine-grained classes. `EmbeddingModel` trains and saves the
    proxies; the authors use 100 times the learning rate of the backbone for them
    (`keras.optimizers.MultiOptimizer`).

        positive_c = log(1 + sum of exp(-alpha (cos(x, p_c) - margin)) over the items x of class c)
        negative_c = log(1 + sum of exp(alpha (cos(x, p_c) + margin)) over all other items x)
        loss = mean of positive_c over classes in the batch + mean of negative_c over all classes

    It is one value per batch: it takes no `reduction` and no `sample_weight`.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        margin: at least 0. Default 0.1, as in the paper.
        alpha: factor of the cosines, above 0. Default 32, as in the paper.
        embedding_dim: dimension of the embeddings. Default None: `EmbeddingModel` sets it.
        initializer: Keras initializer of the class vectors. Default None: normal, norm about 1.
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
    >>> from keras_metric.losses import ProxyAnchorLoss
    >>> loss = ProxyAnchorLoss(2, alpha=4, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    2.676

    Reference:
        Kim, Kim, Cho and Kwak, "Proxy Anchor Loss for Deep Metric Learning", 2020,
        https://arxiv.org/abs/2003.13911
    """

    # The anchors are the proxies, which are compared with all items.
    rows_depend_on = "batch"
    is_one_number = True
    is_softmax = False

    def __init__(
        self,
        num_classes,
        margin=0.1,
        alpha=32,
        embedding_dim=None,
        initializer=None,
        name="proxy_anchor_loss",
        dtype=None,
        sample_rate=1.0,
    ):
        super().__init__(
            num_classes,
            embedding_dim,
            initializer,
            "sum_over_batch_size",
            name,
            dtype,
            sample_rate=sample_rate,
        )
        self.margin = check_number("margin", margin, at_least=0)
        self.alpha = check_number("alpha", alpha, above=0)

    def class_parts(self, reports, embeddings, vectors, own):
        compared = self.compared_classes(reports, vectors, own)
        columns = ops.concatenate([part.vectors for part in compared])
        cosine = cosines(embeddings, columns)
        mine, counts = class_sampling.masks(compared)
        others = ops.logical_and(own.valid[:, None], ops.logical_not(mine))
        others = ops.logical_and(others, counts[None, :])
        report_cosines(reports, cosine, mine, others)
        positive = log_one_plus_sum(-self.alpha * (cosine - self.margin), mine)
        negative = log_one_plus_sum(self.alpha * (cosine + self.margin), others)
        present = ops.cast(ops.any(mine, axis=0), cosine.dtype)
        number = ops.sum(ops.cast(counts, cosine.dtype))
        value = ops.sum(positive) / ops.maximum(ops.sum(present), 1)
        value = value + ops.sum(ops.where(counts, negative, 0)) / number
        value = ops.where(ops.all(own.valid), value, float("nan"))
        return whole_batch(value, ops.shape(embeddings)[0])
