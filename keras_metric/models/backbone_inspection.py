"""Checks and properties of backbones: inputs, padding masks, data format, batch normalization."""

import numbers
import warnings

import keras

_FORMATS = ("channels_first", "channels_last")
# Names of the last layer of the classifiers in keras.applications and KerasHub.
_CLASSIFIERS = ("predictions", "logits")
# Names of padding masks in KerasHub and in Hugging Face's transformers.
_MASKS = ("padding_mask", "attention_mask")


def check_backbone(backbone, name="backbone"):
    """Raise TypeError unless `backbone` is a Keras model or layer."""
    if not isinstance(backbone, keras.layers.Layer):
        hint = "Pass an instance, not the class or function that creates it."
        if not callable(backbone):
            hint = "For example keras.Sequential([...])."
        raise TypeError(
            f"`{name}` must be a Keras model or layer. Received: {name}={backbone!r}. {hint}"
        )


def warn_of_classifier(backbone):
    """Warn if `backbone` ends with a classification head, as with `include_top=True`."""
    last = backbone
    while isinstance(last, keras.Model) and last.layers:
        last = last.layers[-1]
    softmax = getattr(last, "activation", None) in (
        keras.activations.softmax,
        keras.activations.log_softmax,
    )
    if softmax or isinstance(last, keras.layers.Softmax) or last.name in _CLASSIFIERS:
        warnings.warn(
            f"The backbone {backbone.name!r} ends with the classification head {last.name!r}. "
            "Class scores are poor embeddings of other classes. Build the backbone without the "
            'head: for keras.applications pass include_top=False, pooling="avg".',
            stacklevel=4,
        )


def inputs_of_backbone(backbone):
    """Return new symbolic inputs with the structure of the backbone's, or None if it has none."""
    if getattr(backbone, "inputs", None) is None:
        return None
    if isinstance(backbone, keras.Sequential):
        return inputs_like(backbone.inputs[0])
    return inputs_like(backbone.input)


def inputs_like(tensors):
    """Return symbolic inputs with the shapes and dtypes of `tensors` and any batch size."""
    return keras.tree.map_structure(
        lambda t: keras.Input(batch_shape=(None, *t.shape[1:]), dtype=t.dtype), tensors
    )


def inputs_of_shape(shape):
    """Return symbolic inputs of `shape`, with the batch axis, or of a structure of shapes."""
    if isinstance(shape, dict):
        return {name: inputs_of_shape(part) for name, part in shape.items()}
    if not isinstance(shape, (list, tuple)) or len(shape) == 0:
        raise ValueError(
            "`input_shape` must be a tuple with the batch axis first, such as (None, 28, 28, 1), "
            f"or a list or dict of such tuples. Received: input_shape={shape!r}"
        )
    if all(size is None or isinstance(size, numbers.Integral) for size in shape):
        return keras.Input(batch_shape=tuple(shape))
    return [inputs_of_shape(part) for part in shape]


def padding_mask(inputs, backbone):
    """Return the padding mask `(batch, steps)` among the inputs, 0 for padding, or None.

    It is the input named `padding_mask` (KerasHub) or `attention_mask` (Hugging Face), otherwise
    an input whose name ends with one of them, such as `encoder_padding_mask`.
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
            f"The backbone takes several masks, {sorted(masks)}; the mask of its output is "
            "unknown. End the backbone with a pooling layer, such as "
            "keras.layers.GlobalAveragePooling1D()(sequence, mask=mask), or build it with one mask."
        )
    return next(iter(masks.values()), None)


def batch_norms(layer):
    """Return every `BatchNormalization` in `layer`, at any depth."""
    return [one for one in _layers(layer) if isinstance(one, keras.layers.BatchNormalization)]


def data_format(backbone):
    """Return `data_format` of the last layer of the backbone that has one, or None."""
    found = [getattr(one, "data_format", None) for one in _layers(backbone)]
    return next((one for one in reversed(found) if one in _FORMATS), None)


def _layers(layer, visited=None):
    """Return `layer` and all layers nested in it."""
    visited = set() if visited is None else visited
    if id(layer) in visited:
        return []
    visited.add(id(layer))
    if isinstance(layer, keras.Model):
        children = layer.layers
    else:
        # A custom layer stores its sublayers in attributes, or in lists and dicts of these.
        children = [
            item
            for value in vars(layer).values()
            if isinstance(value, (keras.layers.Layer, list, tuple, dict))
            for item in keras.tree.flatten(value)
            if isinstance(item, keras.layers.Layer)
        ]
    return [layer, *(nested for child in children for nested in _layers(child, visited))]
