"""Losses with one term for each anchor, from the sorted list of its positives and negatives."""

from typing import NamedTuple

from keras import ops

from keras_metric import distances
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import single_terms
from keras_metric.pairwise.blockwise import rows_in_blocks
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE, with_anchor


def list_rows(
    loss,
    terms,
    reports,
    labels,
    embeddings,
    references=None,
    reference_labels=None,
    with_own=False,
    alone=False,
    **blocks,
):
    """Rows of one term for each anchor.

    Args:
        loss: a `PairLoss`, for its distance and its miner.
        terms: function of the distances (rows, references) and the `Pairs` of some anchors. It
            returns their terms (rows,), and the derivatives with respect to the distances. Those of
            an anchor without a positive must be finite, and do not count.
        reports: a `StepReports`.
        labels: see `MetricLoss.batch_parts`, as for the next arguments.
        embeddings: `(batch, dim)`.
        references: `(references, dim)`, or None.
        reference_labels: labels of `references`.
        with_own: whether each anchor is in its own list, as a positive.
        alone: whether an anchor that has no positive but itself has a term.
        blocks: further arguments of `rows_in_blocks`.
    """
    measured, pairs = loss.in_blocks(labels, embeddings, references, reference_labels)
    listed = pairs
    if with_own and references is None:
        listed = with_anchor(pairs)
    elif with_own and isinstance(reference_labels, (class_pairs.Placed, class_pairs.Remembered)):
        listed = with_anchor(pairs, reference_labels.own)
    values, *sums = rows_in_blocks(
        lambda distance, pairs, noise: terms(distance, pairs),
        measured,
        listed,
        with_sums=reports.wants_distances,
        **blocks,
    )
    if sums:
        near, far = sums
        if listed is not pairs:
            near = near - distances.elementwise(embeddings, embeddings, loss.distance)
        reports.add_distance_sums(near, far, pairs.num_positives, pairs.num_negatives)
    return single_terms(values, (listed if alone else pairs).num_positives > 0)


class SmoothStep(NamedTuple):
    """Whether each item j of a list precedes one positive p, smoothed: sigmoid((d_p - d_j) / t).

    `column` (rows,): the column of p. `before` (rows, references): 0 for items that do not count;
    1/2 for p itself, if it counts.
    """

    column: object
    before: object
    temperature: float

    def added(self, derivative, weights):
        """`derivative` plus that of the sum of weights * before, for each row."""
        of_items = weights * self.before * (1 - self.before) / self.temperature
        derivative = derivative - of_items
        rows = ops.arange(ops.shape(derivative)[0], dtype="int32")
        of_positive = ops.sum(of_items, -1) + class_pairs.at(derivative, self.column)
        position = ops.stack([rows, self.column], axis=1)
        return ops.scatter_update(derivative, position, of_positive)


def smooth_steps(distance, mask, temperature):
    """A function of columns (rows,): the `SmoothStep` of these positives, in the list of `mask`."""
    among = ops.where(mask, distance, MASKED_DISTANCE)

    def step(column):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        return SmoothStep(column, ops.sigmoid((near - among) / temperature), temperature)

    return step
