"""ClassVectors: learned vectors that stand for classes."""

import keras

from keras_metric import distances


class ClassVectors(keras.layers.Layer):
    """One or several trainable vectors for each class, `(num_classes * each, dim)`.

    The vectors of class c are the rows c * each to (c + 1) * each - 1. They stay in float32 in
    every precision: thousands of small steps would be lost in half of it.

    The attribute name `vectors` is part of the file format.
    """

    def __init__(self, num_classes, each=1, initializer=None, learned=True, **kwargs):
        wide = distances.dtype_of_weights()
        super().__init__(**{"dtype": wide, **kwargs})
        self.num_classes = num_classes
        self.each = each
        self.initializer = initializer
        # Of the weight, not of the layer: a model that is frozen and thawed sets that of layers.
        self.learned = learned

    def build(self, input_shape):
        initializer = self.initializer
        if initializer is None:
            # About length 1: cosines do not see the length, but the step of an optimizer turns a
            # long vector less.
            initializer = keras.initializers.VarianceScaling(1.0, "fan_out", "untruncated_normal")
        self.vectors = self.add_weight(
            (self.num_classes * self.each, input_shape[-1]),
            initializer,
            trainable=self.learned,
            name="vectors",
        )
