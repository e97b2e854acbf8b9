"""Deep metric learning for Keras 3: models, losses, mining, batches, evaluation, pictures."""

from keras_metric import callbacks, data, distances, evaluation, layers, losses, viz
from keras_metric.models import EmbeddingModel, QuadrupletModel, SiameseModel, TripletModel
from keras_metric.version import __version__ as __version__

__all__ = [
    "EmbeddingModel",
    "QuadrupletModel",
    "SiameseModel",
    "TripletModel",
    "callbacks",
    "data",
    "distances",
    "evaluation",
    "layers",
    "losses",
    "viz",
]
