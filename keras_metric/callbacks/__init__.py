"""Callbacks report: they read the model, write into `logs`, and leave the model as found."""

from keras_metric.callbacks.mining_schedule import MiningSchedule
from keras_metric.callbacks.retrieval_evaluator import RetrievalEvaluator

__all__ = ["MiningSchedule", "RetrievalEvaluator"]
