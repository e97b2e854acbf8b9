"""Losses on embeddings, one family a file."""

from keras_metric.losses.barlow_twins_loss import BarlowTwinsLoss
from keras_metric.losses.clip_loss import ClipLoss
from keras_metric.losses.contrastive_loss import ContrastiveLoss
from keras_metric.losses.cosine_regression_loss import CosineRegressionLoss
from keras_metric.losses.intra_pair_variance_loss import IntraPairVarianceLoss
from keras_metric.losses.lifted_structure_loss import LiftedStructureLoss
from keras_metric.losses.manifold_loss import ManifoldLoss
from keras_metric.losses.nt_xent_loss import NTXentLoss
from keras_metric.losses.prototypical_loss import PrototypicalLoss
from keras_metric.losses.quadruplet_loss import QuadrupletLoss
from keras_metric.losses.sig_lip_loss import SigLipLoss
from keras_metric.losses.signal_to_noise_ratio_loss import SignalToNoiseRatioLoss
from keras_metric.losses.sim_siam_loss import SimSiamLoss
from keras_metric.losses.sup_con_loss import SupConLoss
from keras_metric.losses.threshold_consistent_margin_loss import ThresholdConsistentMarginLoss
from keras_metric.losses.triplet_loss import TripletLoss
from keras_metric.losses.vicreg_loss import VICRegLoss
from keras_metric.losses.weighted_sum import WeightedSum

__all__ = [
    "BarlowTwinsLoss",
    "ClipLoss",
    "ContrastiveLoss",
    "CosineRegressionLoss",
    "IntraPairVarianceLoss",
    "LiftedStructureLoss",
    "ManifoldLoss",
    "NTXentLoss",
    "PrototypicalLoss",
    "QuadrupletLoss",
    "SigLipLoss",
    "SignalToNoiseRatioLoss",
    "SimSiamLoss",
    "SupConLoss",
    "ThresholdConsistentMarginLoss",
    "TripletLoss",
    "VICRegLoss",
    "WeightedSum",
]
