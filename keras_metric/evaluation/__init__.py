"""Evaluation judges: arrays in, a flat dict of floats out."""

from keras_metric.evaluation.retrieval import retrieval_metrics

__all__ = ["retrieval_metrics"]
