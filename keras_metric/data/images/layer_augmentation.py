"""Keras layers called with a random state that is given from outside."""

import keras
import numpy as np
from keras import ops
from numpy.lib.stride_tricks import sliding_window_view

from keras_metric.data.batches.compiled import compiled_on_cpu


class LayerAugmentation:
    """A keras layer, Sequential or Pipeline; RandomCrop in it cuts each image at its own place."""

    def __init__(self, layer, example):
        self._steps = _steps(layer)
        x = _image_input(example)
        for step in self._steps:
            x = step.build(x)

    def __call__(self, x, words):
        rng = np.random.default_rng(words)
        x = _image_input(x)
        for step in self._steps:
            x = step(x, rng)
        return x


class _Chain:
    """Layers that run one after the other on the batch."""

    def __init__(self, layers):
        self._pipeline = keras.layers.Pipeline(layers)

    def build(self, x):
        # A symbolic call makes the variables and checks the shapes, and computes nothing.
        x = self._pipeline(keras.KerasTensor(x.shape, dtype=str(x.dtype)), training=True)
        weights = {id(variable) for variable in self._pipeline.weights}
        # What is a variable of the layers and no weight of theirs is the state of a generator.
        self._random = [id(v) not in weights for v in self._pipeline.non_trainable_variables]
        whole = all(layer.supports_jit for layer in self._pipeline.layers)
        self._change = compiled_on_cpu(self._changed, whole)
        return x

    def __call__(self, x, rng):
        return self._change(x, rng.integers(2**31 - 1, size=(sum(self._random), 2)).astype("int32"))

    def _changed(self, x, states):
        drawn = iter(range(sum(self._random)))
        values = [
            ops.cast(states[next(drawn)], variable.dtype) if random else variable.value
            for variable, random in zip(self._pipeline.non_trainable_variables, self._random)
        ]
        learned = [variable.value for variable in self._pipeline.trainable_variables]
        return self._pipeline.stateless_call(learned, values, x, training=True)[0]


class _Crop:
    """What `keras.layers.RandomCrop` does to a batch, done to each image alone.

    A view of all windows, indexed once, is several times faster than any gather of keras.ops.
    """

    def __init__(self, layer):
        self._layer = layer
        self._size = (layer.height, layer.width)
        self._axes = (2, 3) if layer.data_format == "channels_first" else (1, 2)

    def build(self, x):
        shape = list(x.shape)
        for axis, size in zip(self._axes, self._size):
            shape[axis] = size
        return keras.KerasTensor(shape)

    def __call__(self, x, rng):
        x = ops.convert_to_numpy(x)
        room = [x.shape[axis] - size for axis, size in zip(self._axes, self._size)]
        if min(room) <= 0:
            # No place to choose: the layer cuts out the middle and resizes.
            return ops.convert_to_numpy(self._layer(x, training=True))
        top, left = (rng.integers(0, space + 1, len(x)) for space in room)
        windows = sliding_window_view(x, self._size, axis=self._axes)
        if self._axes == (2, 3):
            return windows[np.arange(len(x)), :, top, left]
        return np.moveaxis(windows[np.arange(len(x)), top, left], 1, -1)


def _steps(layer):
    steps, chain = [], []
    for part in _flat(layer):
        if not isinstance(part, keras.layers.RandomCrop):
            chain.append(part)
            continue
        steps += [_Chain(chain)] * bool(chain) + [_Crop(part)]
        chain = []
    return steps + [_Chain(chain)] * bool(chain)


def _flat(layer):
    if isinstance(layer, (keras.Sequential, keras.layers.Pipeline)):
        return [step for part in layer.layers for step in _flat(part)]
    if isinstance(layer, keras.Model) and any(
        isinstance(part, keras.layers.RandomCrop) for part in layer.layers
    ):
        raise ValueError(
            "`augment` with keras.layers.RandomCrop, which cuts a whole batch at one place, must "
            "be a Sequential or a Pipeline, in which each image is cut on its own. Received: "
            f"augment={type(layer).__name__}. Or use keras_metric.data.RandomResizedCrop."
        )
    return [layer]


def _image_input(x):
    # A plain layer such as GaussianNoise cannot add to 8-bit integers.
    return x.astype("float32") if x.dtype == np.uint8 else x
