"""The N-pairs losses of tensorflow-addons, on a matrix of similarities."""

from keras import ops

from keras_metric._validation import as_tensor
from keras_metric.addons.losses.addons_loss import AddonsLoss, drop_in
from keras_metric.pairwise.pair_terms import n_pairs_rows


class _NPairsLoss(AddonsLoss):
    """What both share: row i of `y_pred` has the similarities of anchor i to every positive."""

    # No item needs a partner among the anchors: item i's positive is column i.
    label_free = True

    @classmethod
    def reads_branches(cls, number):
        return False  # It reads similarities and no embeddings.

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
    """Softmax cross-entropy of each anchor's similarities to the positives of the whole batch.

    `y_pred` is the matrix of similarities, anchors times positives, as they come. Where several
    items have the label of an anchor, each is an equal part of its target.

        loss = mean over anchors i of -mean over j with y_j = y_i of log softmax(s_i)_j

    New code takes `keras_metric.losses.NPairsLoss`, the same on embeddings `(batch, 2, dim)`.

    Labels are compared as integers in every precision; in tensorflow-addons large ids meet in half
    precision. Labels `(batch, 1)`, NaN there, give the number of `(batch,)`.

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
        """What part each column has in the target of a row, (batch, batch)."""
        return ops.cast(ops.equal(labels[:, None], labels[None, :]), dtype)


@drop_in
class NpairsMultilabelLoss(_NPairsLoss):
    """`NpairsLoss` for items with several labels: targets in proportion to the labels shared.

    `y_true` is 0 or 1 for each label, `(batch, classes)`, dense or sparse: a `tf.SparseTensor` on
    TensorFlow, a `BCOO` on JAX. `y_pred` is the matrix of similarities, as for `NpairsLoss`.

        t_ij = labels that i and j share
        loss = mean over anchors i of -sum_j t_ij * log softmax(s_i)_j / sum_j t_ij

    An item without any label, which turns the batch to NaN in tensorflow-addons, is no anchor: the
    mean is over the others.

    Args:
        name: name of the loss.

    Raises:
        ValueError: for labels of another rank, or a matrix that is not square.

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
        """How many labels each two items share, (batch, batch)."""
        labels = ops.cast(labels, dtype)
        return ops.matmul(labels, ops.transpose(labels))

    def _checked_labels(self, labels, name):
        labels = ops.convert_to_tensor(as_tensor(name, labels), sparse=False)
        if len(labels.shape) != 2:
            raise ValueError(
                f"`{name}` must be 0 or 1 for each label, (batch, classes). Received: "
                f"{name}.shape={tuple(labels.shape)}. For one class id an item take NpairsLoss."
            )
        return labels


@drop_in
def npairs_loss(y_true, y_pred):
    """`NpairsLoss` as a function.

    Args:
        y_true: class ids `(batch,)` or `(batch, 1)`.
        y_pred: similarities `(batch, batch)`.

    Returns:
        The loss, a scalar with the dtype of `y_pred`.

    Raises:
        ValueError: for labels of a wrong shape or kind, or a matrix that is not square.

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
    """`NpairsMultilabelLoss` as a function.

    Args:
        y_true: 0 or 1 for each label, `(batch, classes)`, dense or sparse.
        y_pred: similarities `(batch, batch)`.

    Returns:
        The loss, a scalar with the dtype of `y_pred`.

    Raises:
        ValueError: for labels of another rank, or a matrix that is not square.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> points = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], "float32")
    >>> round(float(tfa.losses.npairs_multilabel_loss(np.eye(4), points @ points.T)), 4)
    0.2539
    """
    return NpairsMultilabelLoss()(y_true, y_pred)


__all__ = ["NpairsLoss", "NpairsMultilabelLoss", "npairs_loss", "npairs_multilabel_loss"]
