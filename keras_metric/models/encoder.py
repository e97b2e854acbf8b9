"""Encoder: a backbone and an embedding head."""

import keras

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_flag, check_not_empty, check_not_hdf5
from keras_metric.layers.embedding_head import EmbeddingHead, check_head
from keras_metric.layers.position_masks import check_steps
from keras_metric.models.backbone_inspection import (
    batch_norms,
    check_backbone,
    data_format,
    inputs_like,
    inputs_of_backbone,
    inputs_of_shape,
    padding_mask,
    warn_of_classifier,
)

# Defaults of the arguments of an encoder after its backbone.
DEFAULTS = {
    "embedding_dim": 128,
    "normalize": True,
    "pooling": "average",
    "freeze_batch_norm": False,
}


@export
class Encoder(keras.Model):
    """Network that maps inputs to embeddings: the attribute `encoder` of the models.

    It is a standalone `keras.Model`: it is saved, loaded and exported with the preprocessing
    layers of its backbone and without losses.

        encoder(x) = head(backbone(x))

    Args:
        backbone: a Keras model or layer that returns one vector, one sequence or one map for each
            item. Its inputs may have any structure. A warning reports a classification head at its
            end: for `keras.applications` pass `include_top=False`.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128.
        normalize: True (default) scales each embedding to length 1, in float32.
        pooling: how a map or a sequence becomes one vector: "average" (default), "max", a Keras
            layer, or None. Padding of a sequence is ignored. Its mask is the backbone's input
            `padding_mask` (KerasHub) or `attention_mask` (Hugging Face), of shape
            `(batch, steps)` with 0 for padding; without such an input, the mask that Keras
            attaches to the features, as with `Embedding(mask_zero=True)` and `Masking`. A layer
            receives the mask if its `call` has an argument `mask`. The channel axis of a map is
            that of the backbone's layers (`data_format`).
        freeze_batch_norm, dtype, name: see `EmbeddingModel`.

    Returns:
        Embeddings of shape `(batch, embedding_dim)`, float32 (or float64).

    Raises:
        TypeError: if `backbone` is no Keras model or layer, or an argument has the wrong type.
        ValueError: for a value out of range, or a backbone that returns several outputs or a
            single number for each item.

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
        # The config of an encoder with a frozen head has this additional key.
        head_trainable = kwargs.pop("head_trainable", True)
        # A float16 backbone needs a float16 policy of the model for loss scaling.
        super().__init__(dtype=dtype or backbone.dtype_policy, name=name, **kwargs)
        check_head(embedding_dim, normalize, pooling)
        check_flag("freeze_batch_norm", freeze_batch_norm)
        self.embedding_dim = embedding_dim
        self.normalize = normalize
        self.pooling = pooling
        self.freeze_batch_norm = freeze_batch_norm
        self.backbone = backbone
        self.head = EmbeddingHead(
            embedding_dim,
            normalize,
            pooling,
            # Keras's default may differ from the one of the backbone when a file is loaded.
            data_format=data_format(backbone),
            dtype=distances.at_least_float32(backbone.compute_dtype),
            name="head",
        )
        if not head_trainable:
            self.head.trainable = False
        self._signature = InputSignature()
        inputs = inputs_of_backbone(backbone)
        if inputs is not None:
            # This raises the errors of an unsuitable backbone in the constructor.
            self(inputs)

    def __call__(self, *args, **kwargs):
        # The layers are built by their first call. Keras would call `build` with shapes only, and
        # would hide an error of that call.
        if not self.built:
            self.build()
        return super().__call__(*args, **kwargs)

    def build(self, input_shape=None):
        if input_shape is not None and not self.built:
            self(inputs_of_shape(input_shape))
        self.built = True

    def compute_output_spec(self, inputs, training=None):
        # Keras would trace `call` with axes of unknown length, which some layers of KerasHub do
        # not accept on JAX and PyTorch.
        spec = self.call(inputs, training=training)
        return keras.KerasTensor(spec.shape, spec.dtype)

    def call(self, inputs, training=None):
        if isinstance(inputs, dict):
            # An exported model receives a tracked dict, for which functional models warn.
            inputs = dict(inputs)
        self._freeze()
        # Keras passes `training` on to nested layers; not all layers have this argument.
        features = self.backbone(inputs)
        if isinstance(features, (dict, list, tuple)):
            named = isinstance(features, dict)
            one = f"backbone.output[{sorted(features)[0]!r}]" if named else "backbone.outputs[0]"
            raise ValueError(
                f"The backbone must return one output. Received a {type(features).__name__} of "
                f"{len(features)} outputs{f' {sorted(features)}' if named else ''}. Select the "
                f"output to embed: keras.Model(backbone.input, {one})"
            )
        # For mask=None Keras passes the mask that is attached to the features, if any.
        sequence = len(features.shape) == 3 and self.head.takes_mask
        mask = padding_mask(inputs, self.backbone) if sequence else None
        if mask is not None:
            check_steps(mask, features)
        embeddings = self.head(features, mask=mask)
        self._signature.update(inputs)
        return embeddings

    @property
    def width(self):
        """Length of an embedding, or None before the first call of an unbuilt backbone."""
        return self.head.width

    @property
    def num_inputs(self):
        """Number of tensors the backbone takes, or None if unknown."""
        if isinstance(self.backbone, keras.Sequential):
            return 1
        inputs = self._signature.structure
        return None if inputs is None else len(keras.tree.flatten(inputs))

    @property
    def input_names(self):
        """Keys of the dict that the backbone takes, empty if it takes no dict."""
        inputs = self._signature.structure
        return set(inputs) if isinstance(inputs, dict) else set()

    # Keras reads the trainable weights through these two properties before it compiles a step.
    # `backbone.trainable = True` makes all its layers trainable, so freeze them again here.
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
        """Export for serving, as `keras.Model.export`, with the shapes and dtypes of past inputs.

        Keras's default signature would declare every input as float32.
        """
        inputs = self._signature.structure
        if input_signature is None and inputs is not None:
            specs = keras.tree.map_structure(
                lambda t: keras.layers.InputSpec(shape=t.shape, dtype=t.dtype), inputs
            )
            input_signature = [specs]
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
        return cls(**deserialize_parts(config, custom_objects))

    def get_build_config(self):
        inputs = self._signature.structure
        # KerasTuner writes this as JSON without serializing it.
        return None if inputs is None else {"inputs": keras.saving.serialize_keras_object(inputs)}

    def build_from_config(self, config):
        if config and not self.built:
            self(inputs_like(keras.saving.deserialize_keras_object(config["inputs"])))

    def _freeze(self):
        if self.freeze_batch_norm:
            for layer in batch_norms(self.backbone):
                layer.trainable = False


class InputSignature:
    """Structure, shapes and dtypes of all inputs so far, for batches of any size.

    A plain object, because Keras wraps lists and dicts that are attributes of a model.
    """

    def __init__(self):
        self.structure = None

    def update(self, inputs):
        """Record a batch; an axis whose length differs from an earlier batch becomes None."""
        tensors = keras.tree.flatten(inputs)
        if self.structure is None:
            shapes = [(None, *t.shape[1:]) for t in tensors]
            self.structure = inputs
        else:
            recorded = keras.tree.flatten(self.structure)
            if len(recorded) != len(tensors):
                return
            shapes = [_common_shape(old.shape, t.shape) for old, t in zip(recorded, tensors)]
            tensors = recorded
        specs = [
            keras.KerasTensor(shape, keras.backend.standardize_dtype(t.dtype))
            for shape, t in zip(shapes, tensors)
        ]
        self.structure = keras.tree.pack_sequence_as(self.structure, specs)


def _common_shape(old, new):
    if len(old) != len(new):
        return old
    return (None, *(a if a == b else None for a, b in zip(old[1:], new[1:])))


def deserialize_parts(config, custom_objects=None):
    """Return `config` with the backbone and the pooling layer deserialized."""
    parts = {
        key: keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
        for key in ("backbone", "pooling")
    }
    return {**config, **parts}


def check_encoder_arguments(encoder, *given):
    """Raise ValueError for arguments that differ from those of an encoder that is used as it is."""
    for (name, default), value in zip(DEFAULTS.items(), given):
        own = getattr(encoder, name)
        if value not in (default, own):
            raise ValueError(
                f"The encoder of another model is used as it is, with {name}={own!r}. Received: "
                f"{name}={value!r}. Leave it out, or pass backbone=model.backbone for a new head."
            )
