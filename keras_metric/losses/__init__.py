"""Losses on embeddings, one family a file."""

from keras_metric.losses.ada_face_loss import AdaFaceLoss
from keras_metric.losses.angular_loss import AngularLoss
from keras_metric.losses.arc_face_loss import ArcFaceLoss
from keras_metric.losses.barlow_twins_loss import BarlowTwinsLoss
from keras_metric.losses.center_loss import CenterLoss
from keras_metric.losses.circle_loss import CircleLoss
from keras_metric.losses.clip_loss import ClipLoss
from keras_metric.losses.contrastive_loss import ContrastiveLoss
from keras_metric.losses.cos_face_loss import CosFaceLoss
from keras_metric.losses.cosine_regression_loss import CosineRegressionLoss
from keras_metric.losses.dynamic_soft_margin_loss import DynamicSoftMarginLoss
from keras_metric.losses.fast_ap_loss import FastAPLoss
from keras_metric.losses.generalized_lifted_structure_loss import GeneralizedLiftedStructureLoss
from keras_metric.losses.histogram_loss import HistogramLoss
from keras_metric.losses.instance_loss import InstanceLoss
from keras_metric.losses.intra_pair_variance_loss import IntraPairVarianceLoss
from keras_metric.losses.large_margin_softmax_loss import LargeMarginSoftmaxLoss
from keras_metric.losses.lifted_structure_loss import LiftedStructureLoss
from keras_metric.losses.manifold_loss import ManifoldLoss
from keras_metric.losses.margin_loss import MarginLoss
from keras_metric.losses.multi_similarity_loss import MultiSimilarityLoss
from keras_metric.losses.n_pairs_loss import NPairsLoss
from keras_metric.losses.nca_loss import NCALoss
from keras_metric.losses.normalized_softmax_loss import NormalizedSoftmaxLoss
from keras_metric.losses.nt_xent_loss import NTXentLoss
from keras_metric.losses.p2s_grad_loss import P2SGradLoss
from keras_metric.losses.pnp_loss import PNPLoss
from keras_metric.losses.prototypical_loss import PrototypicalLoss
from keras_metric.losses.proxy_anchor_loss import ProxyAnchorLoss
from keras_metric.losses.proxy_nca_loss import ProxyNCALoss
from keras_metric.losses.quadruplet_loss import QuadrupletLoss
from keras_metric.losses.ranked_list_loss import RankedListLoss
from keras_metric.losses.recall_at_k_surrogate_loss import RecallAtKSurrogateLoss
from keras_metric.losses.sig_lip_loss import SigLipLoss
from keras_metric.losses.signal_to_noise_ratio_loss import SignalToNoiseRatioLoss
from keras_metric.losses.sim_siam_loss import SimSiamLoss
from keras_metric.losses.smooth_ap_loss import SmoothAPLoss
from keras_metric.losses.soft_nearest_neighbor_loss import SoftNearestNeighborLoss
from keras_metric.losses.soft_triple_loss import SoftTripleLoss
from keras_metric.losses.sphere_face_loss import SphereFaceLoss
from keras_metric.losses.sub_center_arc_face_loss import SubCenterArcFaceLoss
from keras_metric.losses.sup_con_loss import SupConLoss
from keras_metric.losses.threshold_consistent_margin_loss import ThresholdConsistentMarginLoss
from keras_metric.losses.triplet_loss import TripletLoss
from keras_metric.losses.tuplet_margin_loss import TupletMarginLoss
from keras_metric.losses.vicreg_loss import VICRegLoss
from keras_metric.losses.weighted_sum import WeightedSum

__all__ = [
    "AdaFaceLoss",
    "AngularLoss",
    "ArcFaceLoss",
    "BarlowTwinsLoss",
    "CenterLoss",
    "CircleLoss",
    "ClipLoss",
    "ContrastiveLoss",
    "CosFaceLoss",
    "CosineRegressionLoss",
    "DynamicSoftMarginLoss",
    "FastAPLoss",
    "GeneralizedLiftedStructureLoss",
    "HistogramLoss",
    "InstanceLoss",
    "IntraPairVarianceLoss",
    "LargeMarginSoftmaxLoss",
    "LiftedStructureLoss",
    "ManifoldLoss",
    "MarginLoss",
    "MultiSimilarityLoss",
    "NCALoss",
    "NPairsLoss",
    "NTXentLoss",
    "NormalizedSoftmaxLoss",
    "P2SGradLoss",
    "PNPLoss",
    "PrototypicalLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "QuadrupletLoss",
    "RankedListLoss",
    "RecallAtKSurrogateLoss",
    "SigLipLoss",
    "SignalToNoiseRatioLoss",
    "SimSiamLoss",
    "SmoothAPLoss",
    "SoftNearestNeighborLoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SubCenterArcFaceLoss",
    "SupConLoss",
    "ThresholdConsistentMarginLoss",
    "TripletLoss",
    "TupletMarginLoss",
    "VICRegLoss",
    "WeightedSum",
]
