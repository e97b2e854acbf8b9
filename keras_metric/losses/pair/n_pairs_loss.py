"""N-pairs loss."""

import functools

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_number, check_one_each
from keras_metric.losses.metric_loss import MetricLoss, check_branches
from keras_metric.losses.pair.sup_con_loss import sup_con_terms
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import Rows, single_terms
from keras_metric.pairwise.blockwise import FEW_PASSES, rows_in_blocks

# Products of larger components overflow float32; clipping keeps the loss finite.
_LARGEST = 1e14


@export
class NPairsLoss(MetricLoss):
    """N-pairs: cross-entropy of each anchor over the positives of all classes.

    Use it with many classes and few items of each: with one pair per class an anchor has as many
    negatives as there are other classes. From a labelled batch (integer labels, embeddings (batch,
    dim)) it takes the first two items of each class as anchor and positive and leaves out the rest;
    `NTXentLoss` uses all. All ready-made pairs, embeddings (batch, 2, dim), are used.

        loss = mean over pairs i of -log( exp(a_i.p_i) / sum_j exp(a_i.p_j) )
               + l2 / 4 * (|a_i|**2 + |p_i|**2)

    with a the anchors and p the positives, not normalised: set `normalize=False` in the model and
    use `l2` to limit the norms. Where ready-made pairs share a label, all their positives are
    equally correct: the first term is the mean over them, as in tensorflow-addons.

    Args:
        l2: weight of the squared norms, 0 or more. Default 0; TensorFlow 1 used 0.002, with the
            same factor of a quarter.
        distance: metric name, default "dot". Logits are the negative distances.
        reduction: default "mean_valid", the mean over all pairs.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, labels that are not integers, a wrong number of
            branches, or a reference set.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]], "float32")
    >>> loss = keras_metric.losses.NPairsLoss()
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.127

    Reference:
        Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", 2016,
        https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective
    """

    num_branches = (2,)

    def __init__(
        self, l2=0.0, distance="dot", reduction="mean_valid", name="n_pairs_loss", dtype=None
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.l2 = check_number("l2", l2, at_least=0)
        self.distance = check_choice("distance", distance, distances.METRICS)

    def batch_parts(self, reports, labels, embeddings, references=None, reference_labels=None):
        if references is not None:
            raise ValueError(
                "NPairsLoss takes its pairs from one batch: no reference set. "
                "Use NTXentLoss, which compares every anchor with a reference set."
            )
        pairs = class_pairs.from_labels(labels)
        # The first item of a class is the anchor, the second its positive: at most batch / 2 pairs,
        # so the distance matrix has a quarter of the entries.
        is_anchor = ops.logical_and(ops.equal(pairs.own_rank, 0), pairs.num_positives > 0)
        columns = pairs.columns[0]
        batch = ops.shape(labels)[0]
        indices = ops.argsort(ops.where(is_anchor, columns, columns + batch))[: (batch + 1) // 2]
        exists = ops.take(is_anchor, indices)
        positives = ops.take(pairs.column(0)[0], indices)
        anchors, positives = (
            ops.take(_bounded(embeddings), rows, axis=0) for rows in (indices, positives)
        )
        # Rows and columns are numbered by their anchors, which are all different.
        nowhere = ops.zeros_like(indices) - 1
        pairs = class_pairs.from_labels(indices, class_pairs.Remembered(indices, exists, nowhere))
        rows = self._rows(reports, anchors, positives, pairs, exists)
        norms = (ops.sum(ops.square(x), axis=1) for x in (anchors, positives))
        rows = self._with_norms(rows, *norms)
        # Scatter the rows back to the items; the anchors are in batch order.
        number = ops.maximum(ops.cumsum(ops.cast(is_anchor, "int32")) - 1, 0)
        return [Rows(*(ops.where(is_anchor, ops.take(part, number), 0) for part in rows))]

    def reads_ids(self, num_branches):
        return True

    def tuple_parts(self, reports, y_true, branches):
        check_branches(branches, 2, "anchor, positive")
        anchors, positives = (_bounded(branch) for branch in branches)
        labels = self._checked_labels(y_true, "y_true")
        check_one_each(labels, anchors, "y_true", "y_pred")
        rows = self._rows(reports, anchors, positives, class_pairs.from_labels(labels, labels))
        norms = (ops.sum(ops.square(x), axis=1) for x in (anchors, positives))
        return [self._with_norms(rows, *norms)]

    def _rows(self, reports, anchors, positives, pairs, exists=None):
        """Cross-entropies of anchors over positives, of those that exist."""
        measured = distances.in_blocks(self.distance)(anchors, positives)
        terms = functools.partial(sup_con_terms, temperature=1.0)
        values, *sums = rows_in_blocks(
            terms, measured, pairs, with_sums=reports.wants_distances, **FEW_PASSES
        )
        if sums:
            numbers = pairs.num_positives, pairs.num_negatives
            if exists is not None:
                sums, numbers = ([ops.where(exists, x, 0) for x in xs] for xs in (sums, numbers))
            reports.add_distance_sums(*sums, *numbers)
        return single_terms(values, exists)

    def _with_norms(self, rows, anchors, positives):
        """`rows` plus the L2 term: the squared norms of both items of a pair."""
        if not self.l2:
            return rows
        return single_terms(rows.total + 0.25 * self.l2 * (anchors + positives), rows.valid)


def _bounded(x):
    return ops.clip(x, -_LARGEST, _LARGEST)
