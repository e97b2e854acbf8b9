"""TrainingWarnings: detects epochs that cannot train a metric loss, and warns."""

import warnings

import keras
from keras import ops

from keras_metric import distributed

# Embeddings have collapsed if their spread in one epoch of training is below the first fraction of
# their length, or below the second fraction in two epochs. An untrained network may start below
# the second fraction.
COLLAPSED = 0.001
COLLAPSED_IN_TWO_EPOCHS = 0.02


class TrainingWarnings(keras.layers.Layer):
    """Warns at the end of an epoch whose batches cannot train a metric loss; each warning once.

    - No batch had two items of one class, and the loss needs positive pairs.
    - The embeddings have collapsed: those of a training batch are almost the same vector.

    The counts are one variable, so that a step has only one additional assignment.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"name": "training_warnings", "dtype": "float32", **kwargs})
        self.sums = _Sums(name="training_warnings")
        # Name of the loss that needs positives. A loss object would be saved with this layer.
        self.needs_positives = None
        self.warned = set()
        self.narrow_epochs = 0
        self.built = True

    def update(self, positives, embeddings, training):
        """Add a batch: `positives` of its `StepReports`, and its embeddings.

        Embeddings count in training only: in evaluation, batch normalisation uses moving averages
        that may still depend on its first steps.
        """
        group = distributed.current()
        several = ops.logical_and(training, total(group, _rows(embeddings)) > 1)
        spread, length = spread_and_length(embeddings, group)
        found = ops.ones(())
        if positives:
            loss, found = positives[0]
            self.needs_positives = loss.name
        ones = ops.cast(several, "float32")
        values = (ops.ones(()), found, ones, ones * spread / ops.maximum(length, 1e-30))
        self.sums.update_state(ops.stack([ops.cast(value, "float32") for value in values]))

    def warn(self):
        """Warn of problems of the batches since the last call, each kind once."""
        batches, with_positives, several, spread = ops.convert_to_numpy(
            ops.convert_to_tensor(self.sums.total)
        )
        self.sums.reset_state()
        if batches and self.needs_positives and not with_positives:
            self._warn_once(
                f"None of the last {batches:.0f} batches had two items of the same class, so no "
                f"anchor had a positive, and {self.needs_positives} could not bring items of a "
                "class together. Use keras_metric.data.BalancedBatches(x, y, classes_per_batch, "
                "samples_per_class), which puts several items of each class into every batch; "
                "without labels, train on two views of each item (keras_metric.data.ViewBatches)."
            )
        if not several:
            return
        spread /= several
        self.narrow_epochs = self.narrow_epochs + 1 if spread < COLLAPSED_IN_TWO_EPOCHS else 0
        if spread < COLLAPSED or self.narrow_epochs == 2:
            self._warn_once(
                f"The embeddings have collapsed: in the last {several:.0f} batches their root mean "
                f"square distance to their mean was {spread:.1g} of their length, so that all "
                "items have the same embedding and the loss has almost no gradient. Lower the "
                'learning rate, use an easier strategy (mining="semi-hard" instead of "hard"), or '
                "check that the inputs are scaled and differ."
            )

    def _warn_once(self, message):
        kind = message[:20]
        if kind not in self.warned:
            self.warned.add(kind)
            warnings.warn(message, stacklevel=4)


class _Sums(keras.metrics.Metric):
    """Sums over batches: their number, with positives, with a spread, and the relative spread."""

    def __init__(self, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.total = self.add_variable((4,), keras.initializers.Zeros(), name="total")

    def update_state(self, values):
        self.total.assign_add(ops.stop_gradient(values))

    def result(self):
        return self.total[0]


def spread_and_length(embeddings, group=None):
    """Root mean square distance of embeddings `(..., dim)` to their mean, and their length.

    `group`: the `Replicas` of the batch, or None.
    """
    flat = ops.reshape(ops.stop_gradient(embeddings), (-1, embeddings.shape[-1]))
    flat = ops.cast(flat, "float32")
    rows = ops.maximum(total(group, _rows(embeddings)), 1)
    center = total(group, ops.sum(flat, axis=0)) / rows
    squares = ops.stack([ops.sum(ops.square(flat - center)), ops.sum(ops.square(flat))])
    spread, length = ops.unstack(ops.sqrt(total(group, squares) / rows), 2)
    return spread, length


def total(group, value):
    """`value` summed over the replicas of `group`; unchanged without replicas."""
    return value if group is None else group.total(value)


def _rows(embeddings):
    rows = 1
    for size in ops.shape(embeddings)[:-1]:
        rows = rows * size
    return ops.cast(rows, "float32")
