"""Registration of classes for saving and loading."""

import keras


def export(cls):
    """Register `cls` with Keras as `keras_metric>Name`, for loading of saved files."""
    return keras.saving.register_keras_serializable(package="keras_metric")(cls)
