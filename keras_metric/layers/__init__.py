"""Keras layers: embedding heads, pooling, memories, distances and miners."""

from keras_metric.layers.cross_batch_memory import CrossBatchMemory
from keras_metric.layers.embedding_head import EmbeddingHead
from keras_metric.layers.generalized_mean_pooling import GeneralizedMeanPooling
from keras_metric.layers.mahalanobis import Mahalanobis
from keras_metric.mining.pair_miner import PairMiner
from keras_metric.mining.triplet_miner import TripletMiner

__all__ = [
    "CrossBatchMemory",
    "EmbeddingHead",
    "GeneralizedMeanPooling",
    "Mahalanobis",
    "PairMiner",
    "TripletMiner",
]
