"""Augmentation by Keras layers that receive their random state as an argument."""

import keras
import numpy as np
from keras import ops
from numpy.lib.stride_tricks import sliding_window_view


class LayerAugmentation:
    """Applies a layer, Sequential or Pipeline; a RandomCrop in it crops each image separately."""

    def __init__(self, layer, example):
        self._steps, chain = [], []
        for part in _flat(layer):
            if isinstance(part, keras.layers.RandomCrop):
                self._steps += [_Chain(chain)] * bool(chain) + [_Crop(part)]
                chain = []
            else:
                chain.append(part)
        self._steps += [_Chain(chain)] * bool(chain)
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
    """Consecutive layers, compiled into one function of the batch."""

    def __init__(self, layers):
        self._pipeline = keras.layers.Pipeline(layers)

    def build(self, x):
        # A symbolic call creates the variables and checks the shapes without computing anything.
        x = self._pipeline(keras.KerasTensor(x.shape, dtype=str(x.dtype)), training=True)
        weights = {id(variable) for variable in self._pipeline.weights}
        # A variable of the layers that is not a weight is the state of a random generator.
        self._is_state = [id(v) not in weights for v in self._pipeline.non_trainable_variables]
        supports_jit = all(layer.supports_jit for layer in self._pipeline.layers)
        self._compiled = _compile_on_cpu(self._stateless_call, supports_jit)
        return x

    def __call__(self, x, rng):
        states = rng.integers(2**31 - 1, size=(sum(self._is_state), 2)).astype("int32")
        return self._compiled(x, states)

    def _stateless_call(self, x, states):
        numbers = iter(range(sum(self._is_state)))
        values = [
            ops.cast(states[next(numbers)], variable.dtype) if is_state else variable.value
            for variable, is_state in zip(self._pipeline.non_trainable_variables, self._is_state)
        ]
        trainable = [variable.value for variable in self._pipeline.trainable_variables]
        return self._pipeline.stateless_call(trainable, values, x, training=True)[0]


class _Crop:
    """`keras.layers.RandomCrop` with an independent position for each image.

    Indexing a view of all windows is several times faster than any gather of keras.ops.
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
        spaces = [x.shape[axis] - size for axis, size in zip(self._axes, self._size)]
        if min(spaces) <= 0:
            # There is a single position: the layer crops the middle and resizes.
            return ops.convert_to_numpy(self._layer(x, training=True))
        top, left = (rng.integers(0, space + 1, len(x)) for space in spaces)
        windows = sliding_window_view(x, self._size, axis=self._axes)
        if self._axes == (2, 3):
            return windows[np.arange(len(x)), :, top, left]
        return np.moveaxis(windows[np.arange(len(x)), top, left], 1, -1)


def _compile_on_cpu(function, supports_jit):
    """Return `function` compiled once for each shape and run on the CPU, from any thread.

    In eager mode Keras layers dispatch hundreds of small operations for each batch. The accelerator
    is reserved for the training step.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(function)
    elif backend == "jax" and supports_jit:
        import jax

        function = jax.jit(function)

    def call(x, states):
        with keras.device("cpu:0"):
            return function(ops.convert_to_tensor(x), states)

    return call


def _flat(layer):
    if isinstance(layer, (keras.Sequential, keras.layers.Pipeline)):
        return [step for part in layer.layers for step in _flat(part)]
    if isinstance(layer, keras.Model) and any(
        isinstance(part, keras.layers.RandomCrop) for part in layer.layers
    ):
        raise ValueError(
            "`augment` with keras.layers.RandomCrop, which crops a whole batch at one position, "
            "must be a Sequential or a Pipeline, in which each image is cropped separately. "
            f"Received: augment={type(layer).__name__}. Or use keras_metric.data.RandomResizedCrop."
        )
    return [layer]


def _image_input(x):
    # A layer such as GaussianNoise cannot add to 8-bit integers.
    return x.astype("float32") if x.dtype == np.uint8 else x
