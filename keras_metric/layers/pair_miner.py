"""PairMiner: the choice of pairs."""

import keras
from keras import ops

from keras_metric import distances, pairs
from keras_metric._checks import check_choice, check_number, class_ids
from keras_metric._export import export
from keras_metric.mining import pair_rules


@export
class PairMiner(keras.layers.Layer):
    """Chooses the pairs of a labelled batch that a loss learns from.

    Example:
    >>> import keras_metric
    >>> miner = keras_metric.layers.PairMiner("multi-similarity")
    """

    def __init__(self, strategy="multi-similarity", epsilon=0.1, distance="cosine", **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        check_choice("strategy", strategy, pair_rules.STRATEGIES)
        check_number("epsilon", epsilon)
        check_choice("distance", distance, distances.METRICS)
        self.strategy = strategy
        self.epsilon = epsilon
        self.distance = distance
        self.built = True

    def masks(self, distance, partners):
        """Boolean matrices (rows, columns) of the positives and negatives that count.

        `distance` are those of the loss that asks; they carry no gradient here.
        """
        return pair_rules.multi_similarity(ops.stop_gradient(distance), partners, self.epsilon)

    def call(self, embeddings, labels):
        distance = distances.pairwise(embeddings, metric=self.distance)
        masks = self.masks(distance, pairs.from_labels(class_ids(labels)))
        return tuple(ops.cast(mask, distance.dtype) for mask in masks)

    def get_config(self):
        return {
            **super().get_config(),
            "strategy": self.strategy,
            "epsilon": self.epsilon,
            "distance": self.distance,
        }
