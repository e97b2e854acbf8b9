"""TwoTowerModel: two encoders for two kinds of input, one embedding space."""

from collections.abc import Mapping

import keras
from keras import ops

from keras_metric import losses
from keras_metric._export import export
from keras_metric.models import branches
from keras_metric.models.backbone_inspection import check_backbone
from keras_metric.models.encoder import Encoder, check_encoder_arguments
from keras_metric.models.metric_model import MetricModel


@export
class TwoTowerModel(MetricModel):
    """Embeds two kinds of items in one space, such as images and captions or users and products.

    Use it where the two sides need different networks; for two views of one kind use
    `EmbeddingModel`. Inputs are matching pairs, `{"first": ..., "second": ...}` or
    `((first, second),)` from a data set. `y` is optional: pairs with the same integer `y` show the
    same item and are not negatives of each other. The default loss is `ClipLoss()`; `SigLipLoss`,
    `InstanceLoss` and all other pair losses can be used too.

        model((a, b)) = [first_encoder(a), second_encoder(b)]

    `first_encoder` and `second_encoder` are standalone models. An index of embeddings of one side
    is searched with embeddings of the other side.

    Args:
        first: a Keras model or layer, the backbone of the first side; or an `Encoder`, which is
            used as it is.
        second: the same for the second side, a different object.
        embedding_dim: length of both embeddings, integer, 1 or more. Default 128.
        normalize: True (default) scales each embedding to length 1.
        pooling, train_health, chunk_size: see `EmbeddingModel`.
        dtype: default None: each tower has the dtype policy of its backbone, the model that of
            the first.
        name: name of the model.

    Call arguments:
        inputs: pairs.

    Returns:
        Embeddings `(batch, 2, embedding_dim)`.

    Raises:
        TypeError: if a backbone is no Keras model or layer, or an argument has the wrong type.
        ValueError: for a value out of range, towers of unequal width, the same object as both
            towers, or inputs that are not pairs.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric
    >>> keras.utils.set_random_seed(0)
    >>> meaning = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> images, captions = meaning @ np.ones((4, 12), "float32"), np.tanh(meaning)
    >>> model = keras_metric.TwoTowerModel(
    ...     keras.layers.Dense(16, "relu"), keras.layers.Dense(8, "relu"), embedding_dim=4
    ... )
    >>> history = model.fit({"first": images, "second": captions}, epochs=2, verbose=0)
    >>> model.first_encoder.predict(images, verbose=0).shape
    (64, 4)
    >>> model.distance(images[:3], captions[:3]).shape
    (3,)

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
        2021, https://arxiv.org/abs/2103.00020; for users and items: Yi et al., "Sampling-Bias-
        Corrected Neural Modeling for Large Corpus Item Recommendations", 2019,
        https://doi.org/10.1145/3298689.3346996
    """

    forms = (branches.PAIR,)
    takes_batches = False

    def __init__(
        self,
        first,
        second,
        embedding_dim=128,
        normalize=True,
        pooling="average",
        train_health=False,
        chunk_size=None,
        dtype=None,
        name=None,
        **kwargs,
    ):
        for name_of_tower, tower in zip(branches.PAIR, (first, second)):
            check_backbone(tower, name_of_tower)
        if first is second:
            raise ValueError(
                "`first` and `second` are the same object. For one encoder on both sides use "
                "keras_metric.EmbeddingModel(backbone), or SiameseModel for pairs with y 0 or 1."
            )
        if embedding_dim is None:
            raise ValueError(
                "Both towers must return vectors of the same length. Received: embedding_dim=None. "
                "For no linear layer pass towers keras_metric.models.Encoder(backbone, None)."
            )
        super().__init__(
            train_health=train_health,
            chunk_size=chunk_size,
            dtype=dtype or first.dtype_policy,
            name=name,
            **kwargs,
        )
        settings = (embedding_dim, normalize, pooling)
        for tower in (first, second):
            if isinstance(tower, Encoder):
                check_encoder_arguments(tower, *settings)
        self.first_encoder, self.second_encoder = (
            tower
            if isinstance(tower, Encoder)
            else Encoder(tower, *settings, dtype=dtype, name=f"{side}_encoder")
            for side, tower in zip(branches.PAIR, (first, second))
        )
        self._check_widths()
        self.built = all(tower.built for tower in self.towers)
        self.compile_default()

    def _default_loss(self):
        return losses.ClipLoss()

    @property
    def towers(self):
        """(first_encoder, second_encoder)."""
        return (self.first_encoder, self.second_encoder)

    @property
    def embedding_dim(self):
        """Length of an embedding, or None before the first call of an unbuilt model."""
        return next((tower.width for tower in self.towers if tower.width), None)

    def call(self, inputs, training=None):
        embeddings = [
            self.embed(tower, part, training) for tower, part in zip(self.towers, _sides(inputs))
        ]
        self._check_widths()
        self.loss_layers.build_held(embeddings[0].shape[-1])
        return ops.stack(embeddings, axis=1)

    def get_build_config(self):
        configs = [tower.get_build_config() for tower in self.towers]
        return {"towers": configs} if all(configs) else None

    def build_from_config(self, config):
        for tower, part in zip(self.towers, (config or {}).get("towers", ())):
            tower.build_from_config(part)
        self.built = all(tower.built for tower in self.towers)

    def get_config(self):
        return {
            **super().get_config(),
            **{
                side: keras.saving.serialize_keras_object(tower)
                for side, tower in zip(branches.PAIR, self.towers)
            },
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        towers = {
            side: keras.saving.deserialize_keras_object(config[side], custom_objects)
            for side in branches.PAIR
        }
        return cls(**{**config, **towers})

    def _check_widths(self):
        widths = [tower.width for tower in self.towers]
        if None not in widths and widths[0] != widths[1]:
            raise ValueError(
                "Both towers must return vectors of the same length. Received encoders of length "
                f"{widths[0]} and {widths[1]}. Build both with the same `embedding_dim`."
            )


def _sides(inputs):
    """Return the inputs of the first and of the second tower."""
    if isinstance(inputs, Mapping) and set(inputs) == set(branches.PAIR):
        return [inputs[side] for side in branches.PAIR]
    if isinstance(inputs, (tuple, list)) and len(inputs) == 2:
        return list(inputs)
    if isinstance(inputs, Mapping):
        received = f"a dict with the keys {sorted(map(str, inputs))}"
    elif isinstance(inputs, (tuple, list)):
        received = f"a {type(inputs).__name__} of {len(inputs)} parts"
    else:
        received = f"one input of shape {tuple(getattr(inputs, 'shape', ()))}"
    raise ValueError(
        f"Expected pairs, {branches.listing((branches.PAIR,))} or (first, second). Received "
        f"{received}. For one side use model.first_encoder.predict(x) or "
        "model.second_encoder.predict(x)."
    )
