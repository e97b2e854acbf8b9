"""Losses on embeddings, one family a file."""

from keras_metric.losses.angular_loss import AngularLoss
from keras_metric.losses.contrastive_loss import ContrastiveLoss
from keras_metric.losses.fast_ap_loss import FastAPLoss
from keras_metric.losses.histogram_loss import HistogramLoss
from keras_metric.losses.lifted_structure_loss import LiftedStructureLoss
from keras_metric.losses.nt_xent_loss import NTXentLoss
from keras_metric.losses.pnp_loss import PNPLoss
from keras_metric.losses.quadruplet_loss import QuadrupletLoss
from keras_metric.losses.recall_at_k_surrogate_loss import RecallAtKSurrogateLoss
from keras_metric.losses.smooth_ap_loss import SmoothAPLoss
from keras_metric.losses.sup_con_loss import SupConLoss
from keras_metric.losses.triplet_loss import TripletLoss
from keras_metric.losses.tuplet_margin_loss import TupletMarginLoss
from keras_metric.losses.weighted_sum import WeightedSum

__all__ = [
    "AngularLoss",
    "ContrastiveLoss",
    "FastAPLoss",
    "HistogramLoss",
    "LiftedStructureLoss",
    "NTXentLoss",
    "PNPLoss",
    "QuadrupletLoss",
    "RecallAtKSurrogateLoss",
    "SmoothAPLoss",
    "SupConLoss",
    "TripletLoss",
    "TupletMarginLoss",
    "WeightedSum",
]
