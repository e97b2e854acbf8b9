"""QuadrupletModel: EmbeddingModel for quadruplets, with quadruplet loss."""

from keras_metric import losses
from keras_metric._export import export
from keras_metric.models import branches
from keras_metric.models.embedding_model import EmbeddingModel
from keras_metric.models.suitable_losses import losses_in


@export
class QuadrupletModel(EmbeddingModel):
    """Quadruplet network: also separates pairs of classes that do not include the anchor's class.

    Use it where one distance threshold has to separate all classes. Quadruplets are the inputs
    `{"anchor": ..., "positive": ..., "negative": ..., "second_negative": ...}` or a tuple in that
    order, without `y`. With `QuadrupletLoss(form="two_anchors")` they are `{"anchor": ...,
    "second_anchor": ..., "positive": ..., "negative": ...}`. The loss forms quadruplets from
    labelled batches. The default loss is `QuadrupletLoss()`.

        model((a, p, n, n2)) = [encoder(a), encoder(p), encoder(n), encoder(n2)]

    Args:
        backbone: a Keras model or layer, see `EmbeddingModel`.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128.
        normalize: True (default) scales each embedding to length 1; the default margins, 1 and
            0.5 in squared distance, are for such vectors.
        pooling, freeze_batch_norm, train_health, chunk_size, dtype, name: see `EmbeddingModel`.

    Call arguments:
        inputs: a batch of items, or quadruplets.

    Returns:
        Embeddings `(batch, embedding_dim)` of items, `(batch, 4, embedding_dim)` of quadruplets.

    Raises:
        TypeError, ValueError: as `EmbeddingModel`; ValueError also for branches of another form
            than the loss requires.

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
        # The loss identifies branches by position and would accept those of the wrong form.
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
