"""What the models ask of a backbone, and how it travels through a config."""

import numbers
import warnings

import keras

_FORMATS = ("channels_first", "channels_last")
# Names of the last layer of classifiers in keras.applications and KerasHub, also without softmax.
_CLASSIFIERS = ("predictions", "logits")
# Names of the inputs that mark padding, in KerasHub and in Hugging Face's transformers.
_MASKS = ("padding_mask", "attention_mask")


def check_backbone(backbone, name="backbone"):
    """Raise unless `backbone` is an instance of a Keras model or layer."""
    if not isinstance(backbone, keras.layers.Layer):
        hint = "Build it first: pass the model itself, not the class or function that makes it."
        if not callable(backbone):
            hint = "For example keras.Sequential([...])."
        raise TypeError(
            f"`{name}` must be a Keras model or layer. Received: {name}={backbone!r}. {hint}"
        )


def warn_of_classifier(backbone):
    """Warn if `backbone` ends with a classification head, as `include_top=True` makes it."""
    last = backbone
    while isinstance(last, keras.Model) and last.layers:
        last = last.layers[-1]
    softmax = getattr(last, "activation", None) in (
        keras.activations.softmax,
        keras.activations.log_softmax,
    )
    if softmax or isinstance(last, keras.layers.Softmax) or last.name in _CLASSIFIERS:
        warnings.warn(
            f"The backbone {backbone.name!r} ends with the classification head {last.name!r}. Its "
            "class scores make poor embeddings of other classes. Build the backbone without the "
            'head: for keras.applications pass include_top=False, pooling="avg".',
            stacklevel=4,
        )


def known_inputs(backbone):
    """Fresh symbolic inputs in the structure that `backbone` takes, or None if it is not known."""
    if getattr(backbone, "inputs", None) is None:
        return None
    if isinstance(backbone, keras.Sequential):
        return as_inputs(backbone.inputs[0])
    return as_inputs(backbone.input)


def as_inputs(tensors):
    """Symbolic inputs of the shapes and dtypes of `tensors`, for batches of any size."""
    return keras.tree.map_structure(
        lambda t: keras.Input(batch_shape=(None, *t.shape[1:]), dtype=t.dtype), tensors
    )


def inputs_of_shape(shape):
    """Symbolic inputs of `shape`: a tuple with the batch axis, or a list, tuple or dict of such."""
    if isinstance(shape, dict):
        return {name: inputs_of_shape(part) for name, part in shape.items()}
    if not isinstance(shape, (list, tuple)) or len(shape) == 0:
        raise ValueError(
            "`input_shape` must be a tuple with the batch axis first, such as (None, 28, 28, 1), "
            f"or a list or dict of such. Received: input_shape={shape!r}"
        )
    if all(size is None or isinstance(size, numbers.Integral) for size in shape):
        return keras.Input(batch_shape=tuple(shape))
    return [inputs_of_shape(part) for part in shape]


def padding_mask(inputs, backbone):
    """The mask `(batch, steps)` among the inputs of `backbone`, 0 for padding, or None.

    It is the input called `padding_mask` (KerasHub) or `attention_mask` (Hugging Face); if there
    is none, the one whose name ends so, such as `encoder_padding_mask`.
    """
    paths, tensors = zip(*keras.tree.flatten_with_path(inputs))
    symbols = getattr(backbone, "inputs", None) or ()
    if isinstance(inputs, (list, tuple)) and len(symbols) == len(tensors):
        names = [symbol.name for symbol in symbols]
    else:
        names = [str(path[-1]) if path else "" for path in paths]
    masks = {n: t for n, t in zip(names, tensors) if n.endswith(_MASKS) and len(t.shape) == 2}
    masks = {n: t for n, t in masks.items() if n in _MASKS} or masks
    if len(masks) > 1:
        raise ValueError(
            f"The backbone takes several masks, {sorted(masks)}, so that the one of its output is "
            "unknown. End the backbone with a layer that pools, such as "
            "keras.layers.GlobalAveragePooling1D()(sequence, mask=mask), or build it with one mask."
        )
    return next(iter(masks.values()), None)


def batch_norms(layer):
    """Every `BatchNormalization` in `layer`, however deep it is nested."""
    return [one for one in _layers(layer) if isinstance(one, keras.layers.BatchNormalization)]


def data_format(backbone):
    """Where the last layer of a backbone that says so has the features of a map, or None."""
    found = [getattr(one, "data_format", None) for one in _layers(backbone)]
    return next((one for one in reversed(found) if one in _FORMATS), None)


def _layers(layer, seen=None):
    """A layer, and all that are nested in it."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return []
    seen.add(id(layer))
    if isinstance(layer, keras.Model):
        below = layer.layers
    else:
        # A custom layer keeps its sublayers in attributes, alone or in lists and dicts.
        below = [
            item
            for value in vars(layer).values()
            for item in (keras.tree.flatten(value) if _may_hold(value) else ())
            if isinstance(item, keras.layers.Layer)
        ]
    return [layer, *(found for sublayer in below for found in _layers(sublayer, seen))]


def revive(config, custom_objects=None):
    """`config` with backbone and pooling deserialized."""
    return {
        **config,
        **{
            key: keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
            for key in ("backbone", "pooling")
        },
    }


def _may_hold(value):
    return isinstance(value, (keras.layers.Layer, list, tuple, dict))
