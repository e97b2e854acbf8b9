"""QuadrupletModel: a triplet and a fourth item."""

from keras_metric import losses
from keras_metric._export import export
from keras_metric.models import branches
from keras_metric.models.embedding_model import EmbeddingModel
from keras_metric.models.suitable_losses import losses_in


@export
class QuadrupletModel(EmbeddingModel):
    """Learns from quadruplets, which also hold apart classes that the anchor has no part in.

    Reach for it where triplets order well around each anchor but one threshold has to serve all
    classes. Quadruplets are the inputs `{"anchor": ..., "positive": ..., "negative": ...,
    "second_negative": ...}` or a tuple in that order, without `y`. With
    `QuadrupletLoss(form="two_anchors")` they are `{"anchor": ..., "second_anchor": ...,
    "positive": ..., "negative": ...}`. From labelled batches the loss forms them itself. The loss
    is `QuadrupletLoss()` until `compile(loss=...)` says otherwise.

        model((a, p, n, n2)) = [encoder(a), encoder(p), encoder(n), encoder(n2)]

    Args:
        backbone: a Keras model or layer, see `EmbeddingModel`.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128.
        normalize: True (default) scales each embedding to length 1, which the default margins
            of 1 and 0.5 in squared distance are for.
        pooling: "average" (default), "max", a Keras layer, or None. See `models.Encoder`.
        freeze_batch_norm: True keeps batch normalisation of the backbone frozen. Default False.
        train_health: True adds statistics of the training to the logs. Default False. See
            `EmbeddingModel`.
        chunk_size: how many items the encoder trains on at a time, for batches beyond its memory.
            Default None: the whole batch. See `EmbeddingModel`.
        dtype: default None: the dtype policy of the backbone.
        name: name of the model.

    Call arguments:
        inputs: a batch of items, or quadruplets.

    Returns:
        Embeddings `(batch, embedding_dim)`; of quadruplets `(batch, 4, embedding_dim)`.

    Raises:
        TypeError: if `backbone` is no Keras model or layer, or an argument has another type.
        ValueError: for a value out of range, a backbone that gives several outputs or one
            number an item, a missing branch, or branches of another form than the loss's.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric
    >>> a, p, n, m = np.random.default_rng(0).random((4, 32, 8), "float32")
    >>> quadruplets = {"anchor": a, "positive": p, "negative": n, "second_negative": m}
    >>> model = keras_metric.QuadrupletModel(keras.layers.Dense(16), embedding_dim=4)
    >>> history = model.fit(quadruplets, verbose=0)
    >>> model.predict(quadruplets, verbose=0).shape
    (32, 4, 4)

    Reference:
        Chen, Chen, Zhang and Huang, "Beyond triplet loss: a deep quadruplet network for person
        re-identification", 2017, https://arxiv.org/abs/1704.01719
    """

    forms = (branches.QUADRUPLET, branches.TWO_ANCHORS)
    takes_tuples = True
    takes_targets = False

    def _default_loss(self):
        return losses.QuadrupletLoss()

    def call(self, inputs, training=None):
        self._check_form(inputs)
        return super().call(inputs, training=training)

    def _check_form(self, inputs):
        # Position alone tells the loss which item is which, so the wrong form would train.
        if not isinstance(inputs, dict):
            return
        found = next((names for names in self.forms if set(inputs) == set(names)), None)
        for loss in losses_in(self.loss):
            if found is None or not isinstance(loss, losses.QuadrupletLoss):
                continue
            expected = branches.TWO_ANCHORS if loss.form == "two_anchors" else branches.QUADRUPLET
            if found != expected:
                raise ValueError(
                    f"QuadrupletLoss(form={loss.form!r}) needs the branches "
                    f"{branches.listing((expected,))}. Received: {branches.listing((found,))}."
                )
