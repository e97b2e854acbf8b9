"""Normalized softmax loss."""

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import ClassLoss


@export
class NormalizedSoftmaxLoss(ClassLoss):
    """Normalized softmax: cross-entropy over the cosines of an item with all class vectors.

    The simplest loss with class vectors, and a strong baseline: it needs no mining, and a batch may
    hold one item of a class. `EmbeddingModel` trains and saves the class vectors.

        loss = mean over items of -log( exp(cos(x, w_y) / t) / sum_c exp(cos(x, w_c) / t) )

    with w_c the vector of class c, y the item's class and t the temperature.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        temperature: t, above 0. Default 0.05, as in the paper.
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
    >>> from keras_metric.losses import NormalizedSoftmaxLoss
    >>> loss = NormalizedSoftmaxLoss(2, 0.5, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.446

    Reference:
        Zhai and Wu, "Classification is a Strong Baseline for Deep Metric Learning", 2019,
        https://arxiv.org/abs/1811.12649
    """

    def __init__(
        self,
        num_classes,
        temperature=0.05,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="normalized_softmax_loss",
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
        self.temperature = check_number("temperature", temperature, above=0)

    @property
    def scale(self):
        """Factor of the cosines, 1 / temperature."""
        return 1 / self.temperature
