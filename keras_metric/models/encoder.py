"""Encoder: a backbone and the head that makes embeddings of it."""

import keras

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_flag, check_not_empty, check_not_hdf5
from keras_metric.layers.embedding_head import EmbeddingHead, check_head
from keras_metric.layers.position_masks import check_steps
from keras_metric.models.backbones import (
    as_inputs,
    batch_norms,
    check_backbone,
    data_format,
    inputs_of_shape,
    known_inputs,
    padding_mask,
    revive,
    warn_of_classifier,
)
from keras_metric.models.input_signature import InputSignature

# Arguments that shape an encoder, beside its backbone.
DEFAULTS = {
    "embedding_dim": 128,
    "normalize": True,
    "pooling": "average",
    "freeze_batch_norm": False,
}


@export
class Encoder(keras.Model):
    """The network that turns inputs into embeddings: `model.encoder` of every model here.

    It is what remains when training is over: it saves, loads and exports by itself, with the
    preprocessing layers of its backbone inside, and knows nothing of losses.

        encoder(x) = head(backbone(x))

    Args:
        backbone: a Keras model or layer that gives one vector, one sequence or one map for each
            item. Its inputs may be of any kind and structure. A warning reports a classification
            head at its end: of `keras.applications` pass `include_top=False`.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128.
        normalize: True (default) scales each embedding to length 1, in float32.
        pooling: how a map or a sequence becomes one vector: "average" (default), "max", a Keras
            layer, or None. Padding of a sequence does not count. Its mask is the backbone's input
            `padding_mask` (KerasHub) or `attention_mask` (Hugging Face), of shape
            `(batch, steps)` with 0 for padding; without such an input, the mask that Keras
            attaches to the features, as `Embedding(mask_zero=True)` and `Masking` make it. A layer
            receives the mask if its `call` has an argument `mask`. A map has its features where
            the backbone's layers have them (`data_format`).
        freeze_batch_norm: True keeps every `BatchNormalization` of the backbone at its stored
            statistics, neither trained nor updated, whatever else is made trainable. Default
            False. For fine-tuning on few images or small batches.
        dtype: default None: the dtype policy of the backbone, so that a float16 backbone gets
            loss scaling.
        name: name of the model.

    Returns:
        Embeddings of shape `(batch, embedding_dim)`, float32 (or float64).

    Raises:
        TypeError: if `backbone` is no Keras model or layer, or an argument has another type.
        ValueError: for a value out of range, or a backbone that gives several outputs or a
            single number an item.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> from keras_metric.models import Encoder
    >>> backbone = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3)])
    >>> encoder = Encoder(backbone, embedding_dim=16)
    >>> encoder(np.zeros((2, 8, 8, 1), "uint8")).shape[1]
    16
    """

    def __init__(
        self,
        backbone,
        embedding_dim=128,
        normalize=True,
        pooling="average",
        freeze_batch_norm=False,
        dtype=None,
        name=None,
        **kwargs,
    ):
        check_backbone(backbone)
        warn_of_classifier(backbone)
        # Only in a config: the head of a saved encoder may be frozen.
        head_trainable = kwargs.pop("head_trainable", True)
        # Without this a float16 backbone under a float32 policy would train without loss scaling.
        super().__init__(dtype=dtype or backbone.dtype_policy, name=name, **kwargs)
        check_head(embedding_dim, normalize, pooling)
        check_flag("freeze_batch_norm", freeze_batch_norm)
        self.embedding_dim = embedding_dim
        self.normalize = normalize
        self.pooling = pooling
        self.freeze_batch_norm = freeze_batch_norm
        self.backbone = backbone
        wide = distances.at_least_float32(backbone.compute_dtype)
        # Of the backbone itself: it may be loaded where another order is the default.
        order = data_format(backbone)
        self.head = EmbeddingHead(
            embedding_dim, normalize, pooling, data_format=order, dtype=wide, name="head"
        )
        if not head_trainable:
            self.head.trainable = False
        self._signature = InputSignature()
        inputs = known_inputs(backbone)
        if inputs is not None:
            # A backbone that knows its inputs is tried at once: a wrong one fails here.
            self(inputs)

    def __call__(self, *args, **kwargs):
        # What is below builds itself in its first call, and errors in it stay errors. Keras
        # would hand `build` the shapes of that call, and could not know the dtypes.
        if not self.built:
            self.build()
        return super().__call__(*args, **kwargs)

    def build(self, input_shape=None):
        if input_shape is not None and not self.built:
            self(inputs_of_shape(input_shape))
        self.built = True

    def compute_output_spec(self, inputs, training=None):
        # Layer by layer: Keras would trace `call` with axes of unknown length, which some layers
        # of KerasHub do not accept on JAX and PyTorch.
        spec = self.call(inputs, training=training)
        return keras.KerasTensor(spec.shape, spec.dtype)

    def call(self, inputs, training=None):
        if isinstance(inputs, dict):
            # An exported signature hands over a dict type of Keras's own, which a functional
            # backbone would warn of.
            inputs = dict(inputs)
        self._freeze()
        # No `training=`: a plain layer may not take it, and Keras hands it on by itself.
        features = self.backbone(inputs)
        if isinstance(features, (dict, list, tuple)):
            named = isinstance(features, dict)
            one = f"backbone.output[{sorted(features)[0]!r}]" if named else "backbone.outputs[0]"
            raise ValueError(
                f"The backbone must give one output. Received a {type(features).__name__} of "
                f"{len(features)} outputs{f' {sorted(features)}' if named else ''}. Build one "
                f"that ends at the output to embed: keras.Model(backbone.input, {one})"
            )
        # Without an explicit mask Keras passes the one that the features carry, if any.
        sequence = len(features.shape) == 3 and self.head.takes_mask
        mask = padding_mask(inputs, self.backbone) if sequence else None
        if mask is not None:
            check_steps(mask, features)
        embeddings = self.head(features, mask=mask)
        self._signature.see(inputs)
        return embeddings

    @property
    def width(self):
        """Length of an embedding, or None as long as the backbone has not seen an input."""
        return self.head.width

    @property
    def num_inputs(self):
        """How many tensors the backbone takes, or None while that is unknown."""
        return 1 if isinstance(self.backbone, keras.Sequential) else self._signature.count

    @property
    def input_names(self):
        """Keys of the dict that the backbone takes, empty if it takes none."""
        return self._signature.names

    # Keras collects what to train from these two, before it compiles a step. Someone may have
    # set `backbone.trainable = True` since, which thaws every layer below it.
    @property
    def variables(self):
        self._freeze()
        return super().variables

    @property
    def weights(self):
        self._freeze()
        return super().weights

    def predict(self, x, *args, **kwargs):
        check_not_empty("x", x)
        return super().predict(x, *args, **kwargs)

    def save(self, filepath, *args, **kwargs):
        check_not_hdf5(filepath)
        super().save(filepath, *args, **kwargs)

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kw):
        """Export for serving, as `keras.Model.export`; shapes and dtypes are those seen so far.

        Keras would declare every input as float32; token ids and raw images keep their dtype.
        """
        if input_signature is None:
            input_signature = self._signature.to_export()
        return super().export(
            filepath, format=format, verbose=verbose, input_signature=input_signature, **kw
        )

    def get_config(self):
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "embedding_dim": self.embedding_dim,
            "normalize": self.normalize,
            "pooling": keras.saving.serialize_keras_object(self.pooling),
            "freeze_batch_norm": self.freeze_batch_norm,
            **({} if self.head.trainable else {"head_trainable": False}),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**revive(config, custom_objects))

    def get_build_config(self):
        inputs = self._signature.structure
        # As plain JSON: Keras would serialize tensors by itself, tuners write what they get.
        return None if inputs is None else {"inputs": keras.saving.serialize_keras_object(inputs)}

    def build_from_config(self, config):
        if config and not self.built:
            self(as_inputs(keras.saving.deserialize_keras_object(config["inputs"])))

    def _freeze(self):
        if self.freeze_batch_norm:
            for layer in batch_norms(self.backbone):
                layer.trainable = False


def check_left_alone(encoder, *given):
    """Raise if an argument asks for another encoder than the one that is to be used as it is."""
    for (name, default), value in zip(DEFAULTS.items(), given):
        own = getattr(encoder, name)
        if value not in (default, own):
            raise ValueError(
                f"The encoder of another model is used as it is, with {name}={own!r}. Received: "
                f"{name}={value!r}. Leave it out, or pass backbone=model.backbone for a new head."
            )
