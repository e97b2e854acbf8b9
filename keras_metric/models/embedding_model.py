"""EmbeddingModel: trains an encoder with a loss on its embeddings."""

import keras

from keras_metric import losses
from keras_metric._export import export
from keras_metric.models import branches
from keras_metric.models.backbone_inspection import check_backbone
from keras_metric.models.encoder import (
    DEFAULTS,
    Encoder,
    check_encoder_arguments,
    deserialize_parts,
)
from keras_metric.models.metric_model import MetricModel


@export
class EmbeddingModel(MetricModel):
    """Learns embeddings in which items of the same class are close and others are distant.

    Use it with labelled data and any loss of `keras_metric.losses`; `SiameseModel`,
    `TripletModel` and `QuadrupletModel` differ in the default loss and take ready-made tuples. The
    constructor compiles the model with Adam (learning rate 1e-3) and
    `TripletLoss(margin=0.2, mining="semi-hard")`. To change the loss, pass the optimizer as well:
    `compile(loss=...)` selects Keras's default, RMSprop. Weights of a loss, such as proxies, are
    trained and saved with the model.

        model(x) = encoder(x) = head(backbone(x))

    `x` is a batch of inputs with integer class ids as `y`, or a dict of branches such as
    `{"anchor": ..., "positive": ..., "negative": ...}`. The encoder runs once on the concatenated
    branches; the loss receives embeddings `(batch, branches, embedding_dim)`. To train the head
    first and then the whole encoder:

        model.backbone.trainable = False
        model.fit(ds)
        model.backbone.trainable = True
        model.compile(keras.optimizers.Adam(1e-5))   # keeps the loss
        model.fit(ds)

    Args:
        backbone: a Keras model or layer, pretrained or not, for images, text or tables. Include
            preprocessing layers if the model has to take raw inputs. It returns a vector, a
            sequence or a map. The `encoder` of another model is used as it is and shares its
            weights; then leave the next three arguments and `freeze_batch_norm` at their defaults.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128, the most
            frequent size in the literature.
        normalize: True (default) scales each embedding to length 1. The default margins assume
            it. False for losses that use the length.
        pooling: how a map or a sequence becomes one vector: "average" (default), "max", a Keras
            layer, or None. Padding of a sequence is ignored: see `models.Encoder`.
        freeze_batch_norm: True keeps every `BatchNormalization` of the backbone at its stored
            statistics, also after `backbone.trainable = True`. Default False. Use it to
            fine-tune a pretrained network on few or balanced batches, whose statistics differ
            from those of its training data.
        train_health: True adds `active_fraction`, `positive_distance`, `negative_distance`,
            `positives` and `embedding_spread` to the logs. Default False, because the statistics
            make a step of a small network slower (by 4 % at a batch of 32 on torch). `fit` warns
            of batches without positives and of collapsed embeddings in both cases.
        chunk_size: number of items that the encoder processes at a time in training. Default None:
            the whole batch. With 256, a batch of 4,096 needs the encoder memory of 256 items and
            a third more computation, because the encoder runs twice. Embeddings, loss and gradient
            equal those of the whole batch, with the same dropout in both runs. Batch normalization
            computes its statistics for each chunk. See docs/scale.md.
        dtype: default None: the dtype policy of the backbone, so that a float16 backbone gets
            loss scaling.
        name: name of the model.

    Call arguments:
        inputs: a batch as above.

    Returns:
        Embeddings `(batch, embedding_dim)`, or `(batch, branches, embedding_dim)` for branches.

    Raises:
        TypeError: if `backbone` is no Keras model or layer, or an argument has the wrong type.
        ValueError: for a value out of range, a backbone that returns several outputs or one
            number for each item, or inputs that are neither a batch nor all branches.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric
    >>> keras.utils.set_random_seed(0)
    >>> labels = np.arange(32) % 4
    >>> images = np.random.default_rng(0).normal(labels[:, None, None, None], size=(32, 8, 8, 1))
    >>> backbone = keras.Sequential([keras.layers.Conv2D(8, 3, activation="relu")])
    >>> model = keras_metric.EmbeddingModel(backbone, embedding_dim=16)
    >>> history = model.fit(images, labels, epochs=2, verbose=0)
    >>> model.predict(images, verbose=0).shape
    (32, 16)
    >>> model.distance(images[:1], images[1:5]).shape
    (4,)
    """

    # Forms of ready-made tuples: names of their branches in the order that the loss expects.
    forms: tuple[tuple[str, ...], ...] = (
        branches.TRIPLET,
        branches.POSITIVE_PAIR,
        branches.QUADRUPLET,
        branches.TWO_ANCHORS,
        branches.PAIR,
    )
    # A tuple may be the input of a backbone with several inputs. The subclasses of one form read
    # it as branches.
    takes_tuples = False
    takes_targets = True

    def __init__(
        self,
        backbone,
        embedding_dim=128,
        normalize=True,
        pooling="average",
        freeze_batch_norm=False,
        train_health=False,
        chunk_size=None,
        dtype=None,
        name=None,
        **kwargs,
    ):
        check_backbone(backbone)
        if isinstance(backbone, EmbeddingModel):
            raise ValueError(
                f"`backbone` must not be a {type(backbone).__name__}. Pass its encoder to share "
                "the weights (backbone=model.encoder), or its backbone for a new head."
            )
        head_trainable = kwargs.pop("head_trainable", True)
        super().__init__(
            train_health=train_health,
            chunk_size=chunk_size,
            dtype=dtype or backbone.dtype_policy,
            name=name,
            **kwargs,
        )
        if isinstance(backbone, Encoder):
            check_encoder_arguments(backbone, embedding_dim, normalize, pooling, freeze_batch_norm)
            self.encoder = backbone
        else:
            self.encoder = Encoder(
                backbone,
                embedding_dim,
                normalize,
                pooling,
                freeze_batch_norm,
                dtype=dtype,
                name="encoder",
                head_trainable=head_trainable,
            )
        self.shares_encoder = isinstance(backbone, Encoder)
        self.built = self.encoder.built
        self.compile_default()

    def _default_loss(self):
        return losses.TripletLoss(margin=0.2, mining="semi-hard")

    @property
    def normalized(self):
        """Whether embeddings have length 1."""
        return self.encoder.normalize

    @property
    def backbone(self):
        """The backbone of the encoder."""
        return self.encoder.backbone

    @property
    def towers(self):
        """Encoders of the two sides of a comparison; both are `encoder`."""
        return (self.encoder, self.encoder)

    @property
    def embedding_dim(self):
        """Length of an embedding, or None before the first call of an unbuilt model."""
        return self.encoder.width

    def call(self, inputs, training=None):
        parts = branches.split(inputs, self.forms, self.takes_tuples, self.encoder)
        x = inputs if parts is None else branches.join(parts)
        embeddings = self.embed(self.encoder, x, training)
        # Without a linear layer the length is known only after the first call of the backbone.
        self.loss_layers.build_held(embeddings.shape[-1])
        return embeddings if parts is None else branches.stack(embeddings, parts)

    def export(self, filepath, **kwargs):
        """Export the encoder for serving, like `model.encoder.export`."""
        return self.encoder.export(filepath, **kwargs)

    def get_build_config(self):
        return self.encoder.get_build_config()

    def build_from_config(self, config):
        self.encoder.build_from_config(config)
        self.built = self.encoder.built

    def get_config(self):
        encoder = self.encoder.get_config()
        names = ("backbone", *DEFAULTS, "head_trainable")
        settings = {name: encoder[name] for name in names if name in encoder}
        if self.shares_encoder:
            settings = {"backbone": keras.saving.serialize_keras_object(self.encoder), **DEFAULTS}
        return {**super().get_config(), **settings}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**deserialize_parts(config, custom_objects))
