"""TripletModel: an anchor nearer to its positive than to its negative."""

from keras_metric._export import export
from keras_metric.models import branches
from keras_metric.models.embedding_model import EmbeddingModel


@export
class TripletModel(EmbeddingModel):
    """Learns that an item is nearer to its own kind than to any other, by a margin.

    The first model to try. From labelled batches (inputs, integer class ids) it chooses the
    triplets itself, batch by batch: use `keras_metric.data.BalancedBatches`, so that a batch
    has several items of a class. Ready-made triplets are the inputs
    `{"anchor": ..., "positive": ..., "negative": ...}` or `((anchor, positive, negative),)`
    from a data set, without `y`. The loss is `TripletLoss(margin=0.2, mining="semi-hard")` until
    `compile(loss=...)` says otherwise.

        model((a, p, n)) = [encoder(a), encoder(p), encoder(n)]

    Args:
        backbone: a Keras model or layer, see `EmbeddingModel`.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128, as in the
            paper.
        normalize: True (default) scales each embedding to length 1; the default margin of 0.2
            is for such vectors.
        pooling: "average" (default), "max", a Keras layer, or None. See `models.Encoder`.
        freeze_batch_norm: True keeps batch normalisation of the backbone frozen. Default False.
        train_health: True adds statistics of the training to the logs. Default False. See
            `EmbeddingModel`.
        chunk_size: how many items the encoder trains on at a time, for batches beyond its memory.
            Default None: the whole batch. See `EmbeddingModel`.
        dtype: default None: the dtype policy of the backbone.
        name: name of the model.

    Call arguments:
        inputs: a batch of items, or triplets.

    Returns:
        Embeddings `(batch, embedding_dim)`; of triplets `(batch, 3, embedding_dim)`.

    Raises:
        TypeError: if `backbone` is no Keras model or layer, or an argument has another type.
        ValueError: for a value out of range, a backbone that gives several outputs or one
            number an item, or a missing branch.

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
