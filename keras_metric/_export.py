"""How a class becomes part of the public, loadable API."""

import keras


def export(cls):
    """Register `cls` with Keras as `keras_metric>Name`, so that saved files find it again."""
    return keras.saving.register_keras_serializable(package="keras_metric")(cls)
