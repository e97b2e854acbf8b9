"""SiameseModel: two items, one encoder, their distance."""

from keras import ops

from keras_metric import distances, losses
from keras_metric._export import export
from keras_metric.models import branches
from keras_metric.models.embedding_model import EmbeddingModel


@export
class SiameseModel(EmbeddingModel):
    """Learns from pairs which items are the same: signatures, faces, duplicate records.

    Reach for it where the data come as pairs with a verdict. Pairs are the inputs
    `{"first": ..., "second": ...}` or `(first, second)` with `y` 1 where the two are the same
    and 0 where they differ. Labelled batches work as in `EmbeddingModel`; then all pairs of the
    batch count. The loss is `ContrastiveLoss()` until `compile(loss=...)` says otherwise.

        model((first, second)) = [encoder(first), encoder(second)]

    `predict` on pairs gives their distances, in the metric of the loss, because that is what
    one wants to know of a pair; on single items it gives embeddings.

    Args:
        backbone: a Keras model or layer, see `EmbeddingModel`.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128.
        normalize: True (default) scales each embedding to length 1; the default margin of 1 is
            the middle of the distances 0 to 2 of such vectors.
        pooling: "average" (default), "max", a Keras layer, or None. See `models.Encoder`.
        freeze_batch_norm: True keeps batch normalisation of the backbone frozen. Default False.
        train_health: True adds statistics of the training to the logs. Default False. See
            `EmbeddingModel`.
        chunk_size: how many items the encoder trains on at a time, for batches beyond its memory.
            Default None: the whole batch. See `EmbeddingModel`.
        dtype: default None: the dtype policy of the backbone.
        name: name of the model.

    Call arguments:
        inputs: pairs, or a batch of single items.

    Returns:
        Embeddings `(batch, 2, embedding_dim)` of pairs, `(batch, embedding_dim)` of items.

    Raises:
        TypeError: if `backbone` is no Keras model or layer, or an argument has another type.
        ValueError: for a value out of range, a backbone that gives several outputs or one
            number an item, a missing branch, or pairs without `y`.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric
    >>> first, second = np.random.default_rng(0).normal(size=(2, 32, 8)).astype("float32")
    >>> same = (first[:, 0] * second[:, 0] > 0).astype("int32")
    >>> model = keras_metric.SiameseModel(keras.layers.Dense(16), embedding_dim=4)
    >>> history = model.fit({"first": first, "second": second}, same, verbose=0)
    >>> model.predict({"first": first, "second": second}, verbose=0).shape
    (32,)

    Reference:
        Bromley, Guyon, LeCun, Säckinger and Shah, "Signature Verification using a Siamese Time
        Delay Neural Network", 1993, https://proceedings.neurips.cc/paper/1993/hash/288cc0ff022877bd3df94bc9360b9c5d-Abstract.html
    """

    forms = (branches.PAIR,)
    takes_tuples = True
    takes_targets = False

    def _default_loss(self):
        return losses.ContrastiveLoss()

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Distances `(n,)` of pairs, or embeddings `(n, embedding_dim)` of single items."""
        embeddings = super().predict(
            x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks
        )
        if embeddings.ndim == 2:
            return embeddings
        first, second = embeddings[:, 0], embeddings[:, 1]
        return ops.convert_to_numpy(distances.elementwise(first, second, self._loss_metric()))
