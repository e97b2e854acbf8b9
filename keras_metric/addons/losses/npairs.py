"""N-pairs losses of tensorflow-addons, on a matrix of similarities."""

from keras import ops

from keras_metric._validation import as_tensor
from keras_metric.addons.losses.addons_loss import AddonsLoss, drop_in
from keras_metric.pairwise.pair_terms import n_pairs_rows


class _NPairsLoss(AddonsLoss):
    """Base of both losses: row i of `y_pred` has the similarities of anchor i to all positives."""

    # The positive of item i is column i, so all labels may differ.
    label_free = True

    @classmethod
    def reads_branches(cls, number):
        return False  # It takes similarities, not embeddings.

    def batch_parts(self, reports, labels, similarities):
        batch = {*similarities.shape, labels.shape[0]} - {None}
        if len(batch) > 1:
            raise ValueError(
                "`y_pred` must be the similarities of anchors and positives, (batch, batch): "
                "keras.ops.matmul(anchors, keras.ops.transpose(positives)). Received: "
                f"y_pred.shape={tuple(similarities.shape)}, y_true.shape={tuple(labels.shape)}"
            )
        return [n_pairs_rows(similarities, self.targets(labels, similarities.dtype))]


@drop_in
class NpairsLoss(_NPairsLoss):
    """N-pairs loss: softmax cross-entropy of each anchor's similarities to all positives.

    `y_pred` is the matrix of similarities, anchors times positives, not normalised. Items with the
    label of an anchor are equal parts of its target.

        loss = mean over anchors i of -mean over j with y_j = y_i of log softmax(s_i)_j

    In new code use `keras_metric.losses.NPairsLoss`, the same on embeddings `(batch, 2, dim)`.

    Labels are compared as integers in every precision; tensorflow-addons rounds large ids in half
    precision. Labels `(batch, 1)`, NaN there, are equivalent to `(batch,)`.

    Args:
        name: name of the loss.

    Raises:
        ValueError: for labels of a wrong shape or kind, or a matrix that is not square.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> points = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], "float32")
    >>> round(float(tfa.losses.NpairsLoss()(np.array([0, 1, 2, 3]), points @ points.T)), 4)
    0.2539

    Reference:
        Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", 2016,
        https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective
    """

    def __init__(self, name="npairs_loss"):
        super().__init__(name=name)

    def targets(self, labels, dtype):
        """Weight of each column in the target of a row, (batch, batch)."""
        return ops.cast(ops.equal(labels[:, None], labels[None, :]), dtype)


@drop_in
class NpairsMultilabelLoss(_NPairsLoss):
    """`NpairsLoss` for items with several labels; targets are proportional to common labels.

    `y_true` is 0 or 1 for each label, `(batch, classes)`, dense or sparse: a `tf.SparseTensor` on
    TensorFlow, a `BCOO` on JAX. `y_pred` is the matrix of similarities, as for `NpairsLoss`.

        t_ij = number of common labels of i and j
        loss = mean over anchors i of -sum_j t_ij * log softmax(s_i)_j / sum_j t_ij

    The mean is over anchors with a label; in tensorflow-addons an item without one gives NaN.

    Args:
        name: name of the loss.

    Raises:
        ValueError: for labels of a wrong rank, or a matrix that is not square.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> points = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], "float32")
    >>> labels = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    >>> round(float(tfa.losses.NpairsMultilabelLoss()(labels, points @ points.T)), 4)
    1.4205

    Reference:
        Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", 2016,
        https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective
    """

    labels = "multi_hot"

    def __init__(self, name="npairs_multilabel_loss"):
        super().__init__(name=name)

    def targets(self, labels, dtype):
        """Number of common labels of each pair of items, (batch, batch)."""
        labels = ops.cast(labels, dtype)
        return ops.matmul(labels, ops.transpose(labels))

    def _checked_labels(self, labels, name):
        labels = ops.convert_to_tensor(as_tensor(name, labels), sparse=False)
        if len(labels.shape) != 2:
            raise ValueError(
                f"`{name}` must be 0 or 1 for each label, (batch, classes). Received: "
                f"{name}.shape={tuple(labels.shape)}. For one class id per item use NpairsLoss."
            )
        return labels


@drop_in
def npairs_loss(y_true, y_pred):
    """`NpairsLoss` as a function, with the same errors.

    Args:
        y_true: class ids `(batch,)` or `(batch, 1)`.
        y_pred: similarities `(batch, batch)`.

    Returns:
        The loss, a scalar with the dtype of `y_pred`.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> points = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], "float32")
    >>> round(float(tfa.losses.npairs_loss(np.array([0, 1, 2, 3]), points @ points.T)), 4)
    0.2539
    """
    return NpairsLoss()(y_true, y_pred)


@drop_in
def npairs_multilabel_loss(y_true, y_pred):
    """`NpairsMultilabelLoss` as a function, with the same errors.

    Args:
        y_true: 0 or 1 for each label, `(batch, classes)`, dense or sparse.
        y_pred: similarities `(batch, batch)`.

    Returns:
        The loss, a scalar with the dtype of `y_pred`.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> points = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], "float32")
    >>> round(float(tfa.losses.npairs_multilabel_loss(np.eye(4), points @ points.T)), 4)
    0.2539
    """
    return NpairsMultilabelLoss()(y_true, y_pred)


__all__ = ["NpairsLoss", "NpairsMultilabelLoss", "npairs_loss", "npairs_multilabel_loss"]
