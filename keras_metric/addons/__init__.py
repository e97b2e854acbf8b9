"""The metric losses of tensorflow-addons, by their names, arguments and numbers.

For training scripts that were written for tensorflow-addons, which ended with Keras 2. Its import
line becomes one of these, and the rest of the script stays:

    import keras_metric.addons as tfa                              # tfa.losses.TripletSemiHardLoss
    from keras_metric.addons import losses  # losses.TripletSemiHardLoss
    from keras_metric.addons.losses import TripletSemiHardLoss
    from keras_metric.addons.losses.metric_learning import pairwise_distance

New code takes `keras_metric.losses`, which has these formulas among its own, with every miner and
metric, weights for anchors, and means over the terms that still teach something.
`docs/migrate-tensorflow-addons.md` says which is which.
"""

from keras_metric.addons.absent_names import attribute_error as _attribute_error
from keras_metric.addons.losses import (
    ContrastiveLoss,
    LiftedStructLoss,
    NpairsLoss,
    NpairsMultilabelLoss,
    TripletHardLoss,
    TripletSemiHardLoss,
    contrastive_loss,
    lifted_struct_loss,
    npairs_loss,
    npairs_multilabel_loss,
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
