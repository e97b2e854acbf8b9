"""Trainable scale and bias of logits."""

import math

import keras
from keras import ops

from keras_metric import distances


class LogitScale(keras.layers.Layer):
    """Trainable factor exp(w) of logits, at most 100 as in CLIP, and an optional bias."""

    MAX_FACTOR = 100.0

    def __init__(self, factor, bias=None, **kwargs):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})
        if factor > self.MAX_FACTOR:
            raise ValueError(
                "A learned temperature must start at 0.01 or above, its lower bound. "
                f"Received: temperature={1 / factor:g}"
            )
        self.first_factor, self.first_bias = factor, bias

    def build(self, input_shape):
        constant = keras.initializers.Constant
        self.log_factor = self.add_weight(
            (),
            constant(math.log(self.first_factor)),
            # Clip the weight after each step: a minimum in `factor` has no gradient beyond it.
            constraint=lambda w: ops.minimum(w, math.log(self.MAX_FACTOR)),
            name="log_factor",
        )
        if self.first_bias is not None:
            self.bias = self.add_weight((), constant(self.first_bias), name="bias")

    @property
    def factor(self):
        """Factor of the logits."""
        return ops.exp(ops.minimum(self.log_factor + 0, math.log(self.MAX_FACTOR)))
