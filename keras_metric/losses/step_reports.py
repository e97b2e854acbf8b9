"""StepReports: what the losses of one step report to the model that trains with them."""

import contextvars

from keras import ops

from keras_metric._validation import check_flag


class StepReports:
    """Statistics, state updates and label problems that the losses of one step report.

    A model creates one object for each training or evaluation step, and under `tf.distribute` one
    for each replica. It calls its loss inside a `with` block of the object, so Keras's
    `compute_loss` works as usual, and a user's own loss may call losses of this package.
    `MetricLoss.__call__` reads the object of the block once, from a context variable, which is
    separate in each thread, and passes it on as an argument. Outside of such a block a loss gets an
    object that collects nothing.

    - `updates`: list of (variable, value), new states of queues, histograms and running means. A
      loss does not distinguish training from evaluation, so it assigns nothing; the model does,
      after a training step.
    - `invalid_ids`: list of (loss, number), how many ids of the batch are no class of the loss.
    - `positives`: list of (loss, boolean scalar), whether the batch has a positive pair.
    - `statistics`: dict of scalars. "active_fraction": terms greater than zero among all terms.
      "positive_distance", "negative_distance": mean distance of an anchor to its positives and
      negatives. "positives", "negatives": number of (anchor, positive) and (anchor, negative)
      pairs. The first loss that reports a statistic determines it.

    Args:
        statistics: whether `statistics` are collected. Default True.
        collecting: False for an object that ignores all reports. Default True.
        training: whether the step trains. A loss with `sample_rate` below 1 samples classes in
            training only. Default False.

    Raises:
        TypeError: for an argument that is not True or False.

    Example:
    >>> import numpy as np
    >>> from keras_metric import losses
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> with losses.StepReports() as reports:
    ...     value = losses.TripletLoss()(np.array([0, 0, 1, 1]), points)
    >>> float(reports.statistics["positive_distance"])
    1.5
    """

    def __init__(self, statistics=True, collecting=True, training=False):
        self.collecting = check_flag("collecting", collecting)
        self.training = check_flag("training", training)
        self.statistics = {}
        self.updates = []
        self.invalid_ids = []
        self.positives = []
        # Attributes and no methods: a loss reads them before it computes a statistic.
        self.wants_active = self.wants_distances = (
            check_flag("statistics", statistics) and collecting
        )

    def __enter__(self):
        self._token = CURRENT.set(self)
        return self

    def __exit__(self, *exception):
        CURRENT.reset(self._token)

    def update(self, variable, value):
        """Report the new `value` of a `variable`; no gradient passes through it."""
        if self.collecting:
            self.updates.append((variable, ops.cast(ops.stop_gradient(value), variable.dtype)))

    def add_invalid_ids(self, loss, number):
        """Report how many ids of a batch are no class of `loss`."""
        if self.collecting:
            self.invalid_ids.append((loss, number))

    def add_positives(self, loss, labels):
        """Report whether two items of a batch share a label.

        `labels`: class ids (batch,), or 0 and 1 (batch, classes).
        """
        if not self.collecting:
            return
        if len(labels.shape) == 2:
            found = ops.any(ops.sum(ops.cast(labels, "int32"), axis=0) > 1)
        else:
            ranked = ops.sort(labels)
            found = ops.any(ops.equal(ranked[1:], ranked[:-1]))
        self.positives.append((loss, found))

    def add_active(self, parts):
        """Report the fraction of the terms of these `Rows` that are greater than zero."""
        if self.wants_active:
            active = sum(ops.sum(part.active) for part in parts)
            valid = sum(ops.sum(part.valid) for part in parts)
            self.statistics["active_fraction"] = active / ops.maximum(valid, 1)
            self.wants_active = False

    def add_distances(self, positive_distance, negative_distance, positive=None, negative=None):
        """Report the distances of a batch, where the masks are True; default: all.

        `negative_distance`: None for a loss that compares nothing with other classes.
        """
        if not self.wants_distances:
            return
        sums, number = _masked_sum(positive_distance, positive)
        negatives = (None, None)
        if negative_distance is not None:
            negatives = _masked_sum(negative_distance, negative)
        self.add_distance_sums(sums, negatives[0], number, negatives[1])

    def add_distance_sums(self, positive_sums, negative_sums, num_positives, num_negatives):
        """Report the sums of the distances of each row, and their numbers."""
        if not self.wants_distances:
            return
        self.wants_distances = False
        for kind, sums, numbers in (
            ("positive", positive_sums, num_positives),
            ("negative", negative_sums, num_negatives),
        ):
            if sums is not None:
                total = ops.sum(sums)
                count = ops.cast(ops.sum(numbers), total.dtype)
                self.statistics[f"{kind}_distance"] = total / ops.maximum(count, 1)
                self.statistics[f"{kind}s"] = count

    def of_replica(self):
        """Reports of one replica of a distributed batch, for `add_replica`."""
        own = StepReports(self.wants_distances, self.collecting, self.training)
        own.updates, own.invalid_ids = self.updates, self.invalid_ids
        own.positives, own.wants_active = self.positives, False
        return own

    def add_replica(self, own, group, counts):
        """Add the distances that one replica reported, summed over the replicas of `group`.

        `counts`: boolean scalar, False on a replica whose rows replace missing ones.
        """
        for kind in ("positive", "negative"):
            distance, number = f"{kind}_distance", f"{kind}s"
            if distance in own.statistics:
                mean, count = own.statistics[distance], own.statistics[number]
                sums = ops.where(counts, ops.stack([mean * count, count]), 0)
                total, count = ops.unstack(group.total(sums), 2)
                self.statistics[distance] = total / ops.maximum(count, 1)
                self.statistics[number] = count
                self.wants_distances = False


# Reports of losses outside of a `with` block.
IGNORED = StepReports(collecting=False)
# The reports of the `with` block that is open in this thread.
CURRENT = contextvars.ContextVar("step_reports", default=IGNORED)


def _masked_sum(values, mask):
    mask = ops.ones_like(values) if mask is None else ops.cast(mask, values.dtype)
    return ops.sum(ops.where(mask > 0, values, 0) * mask), ops.sum(mask)
