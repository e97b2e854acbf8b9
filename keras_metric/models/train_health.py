"""TrainHealth: statistics of the training of a metric loss, for the logs."""

import keras
from keras import ops

from keras_metric import distributed
from keras_metric.models.training_warnings import spread_and_length

PAIRS_OF = {"positive_distance": "positives", "negative_distance": "negatives"}


class TrainHealth(keras.layers.Layer):
    """Means over an epoch of the statistics of each batch that the loss reports.

    - `active_fraction`: terms of the loss that are greater than zero. Near 0: the batches have
      become too easy to train on.
    - `positive_distance`, `negative_distance`: mean distance of an anchor to its positives and
      to its negatives.
    - `positives`: (anchor, positive) pairs a batch.
    - `embedding_spread`: root mean square distance of the embeddings to their centre; for unit
      vectors between 0 (collapsed to one point) and 1.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"name": "train_health", "dtype": "float32", **kwargs})
        self.trackers = {
            name: keras.metrics.Mean(name=name, dtype="float32")
            for name in (
                "active_fraction",
                "positive_distance",
                "negative_distance",
                "positives",
                "embedding_spread",
            )
        }
        # Names of the statistics that the loss reports, after a step has been traced.
        self.recorded = set()
        self.built = True

    def update(self, statistics, embeddings):
        """Add the statistics of a step's `StepReports`, and its embeddings."""
        spread, _ = spread_and_length(embeddings, distributed.current())
        values = {**statistics, "embedding_spread": spread}
        for name, tracker in self.trackers.items():
            if name not in values:
                continue
            self.recorded.add(name)
            weight = None
            number = values.get(PAIRS_OF.get(name))
            if number is not None:
                # A batch without a positive has no such distance, and must not count as 0.
                weight = ops.cast(number > 0, "float32")
            tracker.update_state(ops.stop_gradient(values[name]), weight)

    def not_recorded(self):
        """Names of the statistics that the loss does not report."""
        return set(self.trackers) - self.recorded
