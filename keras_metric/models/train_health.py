"""TrainHealth: numbers in the logs that tell how a metric loss is doing."""

import warnings

import keras
from keras import ops

PAIRS_OF = {"positive_distance": "positives", "negative_distance": "negatives"}


class TrainHealth(keras.layers.Layer):
    """Means over an epoch of what the loss and the embeddings of each batch show.

    - `active_share`: terms of the loss that are greater than zero. Near 0: the batches have
      become too easy to learn from.
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
                "active_share",
                "positive_distance",
                "negative_distance",
                "positives",
                "embedding_spread",
            )
        }
        # What the loss at hand reports; known once a step has been traced.
        self.heard = set()
        self.told = False
        self.built = True

    def update(self, seen, embeddings):
        """Take in the `seen` of a `watch` around the loss, and the embeddings it was given."""
        values = {**seen, "embedding_spread": spread(embeddings)}
        for name, tracker in self.trackers.items():
            if name not in values:
                continue
            self.heard.add(name)
            weight = None
            number = values.get(PAIRS_OF.get(name))
            if number is not None:
                # A batch without a positive has no such distance, and must not count as 0.
                weight = ops.cast(number > 0, "float32")
            tracker.update_state(ops.stop_gradient(values[name]), weight)

    def silent(self):
        """Names of what the loss at hand does not report."""
        return set(self.trackers) - self.heard

    def warn_without_positives(self):
        """Warn, once, if the batches since the last reset had no positive at all."""
        positives = self.trackers["positives"]
        if self.told or "positives" not in self.heard:
            return
        count, total = (float(v.numpy()) for v in (positives.count, positives.total))
        if count > 0 and total == 0:
            self.told = True
            warnings.warn(
                f"None of the last {count:.0f} batches had two items of one class, so no anchor "
                "had a positive and nothing was learnt. Use keras_metric.data.BalancedBatches, "
                "which puts samples_per_class items of each class into a batch.",
                stacklevel=3,
            )


def spread(embeddings):
    """Root mean square distance of `(..., dim)` embeddings to their centre."""
    flat = ops.reshape(ops.stop_gradient(embeddings), (-1, embeddings.shape[-1]))
    flat = ops.cast(flat, "float32")
    centred = flat - ops.mean(flat, axis=0, keepdims=True)
    return ops.sqrt(ops.mean(ops.sum(ops.square(centred), axis=-1)))
