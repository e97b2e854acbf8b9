"""SimSiam loss."""

import inspect

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric.losses.metric_loss import MetricLoss, check_branches
from keras_metric.losses.two_view.view_statistics import standardised
from keras_metric.pairwise.anchor_rows import single_terms


class Predictor(keras.layers.Layer):
    """Two dense layers with dim / 4 units between them, normalised over the batch."""

    def build(self, input_shape):
        # The weights belong to this layer, since Keras does not track sublayers created here.
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
    """One term per item: mean distance of the predictions to the other views."""
    first, second = map(ops.stop_gradient, views)
    forward = distances.elementwise(predictions[0], second, "cosine")
    backward = distances.elementwise(predictions[1], first, "cosine")
    return single_terms((forward + backward) / 2)


@export
class SimSiamLoss(MetricLoss):
    """SimSiam: self-supervised loss of two views, without labels, negatives or large batches.

    A small network of the loss, the predictor, maps the embedding of one view to that of the other,
    which gets no gradient; this prevents a collapse of all embeddings to one point. Embeddings have
    shape (batch, 2, dim); y is ignored. `EmbeddingModel` trains and saves the predictor.

    As in the paper, the encoder must end in a batch normalization, or it can collapse all the same:
    make it the last layer of the backbone and set `embedding_dim=None`. `train_health=True` logs
    the spread of the embeddings. In our runs SGD with momentum and weight decay was better than
    Adam, and short runs benefit from 10 times the learning rate for the predictor
    (`keras.optimizers.MultiOptimizer`).

        loss = mean over items of ( d(h(a), stop(b)) + d(h(b), stop(a)) ) / 2

    with a and b the two views, h the predictor, d = 1 - cosine, and stop the stopped gradient. The
    paper's -cosine has the same gradient and a value smaller by 1.

    Args:
        predictor: Keras layer or model from (batch, dim) to (batch, dim), or None (default) for the
            predictor of the paper: two dense layers with dim / 4 units between them and batch
            normalization. It is always called with `training=True`, so that a `BatchNormalization`
            in it uses the statistics of the batch.
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: if `predictor` is not a Keras layer.
        ValueError: for a number of views other than two, or a call outside an `EmbeddingModel`
            before the predictor has weights.

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
        # Keras sets `training` only inside the call of a model, so pass it to the predictor.
        takes_training = "training" in inspect.signature(self.network.call).parameters
        self._training_argument = {"training": True} if takes_training else {}

    def tuple_parts(self, reports, y_true, branches):
        check_branches(branches, 2, "first view, second view")
        predictions = [
            ops.cast(self.network(view, **self._training_argument), view.dtype) for view in branches
        ]
        return [sim_siam_rows(branches, predictions)]
