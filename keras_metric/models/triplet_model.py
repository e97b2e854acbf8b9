"""TripletModel: EmbeddingModel for triplets, with triplet loss."""

from keras_metric._export import export
from keras_metric.models import branches
from keras_metric.models.embedding_model import EmbeddingModel


@export
class TripletModel(EmbeddingModel):
    """Triplet network: an anchor is closer to its positive than to its negative, by a margin.

    The first model to try. It mines triplets from labelled batches (inputs, integer class ids): use
    `keras_metric.data.BalancedBatches`, so that a batch has several items of a class. Ready-made
    triplets are the inputs `{"anchor": ..., "positive": ..., "negative": ...}` or
    `((anchor, positive, negative),)` from a data set, without `y`. The default loss is
    `TripletLoss(margin=0.2, mining="semi-hard")`.

        model((a, p, n)) = [encoder(a), encoder(p), encoder(n)]

    Args:
        backbone: a Keras model or layer, see `EmbeddingModel`.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128, as in the
            paper.
        normalize: True (default) scales each embedding to length 1; the default margin of 0.2
            is for such vectors.
        pooling, freeze_batch_norm, train_health, chunk_size, dtype, name: see `EmbeddingModel`.

    Call arguments:
        inputs: a batch of items, or triplets.

    Returns:
        Embeddings `(batch, embedding_dim)` of items, `(batch, 3, embedding_dim)` of triplets.

    Raises:
        TypeError, ValueError: as `EmbeddingModel`.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric
    >>> images = np.random.default_rng(0).random((32, 8, 8, 1), "float32")
    >>> labels = np.arange(32) % 4
    >>> backbone = keras.Sequential([keras.layers.Conv2D(8, 3, activation="relu")])
    >>> model = keras_metric.TripletModel(backbone, embedding_dim=16)
    >>> history = model.fit(images, labels, verbose=0)
    >>> model.encoder.predict(images, verbose=0).shape
    (32, 16)

    Reference:
        Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face Recognition and
        Clustering", 2015, https://arxiv.org/abs/1503.03832
    """

    forms = (branches.TRIPLET,)
    takes_tuples = True
    takes_targets = False
