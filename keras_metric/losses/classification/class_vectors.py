"""Trainable class vectors."""

import keras

from keras_metric import distances


class ClassVectors(keras.layers.Layer):
    """One or several trainable vectors for each class, `(num_classes * each, dim)`.

    The vectors of class c are the rows c * each to (c + 1) * each - 1. They are float32 under every
    dtype policy, since small updates vanish in half precision. The attribute name `vectors` is part
    of the file format.
    """

    def __init__(self, num_classes, each=1, initializer=None, learned=True, **kwargs):
        wide = distances.dtype_of_weights()
        super().__init__(**{"dtype": wide, **kwargs})
        self.num_classes = num_classes
        self.each = each
        self.initializer = initializer
        # Set on the weight, not on the layer: freezing a model sets `trainable` of its layers.
        self.learned = learned

    def build(self, input_shape):
        initializer = self.initializer
        if initializer is None:
            # Norm about 1: cosines ignore the norm, but an optimizer step rotates a vector of
            # larger norm less.
            initializer = keras.initializers.VarianceScaling(1.0, "fan_out", "untruncated_normal")
        self.vectors = self.add_weight(
            (self.num_classes * self.each, input_shape[-1]),
            initializer,
            trainable=self.learned,
            name="vectors",
        )
