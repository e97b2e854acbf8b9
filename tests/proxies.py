"""A small loss with trainable weights, for the tests of models."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tests")
class Proxies(keras.layers.Layer):
    """One trainable vector for each class."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def build(self, input_shape):
        self.vectors = self.add_weight(
            shape=(self.num_classes, input_shape[-1]), initializer="random_normal", name="vectors"
        )

    def call(self, embeddings):
        return ops.matmul(embeddings, ops.transpose(self.vectors))


@keras.saving.register_keras_serializable("tests")
class ProxyLoss(keras.losses.Loss):
    """Cross-entropy of the dot products with the proxies."""

    def __init__(self, num_classes, scale=1.0, name="proxy_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.scale = scale
        self.proxies = Proxies(num_classes, name=f"{name}_proxies")

    @property
    def layers(self):
        return (self.proxies,)

    def call(self, y_true, y_pred):
        logits = self.scale * self.proxies(y_pred)
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes, "scale": self.scale}
