"""Augmentation of a batch by Keras layers or functions, reproducible from a seed."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_metric.data.images.layer_augmentation import LayerAugmentation


def check_augment(augment):
    """Raise unless `augment` is a layer, a function, None, or a dict of layers and functions."""
    parts = augment.values() if isinstance(augment, dict) and augment else [augment]
    if augment is not None and not all(map(callable, parts)):
        raise TypeError(
            "`augment` must be a keras layer, a function of a batch, or a dict of these by the "
            f"names of x. Received: augment={augment!r}"
        )


class Augmentation:
    """Applies `augment` to a batch; the same seed gives the same result in any thread.

    A Keras layer stores its random state, which threads would share. Here each call passes a state
    derived from the seed to the layers.
    """

    def __init__(self, augment, example):
        """`example` is a batch of one row, used to build layers and to test functions."""
        check_augment(augment)
        if isinstance(augment, dict):
            _check_names(augment, example)
            self._parts = {name: Augmentation(augment[name], example[name]) for name in augment}
            self._apply = self._apply_parts
        elif isinstance(augment, keras.layers.Layer):
            if keras.tree.is_nested(example):
                raise TypeError(
                    "`augment` must name the part of x that a layer is for. Received: "
                    f"augment={type(augment).__name__} and x of several parts. Pass a dict such as "
                    'augment={"image": layer}, or a function of the whole batch.'
                )
            self._apply = LayerAugmentation(augment, example)
        else:
            self._function = augment
            self._takes_rng = "rng" in _parameters(augment)
            self._apply = self._apply_function
            self(example, (0,))  # A function that raises does so here, not inside fit.

    def __call__(self, x, words):
        """Return the augmented batch; `words` is a sequence of integers that is the seed."""
        rows = len(keras.tree.flatten(x)[0])
        result = keras.tree.map_structure(_returned, self._apply(x, words))
        lengths = [len(part) for part in keras.tree.flatten(result)]
        if any(length != rows for length in lengths):
            raise ValueError(
                f"`augment` must return one row for each row. Received: {rows} rows in, "
                f"{lengths} rows out. For several views of a sample use views=2."
            )
        return result

    def _apply_parts(self, x, words):
        # The position of the name gives parts that use the same layer different random states.
        changed = {
            name: part(x[name], (*words, position))
            for position, (name, part) in enumerate(sorted(self._parts.items()))
        }
        return {**x, **changed}

    def _apply_function(self, x, words):
        if self._takes_rng:
            return self._function(x, rng=np.random.default_rng(words))
        return self._function(x)


def _returned(part):
    array = ops.convert_to_numpy(part)
    if array.ndim == 0:
        raise ValueError(f"`augment` must return the augmented batch. Received: {part!r}")
    return array


def _parameters(function):
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # Some built-in functions have no signature.
        return ()


def _check_names(augment, example):
    if not isinstance(example, dict) or not set(augment) <= set(example):
        parts = sorted(example) if isinstance(example, dict) else type(example).__name__
        received = f"augment for {sorted(augment)}, x={parts}"
        raise ValueError(f"`augment` as a dict must name parts of x. Received: {received}")
