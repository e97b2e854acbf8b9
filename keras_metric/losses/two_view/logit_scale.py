"""LogitScale: a factor of logits, and what is added to them, that are learned."""

import math

import keras
from keras import ops

from keras_metric import distances


class LogitScale(keras.layers.Layer):
    """Learned factor exp(w) of logits, at most 100 as in CLIP, and with `bias` a learned bias."""

    LARGEST = 100.0

    def __init__(self, factor, bias=None, **kwargs):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})
        if factor > self.LARGEST:
            raise ValueError(
                "A temperature that is learned must begin at 0.01 or above, where it is held. "
                f"Received: temperature={1 / factor:g}"
            )
        self.first_factor, self.first_bias = factor, bias

    def build(self, input_shape):
        constant = keras.initializers.Constant
        self.log_factor = self.add_weight(
            (),
            constant(math.log(self.first_factor)),
            # Brought back after each step: a minimum alone would have no gradient beyond it.
            constraint=lambda w: ops.minimum(w, math.log(self.LARGEST)),
            name="log_factor",
        )
        if self.first_bias is not None:
            self.bias = self.add_weight((), constant(self.first_bias), name="bias")

    @property
    def factor(self):
        """What logits are multiplied by."""
        return ops.exp(ops.minimum(self.log_factor + 0, math.log(self.LARGEST)))
