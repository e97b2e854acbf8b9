"""SimSiamLoss: one view predicts the embedding of the other."""

import inspect

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric.losses.metric_loss import MetricLoss, check_branches
from keras_metric.losses.two_view.two_views import standardised
from keras_metric.pairwise.anchor_rows import single_terms


class Predictor(keras.layers.Layer):
    """Two dense layers with a bottleneck of a quarter of the width, normalised over the batch."""

    def build(self, input_shape):
        # Weights of this layer itself: models build it where Keras tracks no layers inside it.
        width = input_shape[-1]
        narrow = max(width // 4, 1)
        self.down = self.add_weight((width, narrow), "glorot_uniform", name="down")
        self.scale = self.add_weight((narrow,), "ones", name="scale")
        self.shift = self.add_weight((narrow,), "zeros", name="shift")
        self.up = self.add_weight((narrow, width), "glorot_uniform", name="up")
        self.bias = self.add_weight((width,), "zeros", name="bias")

    def call(self, embeddings):
        narrow = standardised(ops.matmul(embeddings, self.down), epsilon=1e-5)
        return ops.matmul(ops.relu(narrow * self.scale + self.shift), self.up) + self.bias


def sim_siam_rows(views, predictions):
    """One term an item: how far each view's prediction is from the other view."""
    first, second = map(ops.stop_gradient, views)
    ahead = distances.elementwise(predictions[0], second, "cosine")
    back = distances.elementwise(predictions[1], first, "cosine")
    return single_terms((ahead + back) / 2)


@export
class SimSiamLoss(MetricLoss):
    """Learns from two views of each item: without labels, negatives, or large batches.

    Reach for it where there are no labels and a step has room for few items. A small network
    that the loss owns, the predictor, maps the embedding of one view to that of the other, and
    the other is held still; that keeps all embeddings from falling together. Embeddings have
    shape (batch, 2, dim); y is not looked at. `EmbeddingModel` trains and saves the predictor.

    As in the paper, the encoder has to end in a batch normalisation, or the embeddings may fall
    together all the same: make it the last layer of the backbone and take `embedding_dim=None`.
    `train_health=True` shows their spread. SGD with momentum and weight decay did better than Adam,
    and in a short run a predictor that learns ten times faster than the encoder, by
    `keras.optimizers.MultiOptimizer`.

        loss = mean over items of ( d(h(a), stop(b)) + d(h(b), stop(a)) ) / 2

    with a and b the two views, h the predictor, d = 1 - cosine, and stop for "no gradient". The
    paper writes -cosine: the same gradient, a value less by 1.

    Args:
        predictor: a Keras layer or model from (batch, dim) to (batch, dim), or None (default)
            for that of the paper: two dense layers with dim / 4 units between them, normalised
            over the batch. It is always called as in training, so that a `BatchNormalization`
            of your own sees the statistics of the batch.
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: if `predictor` is no Keras layer.
        ValueError: for another number of views than two, or outside an `EmbeddingModel` as long
            as the predictor has no weights.

    Example:
    >>> import numpy as np
    >>> import keras
    >>> import keras_metric
    >>> backbone = keras.Sequential(
    ...     [keras.layers.Dense(8), keras.layers.BatchNormalization(center=False, scale=False)]
    ... )
    >>> model = keras_metric.EmbeddingModel(backbone, embedding_dim=None)
    >>> optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    >>> model.compile(optimizer, keras_metric.losses.SimSiamLoss())
    >>> first, second = np.random.default_rng(0).normal(size=(2, 32, 5)).astype("float32")
    >>> history = model.fit({"first": first, "second": second}, verbose=0)
    >>> len(model.loss_layers.trainable_weights)
    5

    Reference:
        Chen and He, "Exploring Simple Siamese Representation Learning", 2021,
        https://arxiv.org/abs/2011.10566
    """

    num_branches = (2,)

    def __init__(self, predictor=None, reduction="mean_valid", name="sim_siam_loss", dtype=None):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        if predictor is not None and not isinstance(predictor, keras.layers.Layer):
            raise TypeError(
                "`predictor` must be a Keras layer or model, or None. Received: "
                f"predictor={predictor!r}"
            )
        self.predictor = predictor
        wide = distances.dtype_of_weights()
        self.network = predictor or Predictor(dtype=wide, name="predictor")
        self.layers = (self.network,)
        # Keras says whether it is training only inside the call of a model.
        told = "training" in inspect.signature(self.network.call).parameters
        self._as_in_training = {"training": True} if told else {}

    def tuple_parts(self, reports, y_true, branches):
        check_branches(branches, 2, "first view, second view")
        predictions = [
            ops.cast(self.network(view, **self._as_in_training), view.dtype) for view in branches
        ]
        return [sim_siam_rows(branches, predictions)]
