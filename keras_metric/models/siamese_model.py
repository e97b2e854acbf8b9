"""SiameseModel: EmbeddingModel for pairs, with contrastive loss."""

from keras import ops

from keras_metric import distances, losses
from keras_metric._export import export
from keras_metric.models import branches
from keras_metric.models.embedding_model import EmbeddingModel


@export
class SiameseModel(EmbeddingModel):
    """Siamese network: learns from pairs whether two items are the same.

    Use it for labelled pairs, such as signatures, faces or duplicate records. Pairs are the inputs
    `{"first": ..., "second": ...}` or `(first, second)`, with `y` 1 for the same and 0 for
    different items. Labelled batches are accepted as in `EmbeddingModel`; the loss then uses all
    pairs of a batch. The default loss is `ContrastiveLoss()`.

        model((first, second)) = [encoder(first), encoder(second)]

    `predict` returns distances for pairs, in the metric of the loss, and embeddings for single
    items.

    Args:
        backbone: a Keras model or layer, see `EmbeddingModel`.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128.
        normalize: True (default) scales each embedding to length 1. Distances are then between 0
            and 2; the default margin 1 is half of this range.
        pooling, freeze_batch_norm, train_health, chunk_size, dtype, name: see `EmbeddingModel`.

    Call arguments:
        inputs: pairs, or a batch of single items.

    Returns:
        Embeddings `(batch, 2, embedding_dim)` of pairs, `(batch, embedding_dim)` of items.

    Raises:
        TypeError, ValueError: as `EmbeddingModel`; ValueError also for pairs without `y`.

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
        """Return distances `(n,)` of pairs, or embeddings `(n, embedding_dim)` of single items."""
        embeddings = super().predict(
            x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks
        )
        if embeddings.ndim == 2:
            return embeddings
        first, second = embeddings[:, 0], embeddings[:, 1]
        return ops.convert_to_numpy(distances.elementwise(first, second, self._loss_metric()))
