"""Fingerprint of an encoder, so that one index never mixes vectors of two encoders."""

import hashlib
import json

import keras
import numpy as np

from keras_metric._validation import shown

# Keys of a Keras config that do not affect what a model computes.
_BOOKKEEPING = {"name", "build_config", "compile_config", "inbound_nodes", "input_layers"}
_BOOKKEEPING |= {"output_layers", "module", "registered_name", "shared_object_id"}


def fingerprint(encoder):
    """SHA-256 of the settings of an encoder's layers, their vocabularies and its weights.

    Saving, loading and the backend do not change it. Any training step does, and so does another
    preprocessing layer inside the encoder.
    """
    _check(encoder)
    digest = hashlib.sha256()
    try:
        config = json.loads(encoder.to_json())
    except (NotImplementedError, TypeError, ValueError):
        # A subclassed model without a config is identified by its weights only.
        config = None
    digest.update(json.dumps(_computed(config), sort_keys=True).encode())
    # The vocabulary of an adapted layer is neither a weight nor in the config.
    for layer in encoder._flatten_layers():
        if hasattr(layer, "get_vocabulary"):
            digest.update(json.dumps([str(word) for word in layer.get_vocabulary()]).encode())
    for weight in encoder.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight.value))
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def encoder_width(encoder):
    """The length of an encoder's embeddings."""
    if encoder is None:
        raise ValueError(
            "An index needs `dim`, the length of its embeddings, or `encoder`. Received neither."
        )
    _check(encoder)
    # `Encoder` of this package has its width before it is built.
    width = getattr(encoder, "width", None)
    if width is None:
        try:
            width = encoder.output_shape[-1]
        except (AttributeError, TypeError, ValueError):
            width = None
    if not isinstance(width, int):
        raise ValueError(
            "The length of the encoder's embeddings is not defined yet. Pass `dim`, or run the "
            f"encoder on one batch first. Received: encoder={encoder.name!r}"
        )
    return width


def check_fingerprint(encoder, expected):
    """Raise unless the encoder has the fingerprint that an index stores."""
    if expected is None:
        raise ValueError("This index has no fingerprint. Create it with Index(encoder=...).")
    found = fingerprint(encoder)
    if found != expected:
        raise ValueError(
            f"This index was made with another encoder: its fingerprint is {expected[:12]}..., "
            f"that of {encoder.name!r} is {found[:12]}... Load the encoder that was saved with the "
            "index, or embed all items again."
        )


def _check(encoder):
    if not isinstance(encoder, keras.layers.Layer):
        raise TypeError(
            f"`encoder` must be a Keras model. Received: encoder={shown(encoder)}. The encoder of "
            "a model of this package is model.encoder."
        )


def _computed(config):
    """The parts of a config that affect what a model computes."""
    if isinstance(config, dict):
        return {key: _computed(v) for key, v in config.items() if key not in _BOOKKEEPING}
    if isinstance(config, (list, tuple)):
        return [_computed(value) for value in config]
    return config
