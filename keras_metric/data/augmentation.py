"""Random changes to a batch that depend on nothing but a seed."""

import inspect

import keras
import numpy as np
from keras import ops


class Augmentation:
    """Applies `augment` to a batch; the same seed gives the same result in any thread.

    Keras keeps the random state of a layer inside the layer, where threads take it from each
    other. Here each call hands the layers a state made from the seed.
    """

    def __init__(self, augment, example):
        """`example` is a batch of one or more rows; it builds the layers and tries them once."""
        if isinstance(augment, dict):
            _check_names(augment, example)
            self._parts = {name: Augmentation(augment[name], example[name]) for name in augment}
            self._apply = self._apply_parts
        elif isinstance(augment, keras.layers.Layer):
            if keras.tree.is_nested(example):
                raise TypeError(
                    "`augment` must say which part of x a layer is for. Received: "
                    f"augment={type(augment).__name__} and x of several parts. Pass a dict such as "
                    'augment={"image": layer}, or a function of the whole batch.'
                )
            self._apply = LayerAugmentation(augment, example)
        elif callable(augment):
            self._function = augment
            self._wants_rng = "rng" in _parameters(augment)
            self._apply = self._apply_function
        else:
            raise TypeError(
                "`augment` must be a keras layer, a function of a batch, or a dict of these by the "
                f"names of x. Received: augment={augment!r}"
            )
        self(example, (0,))

    def __call__(self, x, words):
        """Return `x` changed; `words` are integers, and each sequence of them is another seed."""
        rows = len(keras.tree.flatten(x)[0])
        result = keras.tree.map_structure(ops.convert_to_numpy, self._apply(x, words))
        if any(len(part) != rows for part in keras.tree.flatten(result)):
            lengths = [len(part) for part in keras.tree.flatten(result)]
            raise ValueError(
                f"`augment` must return one row for each row. Received: {rows} rows in, "
                f"{lengths} rows out. For several views of a sample use views=2."
            )
        return result

    def _apply_parts(self, x, words):
        changed = {
            # The position of the name tells apart parts that share a layer.
            name: part(x[name], (*words, place))
            for place, (name, part) in enumerate(sorted(self._parts.items()))
        }
        return {**x, **changed}

    def _apply_function(self, x, words):
        if self._wants_rng:
            return self._function(x, rng=np.random.default_rng(words))
        return self._function(x)


class LayerAugmentation:
    """A keras layer, Sequential or Pipeline, called with a random state given from outside."""

    def __init__(self, layer, example):
        self._steps = [_Step(layers, alone) for layers, alone in _runs(layer)]
        x = _image_input(example)
        for step in self._steps:
            x = step.build(x)
        if keras.backend.backend() == "tensorflow":
            from keras_metric.data.tf_graph import compiled_on_cpu

            self._change = compiled_on_cpu(self._changed)
        else:
            self._change = self._changed_on_cpu

    def __call__(self, x, words):
        rng = np.random.default_rng(words)
        return self._change(_image_input(x), [step.draw(rng, len(x)) for step in self._steps])

    def _changed(self, x, states):
        for step, state in zip(self._steps, states):
            x = step(x, state)
        return x

    def _changed_on_cpu(self, x, states):
        # The accelerator is busy with the training step.
        with keras.device("cpu:0"):
            return self._changed(ops.convert_to_tensor(x), states)


class _Step:
    """Layers that run together, on the batch or on each image alone."""

    def __init__(self, layers, alone):
        self._pipeline = keras.layers.Pipeline(layers)
        self._alone = alone

    def build(self, x):
        x = self._pipeline(x[:1], training=True)
        weights = {id(variable) for variable in self._pipeline.weights}
        # What is a variable of the layer and no weight of it is the state of a random generator.
        self._random = [id(v) not in weights for v in self._pipeline.non_trainable_variables]
        return x

    def draw(self, rng, rows):
        """Return one state for each generator, or for each image and generator."""
        shape = (rows,) * self._alone + (sum(self._random), 2)
        return rng.integers(2**31 - 1, size=shape).astype("int32")

    def __call__(self, x, states):
        if not self._alone:
            return self._called(x, states)
        if keras.backend.backend() == "tensorflow":
            return ops.map(lambda one: self._called(one[0][None], one[1])[0], (x, states))
        # On JAX a map is traced, and RandomCrop cannot be.
        images = [self._called(x[i : i + 1], states[i]) for i in range(len(states))]
        return ops.concatenate(images, axis=0)

    def _called(self, x, states):
        fixed = self._pipeline.non_trainable_variables
        drawn = iter(range(len(fixed)))
        values = [
            ops.cast(states[next(drawn)], variable.dtype) if random else variable.value
            for variable, random in zip(fixed, self._random)
        ]
        learned = [variable.value for variable in self._pipeline.trainable_variables]
        return self._pipeline.stateless_call(learned, values, x, training=True)[0]


def _runs(layer):
    """Split into runs of layers; RandomCrop, which crops a batch at one place, runs alone."""
    runs = []
    for step in _flat(layer):
        alone = any(isinstance(part, keras.layers.RandomCrop) for part in _flat(step, deep=True))
        if runs and runs[-1][1] == alone:
            runs[-1][0].append(step)
        else:
            runs.append(([step], alone))
    return runs


def _flat(layer, deep=False):
    chains = keras.Model if deep else keras.Sequential
    if isinstance(layer, (chains, keras.layers.Pipeline)):
        return [step for part in layer.layers for step in _flat(part, deep)]
    return [layer]


def _image_input(x):
    # A plain layer such as GaussianNoise cannot add to 8-bit integers.
    return x.astype("float32") if x.dtype == np.uint8 else x


def _parameters(function):
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # Some built-in functions have no signature.
        return ()


def _check_names(augment, example):
    if not isinstance(example, dict) or not set(augment) <= set(example):
        parts = sorted(example) if isinstance(example, dict) else type(example).__name__
        raise ValueError(
            "`augment` as a dict must name parts of x. Received: "
            f"augment for {sorted(augment)}, x={parts}"
        )
