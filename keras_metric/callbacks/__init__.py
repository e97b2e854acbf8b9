"""Callbacks: evaluation during training, mining schedules and mining of hard examples."""

from keras_metric.callbacks.hard_example_mining import HardExampleMining
from keras_metric.callbacks.mining_schedule import MiningSchedule
from keras_metric.callbacks.retrieval_evaluator import RetrievalEvaluator

__all__ = ["HardExampleMining", "MiningSchedule", "RetrievalEvaluator"]
