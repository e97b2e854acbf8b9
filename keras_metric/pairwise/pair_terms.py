"""Terms of the pairs of a batch, for losses of `losses` and of `addons`."""

from keras import ops

from keras_metric.pairwise.anchor_rows import bounded_square, masked_terms, single_terms
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE


def n_pairs_rows(logits, targets):
    """Rows of one term: the cross-entropy of the softmax over `logits` with `targets`.

    `targets` (rows, columns) are weights of the correct columns, which are normalized to the sum 1
    in each row; a row of zeros has no term. The logit of an excluded column is -MASKED_DISTANCE.
    """
    mass = ops.sum(targets, axis=1)
    # Two sums instead of a matrix of log-probabilities, which needs one more pass.
    shifted = logits - ops.stop_gradient(ops.max(logits, axis=1, keepdims=True))
    of_all = ops.log(ops.sum(ops.exp(shifted), axis=1))
    of_targets = ops.sum(targets * shifted, axis=1) / ops.where(mass > 0, mass, 1)
    return single_terms(of_all - of_targets, mass > 0)


def lifted_structure_rows(distance, pairs, margin, positive_margin, smooth, symmetric=True):
    """Rows over the positive pairs of `distance` (batch, references).

    The negatives of an anchor are references, and those of a reference are anchors. `symmetric`:
    whether the references are the batch itself, so that both are the same.
    """
    gap = ops.where(pairs.negative, margin - distance, -MASKED_DISTANCE)

    def largest(axis):
        return (ops.logsumexp if smooth else ops.max)(gap, axis=axis, keepdims=True)

    of_anchor = largest(1)
    of_positive = ops.transpose(of_anchor) if symmetric else largest(0)
    either = (_log_of_sum if smooth else ops.maximum)(of_anchor, of_positive)
    # An empty sum is -MASKED_DISTANCE. Pairs that do not count get this value before the square.
    positive = pairs.positive
    lifted = ops.where(positive, either + distance - positive_margin, -MASKED_DISTANCE)
    return masked_terms(bounded_square(ops.relu(lifted)) / 2, positive)


def _log_of_sum(a, b):
    """log(exp(a) + exp(b)) of finite numbers, without Keras's extra pass for infinities."""
    return ops.maximum(a, b) + ops.log1p(ops.exp(-ops.abs(a - b)))
