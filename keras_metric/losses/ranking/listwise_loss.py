"""ListwiseLoss: what the losses share that judge an anchor's partners as one list."""

from typing import NamedTuple

from keras import ops

from keras_metric import distances
from keras_metric.losses.pair.pair_loss import PairLoss, chosen_pairs
from keras_metric.losses.reductions import single_terms
from keras_metric.losses.train_reports import report_rows, watching
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.blockwise import BLOCK, rows_in_blocks
from keras_metric.pairwise.class_pairs import FAR


class ListwiseLoss(PairLoss):
    """Base of the losses with one term an anchor, from the list of all its partners.

    A subclass defines `block_terms(distance, partners)`: the terms (rows,) of some anchors, and
    their derivatives with respect to the distances (rows, references). Those of an anchor without
    a positive are finite, and do not count.
    """

    # Entries of a block of distances, see `rows_in_blocks`.
    block = BLOCK

    def block_terms(self, distance, partners):
        """Terms of some anchors and their derivatives, see the class."""
        raise NotImplementedError(f"{type(self).__name__} must define block_terms.")

    def list_of(self, partners, own=None):
        """Who stands in the lists of the anchors of a batch, from their partners.

        `own`: (batch,), where anchors stand themselves, if that is not the diagonal.
        """
        return partners

    def batch_parts(self, labels, embeddings, references=None, reference_labels=None):
        partners = class_pairs.from_labels(labels, reference_labels)
        if self.miner is None:
            others = embeddings if references is None else references
            measured = distances.some_rows_at_a_time(embeddings, others, self.distance)
        else:
            distance = distances.pairwise(embeddings, references, self.distance)
            context = self.context(distance, embeddings, references)
            partners = chosen_pairs(self.miner, distance, partners, **context)
            measured = distances.finished(distance)
        listed = partners
        if references is None:
            listed = self.list_of(partners)
        elif isinstance(reference_labels, (class_pairs.Placed, class_pairs.Remembered)):
            listed = self.list_of(partners, reference_labels.own)
        watched = watching()

        def compute(distance, listed, noise):
            terms, slopes = self.block_terms(distance, listed)
            if not watched:
                return [terms], slopes
            masks = (listed.positive, listed.negative)
            return [terms, *(ops.sum(ops.where(m, distance, 0), -1) for m in masks)], slopes

        terms, *sums = rows_in_blocks(compute, measured, listed, block=self.block)
        if watched:
            if listed is not partners:
                sums[0] = sums[0] - distances.elementwise(embeddings, embeddings, self.distance)
            report_rows(*sums, partners.num_positives, partners.num_negatives)
        return [single_terms(terms, partners.num_positives > 0)]


def with_anchor(partners, own=None):
    """The same with every anchor of a batch among its own positives, see `ListwiseLoss.list_of`."""
    if isinstance(partners, class_pairs.MaskedPairs):
        own = ops.transpose(partners.columns) if own is None else own[:, None]
        mine = ops.equal(partners.columns, own)
        return class_pairs.from_masks(ops.logical_or(partners.positive, mine), partners.negative)
    nowhere = ops.zeros_like(partners.own) - 1
    return partners._replace(
        own=nowhere,
        own_rank=nowhere + 1 + ops.shape(partners.order)[0],
        num_positives=partners.num_positives + 1,
    )


class SmoothStep(NamedTuple):
    """How far each item of a list stands before one positive p: sigmoid((d_p - d_j) / t).

    `column` (rows,): where p stands. `before` (rows, references): 0 for items that do not count;
    1/2 for p itself, if it counts.
    """

    column: object
    before: object
    temperature: float

    def added(self, slopes, weights):
        """`slopes` plus the derivatives of the sum of weights * before, for each row."""
        push = weights * self.before * (1 - self.before) / self.temperature
        rows = ops.arange(ops.shape(slopes)[0], dtype="int32")
        pull = ops.sum(push, -1) + ops.take_along_axis(slopes, self.column[:, None], axis=1)[:, 0]
        pull = pull - ops.take_along_axis(push, self.column[:, None], axis=1)[:, 0]
        return ops.scatter_update(slopes - push, ops.stack([rows, self.column], axis=1), pull)


def smooth_steps(distance, mask, temperature):
    """A function of columns (rows,): `SmoothStep` of these positives, in the list of `mask`."""
    among = ops.where(mask, distance, FAR)

    def step(column):
        near = ops.take_along_axis(distance, column[:, None], axis=1)
        return SmoothStep(column, ops.sigmoid((near - among) / temperature), temperature)

    return step
