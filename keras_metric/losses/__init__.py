"""Losses on embeddings."""

from keras_metric.losses.classification.ada_face_loss import AdaFaceLoss
from keras_metric.losses.classification.arc_face_loss import ArcFaceLoss
from keras_metric.losses.classification.center_loss import CenterLoss
from keras_metric.losses.classification.cos_face_loss import CosFaceLoss
from keras_metric.losses.classification.large_margin_softmax_loss import LargeMarginSoftmaxLoss
from keras_metric.losses.classification.manifold_loss import ManifoldLoss
from keras_metric.losses.classification.normalized_softmax_loss import NormalizedSoftmaxLoss
from keras_metric.losses.classification.p2s_grad_loss import P2SGradLoss
from keras_metric.losses.classification.prototypical_loss import PrototypicalLoss
from keras_metric.losses.classification.proxy_anchor_loss import ProxyAnchorLoss
from keras_metric.losses.classification.proxy_nca_loss import ProxyNCALoss
from keras_metric.losses.classification.soft_triple_loss import SoftTripleLoss
from keras_metric.losses.classification.sphere_face_loss import SphereFaceLoss
from keras_metric.losses.classification.sub_center_arc_face_loss import SubCenterArcFaceLoss
from keras_metric.losses.graded.cosine_regression_loss import CosineRegressionLoss
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.losses.pair.circle_loss import CircleLoss
from keras_metric.losses.pair.contrastive_loss import ContrastiveLoss
from keras_metric.losses.pair.generalized_lifted_structure_loss import (
    GeneralizedLiftedStructureLoss,
)
from keras_metric.losses.pair.histogram_loss import HistogramLoss
from keras_metric.losses.pair.instance_loss import InstanceLoss
from keras_metric.losses.pair.intra_pair_variance_loss import IntraPairVarianceLoss
from keras_metric.losses.pair.lifted_structure_loss import LiftedStructureLoss
from keras_metric.losses.pair.margin_loss import MarginLoss
from keras_metric.losses.pair.multi_similarity_loss import MultiSimilarityLoss
from keras_metric.losses.pair.n_pairs_loss import NPairsLoss
from keras_metric.losses.pair.nca_loss import NCALoss
from keras_metric.losses.pair.nt_xent_loss import NTXentLoss
from keras_metric.losses.pair.signal_to_noise_ratio_loss import SignalToNoiseRatioLoss
from keras_metric.losses.pair.soft_nearest_neighbor_loss import SoftNearestNeighborLoss
from keras_metric.losses.pair.sup_con_loss import SupConLoss
from keras_metric.losses.pair.threshold_consistent_margin_loss import ThresholdConsistentMarginLoss
from keras_metric.losses.pair.tuplet_margin_loss import TupletMarginLoss
from keras_metric.losses.ranking.fast_ap_loss import FastAPLoss
from keras_metric.losses.ranking.pnp_loss import PNPLoss
from keras_metric.losses.ranking.ranked_list_loss import RankedListLoss
from keras_metric.losses.ranking.recall_at_k_surrogate_loss import RecallAtKSurrogateLoss
from keras_metric.losses.ranking.smooth_ap_loss import SmoothAPLoss
from keras_metric.losses.step_reports import StepReports
from keras_metric.losses.triplet.angular_loss import AngularLoss
from keras_metric.losses.triplet.dynamic_soft_margin_loss import DynamicSoftMarginLoss
from keras_metric.losses.triplet.quadruplet_loss import QuadrupletLoss
from keras_metric.losses.triplet.triplet_loss import TripletLoss
from keras_metric.losses.two_view.barlow_twins_loss import BarlowTwinsLoss
from keras_metric.losses.two_view.clip_loss import ClipLoss
from keras_metric.losses.two_view.sig_lip_loss import SigLipLoss
from keras_metric.losses.two_view.sim_siam_loss import SimSiamLoss
from keras_metric.losses.two_view.vicreg_loss import VICRegLoss
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
    "MetricLoss",
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
    "StepReports",
    "SubCenterArcFaceLoss",
    "SupConLoss",
    "ThresholdConsistentMarginLoss",
    "TripletLoss",
    "TupletMarginLoss",
    "VICRegLoss",
    "WeightedSum",
]
