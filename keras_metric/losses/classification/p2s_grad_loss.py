"""P2SGradLoss: cosines with the class vectors as regression targets of 1 and 0."""

from keras import ops

from keras_metric._export import export
from keras_metric.losses.classification.class_loss import (
    ClassLoss,
    class_terms,
    cosines,
    report_cosines,
)


@export
class P2SGradLoss(ClassLoss):
    """Mean squared error of the cosines with all class vectors: 1 for the own class, 0 for others.

    Has no margin and no scale to tune, and never saturates. Known from speech: spoofing detection,
    speaker recognition. `EmbeddingModel` trains and saves the class vectors.

        loss = mean over items of mean over classes c of (cos(x, w_c) - [c = y])^2

    It wants an embedding with at least as many dimensions as there are classes. With many more
    classes the cosines with the others outweigh the own one, and it is cheapest to turn all class
    vectors away from all embeddings: take `NormalizedSoftmaxLoss` or `ArcFaceLoss` there.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
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
        report_cosines(reports, cosine, own)
        error = ops.square(cosine - ops.cast(own, cosine.dtype))
        return [class_terms(ops.mean(error, axis=1), own)]
