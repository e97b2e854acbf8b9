"""Losses on embeddings, one family a file."""

from keras_metric.losses.contrastive_loss import ContrastiveLoss
from keras_metric.losses.lifted_structure_loss import LiftedStructureLoss
from keras_metric.losses.quadruplet_loss import QuadrupletLoss
from keras_metric.losses.triplet_loss import TripletLoss
from keras_metric.losses.weighted_sum import WeightedSum

__all__ = [
    "ContrastiveLoss",
    "LiftedStructureLoss",
    "QuadrupletLoss",
    "TripletLoss",
    "WeightedSum",
]
