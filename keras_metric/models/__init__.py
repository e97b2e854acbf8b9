"""Keras models that train an encoder with a metric-learning loss."""

from keras_metric.models.embedding_model import EmbeddingModel
from keras_metric.models.encoder import Encoder
from keras_metric.models.quadruplet_model import QuadrupletModel
from keras_metric.models.siamese_model import SiameseModel
from keras_metric.models.triplet_model import TripletModel
from keras_metric.models.two_tower_model import TwoTowerModel

__all__ = [
    "EmbeddingModel",
    "Encoder",
    "QuadrupletModel",
    "SiameseModel",
    "TripletModel",
    "TwoTowerModel",
]
