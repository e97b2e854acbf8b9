"""A fingerprint of an encoder, so that vectors of two encoders never meet in one index."""

import hashlib
import json

import numpy as np
from keras import ops

from keras_metric._validation import shown

# Keys of a Keras config that say how a model came to be, not what it computes.
_BOOKKEEPING = {"name", "build_config", "compile_config", "inbound_nodes", "input_layers"}
_BOOKKEEPING |= {"output_layers", "module", "registered_name", "shared_object_id"}


def fingerprint(encoder):
    """SHA-256 of what an encoder computes with: settings of its layers, vocabularies, weights.

    The same after saving and loading and on every backend; another after any training step, or
    with another preprocessing layer inside.
    """
    _check(encoder)
    digest = hashlib.sha256()
    try:
        config = json.loads(encoder.to_json())
    except (NotImplementedError, TypeError, ValueError):
        # A subclassed model that does not say how it is configured is known by its weights alone.
        config = None
    digest.update(json.dumps(_essence(config), sort_keys=True).encode())
    # What `adapt` learned of words is in no weight, and in no config.
    for layer in encoder._flatten_layers():
        if hasattr(layer, "get_vocabulary"):
            digest.update(json.dumps([str(word) for word in layer.get_vocabulary()]).encode())
    for weight in encoder.weights:
        value = np.ascontiguousarray(ops.convert_to_numpy(weight.value))
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
    # An encoder of this package knows its width before any input is known.
    width = getattr(encoder, "width", None)
    if width is None:
        try:
            width = encoder.output_shape[-1]
        except (AttributeError, TypeError, ValueError):
            width = None
    if not isinstance(width, int):
        raise ValueError(
            "The encoder does not know the length of its embeddings yet. Pass `dim`, or run the "
            f"encoder on one batch first. Received: encoder={encoder.name!r}"
        )
    return width


def check_fingerprint(encoder, wanted, dim):
    """Raise unless the encoder has the fingerprint that an index keeps."""
    if wanted is None:
        raise ValueError(
            "This index does not know its encoder. Make it with Index(encoder=...), or leave "
            "`encoder` out."
        )
    found = fingerprint(encoder)
    if found != wanted:
        raise ValueError(
            f"This index was made with another encoder: its fingerprint is {wanted[:12]}..., that "
            f"of {encoder.name!r} is {found[:12]}... Distances between the two mean nothing: load "
            f"the encoder that was saved with the index, or embed everything anew (dim={dim})."
        )


def _check(encoder):
    import keras

    if not isinstance(encoder, keras.layers.Layer):
        raise TypeError(
            f"`encoder` must be a Keras model. Received: encoder={shown(encoder)}. Of a model of "
            "this package it is model.encoder."
        )


def _essence(config):
    if isinstance(config, dict):
        return {key: _essence(v) for key, v in config.items() if key not in _BOOKKEEPING}
    if isinstance(config, (list, tuple)):
        return [_essence(value) for value in config]
    return config
