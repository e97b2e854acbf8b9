"""ProxyAnchorLoss: each class's proxy is an anchor that sees the whole batch."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import ClassLoss, cosines, report_cosines
from keras_metric.pairwise.anchor_rows import whole_batch
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def log_one_plus_sum(logits, mask):
    """log(1 + sum of exp(logits)) over the items (rows) of each class (column) where `mask`."""
    logits = ops.where(mask, logits, -MASKED_DISTANCE)
    return ops.logsumexp(ops.pad(logits, ((1, 0), (0, 0))), axis=0)


@export
class ProxyAnchorLoss(ClassLoss):
    """Takes each class's proxy as an anchor and weighs the items of the batch by how hard they are.

    Fast to converge as `ProxyNCALoss`, with gradients that look at how items relate, as those of
    the losses on pairs. One of the first to try on fine-grained classes. `EmbeddingModel` trains
    and saves the proxies; the authors give them 100 times the rate of the backbone
    (`keras.optimizers.MultiOptimizer`).

        pull_c = log(1 + sum of exp(-scale (cos(x, p_c) - margin)) over the items x of class c)
        push_c = log(1 + sum of exp(scale (cos(x, p_c) + margin)) over all other items x)
        loss   = mean of pull_c over the classes in the batch + mean of push_c over all classes

    It is one number for a batch, without rows: there is no `sample_weight`.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        margin: at least 0. Default 0.1, as in the paper.
        scale: factor of the cosines, above 0. Default 32, as in the paper.
        embedding_dim: length of an embedding. Default None: `EmbeddingModel` tells it. Give it to
            use the loss in a step of your own.
        initializer: Keras initializer of the class vectors, (num_classes, dim). Default None:
            normal, of length about 1, so that a step turns them neither too little nor too far.
        name: name of the loss.
        dtype: dtype of the result. It is computed in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for a number out of its range, an id outside 0 to num_classes - 1, or outside an
            `EmbeddingModel` as long as `embedding_dim` is not given.

    Example:
    >>> import numpy as np
    >>> from keras_metric.losses import ProxyAnchorLoss
    >>> loss = ProxyAnchorLoss(2, scale=4, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    2.676

    Reference:
        Kim, Kim, Cho and Kwak, "Proxy Anchor Loss for Deep Metric Learning", 2020,
        https://arxiv.org/abs/2003.13911
    """

    renamed_arguments = {"alpha": "scale"}
    # Its anchors are the proxies, which are compared with all items.
    rows_depend_on = "batch"
    is_one_number = True
    is_softmax = False

    def __init__(
        self,
        num_classes,
        margin=0.1,
        scale=32,
        embedding_dim=None,
        initializer=None,
        name="proxy_anchor_loss",
        dtype=None,
    ):
        whole = "sum_over_batch_size"
        super().__init__(num_classes, embedding_dim, initializer, whole, name, dtype)
        check_number("margin", margin, at_least=0)
        check_number("scale", scale, above=0)
        self.margin = margin
        self.scale = scale

    def class_parts(self, reports, embeddings, vectors, own):
        cosine = cosines(embeddings, vectors)
        report_cosines(reports, cosine, own)
        strange = ops.logical_not(ops.any(own, axis=1, keepdims=True))
        others = ops.logical_not(ops.logical_or(own, strange))
        pull = log_one_plus_sum(-self.scale * (cosine - self.margin), own)
        push = log_one_plus_sum(self.scale * (cosine + self.margin), others)
        here = ops.cast(ops.any(own, axis=0), cosine.dtype)
        value = ops.sum(pull) / ops.maximum(ops.sum(here), 1) + ops.mean(push)
        value = ops.where(ops.any(strange), float("nan"), value)
        return whole_batch(value, ops.shape(embeddings)[0])
