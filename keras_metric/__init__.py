"""Deep metric learning for Keras 3."""

from keras_metric.version import __version__ as __version__
