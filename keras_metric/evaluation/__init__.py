"""Evaluation of embeddings: arrays in, a flat dict of floats out."""

from keras_metric.evaluation.clustering import clustering_metrics
from keras_metric.evaluation.few_shot import few_shot_accuracy
from keras_metric.evaluation.geometry import geometry_metrics
from keras_metric.evaluation.identification import identification_metrics
from keras_metric.evaluation.pair_distances import pair_distances
from keras_metric.evaluation.postprocessing.query_expansion import query_expansion
from keras_metric.evaluation.postprocessing.reranking import k_reciprocal_distances
from keras_metric.evaluation.postprocessing.whitening import pca_whitening
from keras_metric.evaluation.retrieval import retrieval_metrics
from keras_metric.evaluation.roc import roc_curve
from keras_metric.evaluation.verification import verification_metrics

__all__ = [
    "clustering_metrics",
    "few_shot_accuracy",
    "geometry_metrics",
    "identification_metrics",
    "k_reciprocal_distances",
    "pair_distances",
    "pca_whitening",
    "query_expansion",
    "retrieval_metrics",
    "roc_curve",
    "verification_metrics",
]
