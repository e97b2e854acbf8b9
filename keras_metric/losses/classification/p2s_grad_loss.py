"""P2SGrad loss."""

from keras import ops

from keras_metric._export import export
from keras_metric.losses.classification.class_loss import (
    ClassLoss,
    class_terms,
    cosines,
    is_own,
    report_cosines,
)


@export
class P2SGradLoss(ClassLoss):
    """P2SGrad: mean squared error of the cosines with all class vectors, target 1 or 0.

    It has no margin and no scale, and its gradient does not saturate. It is used in speech:
    spoofing detection, speaker recognition. `EmbeddingModel` trains and saves the class vectors.

        loss = mean over items of mean over classes c of (cos(x, w_c) - [c = y])^2

    Use at least as many embedding dimensions as classes. With many more classes than dimensions the
    terms of the other classes dominate, and the minimum has all class vectors opposite to all
    embeddings; use `NormalizedSoftmaxLoss` or `ArcFaceLoss` there.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        embedding_dim: dimension of the embeddings. Default None: `EmbeddingModel` sets it.
        initializer: Keras initializer of the class vectors. Default None: normal, norm about 1.
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result; computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for a number out of range, an id outside 0 to num_classes - 1, or a call outside
            an `EmbeddingModel` with `embedding_dim=None`.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> loss = keras_metric.losses.P2SGradLoss(2, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.162

    Reference:
        Zhang, Zhao, Yan, Li and Wang, "P2SGrad: Refined Gradients for Optimizing Deep Face Models",
        2019, https://arxiv.org/abs/1905.02479; as a squared error: Wang and Yamagishi, "A
        Comparative Study on Recent Neural Spoofing Countermeasures for Synthetic Speech Detection",
        2021, https://arxiv.org/abs/2103.11326
    """

    is_softmax = False

    def __init__(
        self,
        num_classes,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="p2s_grad_loss",
        dtype=None,
    ):
        super().__init__(num_classes, embedding_dim, initializer, reduction, name, dtype)

    def class_parts(self, reports, embeddings, vectors, own):
        cosine = cosines(embeddings, vectors)
        mine = is_own(ops.where(own.valid, own.ids, -1), self.num_classes)
        report_cosines(reports, cosine, mine, ops.logical_not(mine))
        error = ops.square(cosine - ops.cast(mine, cosine.dtype))
        return [class_terms(ops.mean(error, axis=1), own.valid)]
