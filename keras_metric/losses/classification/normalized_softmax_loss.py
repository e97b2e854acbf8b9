"""NormalizedSoftmaxLoss: classification by the cosine with a vector of each class."""

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.classification.class_loss import ClassLoss


@export
class NormalizedSoftmaxLoss(ClassLoss):
    """Classifies by the direction of an embedding: a softmax over cosines with class vectors.

    The plainest loss with a vector for each class, and a hard one to beat: no batch has to hold
    several items of a class, and there is nothing to mine. `EmbeddingModel` trains and saves the
    vectors.

        loss = mean over items of -log( exp(cos(x, w_y) / t) / sum_c exp(cos(x, w_c) / t) )

    with w_c the vector of class c, y the item's class and t the temperature.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        temperature: t, above 0. Default 0.05, as in the paper.
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
    ):
        super().__init__(num_classes, embedding_dim, initializer, reduction, name, dtype)
        check_number("temperature", temperature, above=0)
        self.temperature = temperature

    @property
    def scale(self):
        """What cosines are multiplied by: 1 / temperature."""
        return 1 / self.temperature
