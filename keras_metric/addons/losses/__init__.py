"""Metric losses of `tensorflow_addons.losses`, in modules of the same names."""

from keras_metric.addons.absent_names import attribute_error as _attribute_error
from keras_metric.addons.losses.contrastive import ContrastiveLoss, contrastive_loss
from keras_metric.addons.losses.lifted import LiftedStructLoss, lifted_struct_loss
from keras_metric.addons.losses.npairs import (
    NpairsLoss,
    NpairsMultilabelLoss,
    npairs_loss,
    npairs_multilabel_loss,
)
from keras_metric.addons.losses.triplet import (
    TripletHardLoss,
    TripletSemiHardLoss,
    triplet_hard_loss,
    triplet_semihard_loss,
)

__all__ = [
    "ContrastiveLoss",
    "LiftedStructLoss",
    "NpairsLoss",
    "NpairsMultilabelLoss",
    "TripletHardLoss",
    "TripletSemiHardLoss",
    "contrastive_loss",
    "lifted_struct_loss",
    "npairs_loss",
    "npairs_multilabel_loss",
    "triplet_hard_loss",
    "triplet_semihard_loss",
]


def __getattr__(name):
    raise _attribute_error(__name__, name)
