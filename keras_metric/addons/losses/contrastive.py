"""Contrastive loss of tensorflow-addons, on distances."""

import keras
from keras import ops

from keras_metric._validation import as_tensor, check_choice
from keras_metric.addons.losses.addons_loss import REDUCTIONS, as_margin, drop_in
from keras_metric.losses import MetricLoss
from keras_metric.pairwise.anchor_rows import bounded_square, single_terms


@drop_in
class ContrastiveLoss(MetricLoss):
    """Contrastive loss of the distances of pairs.

    `y_pred` is the distance of each pair, not an embedding. `y_true` is 1 for pairs of one class.

        y * d**2 + (1 - y) * max(margin - d, 0)**2

    In new code use `keras_metric.losses.ContrastiveLoss`, the same on pairs of embeddings with
    `power=2, reduction="sum_over_batch_size"`.

    Labels `(batch,)` and distances `(batch, 1)` are compared element by element; a direct call in
    tensorflow-addons broadcasts them to all combinations.

    Args:
        margin: distance above which a pair of two classes has no loss. Default 1.
        reduction: a reduction of Keras, default "sum_over_batch_size"; "auto" is the same.
        name: name of the loss.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown reduction, or shapes other than the above.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> loss = tfa.losses.ContrastiveLoss()
    >>> distances = np.array([0.1, 0.3, 1.3, 0.7, 1.1, 0.5], "float32")
    >>> round(float(loss(np.array([0, 0, 1, 1, 0, 1]), distances)), 4)
    0.6217

    Reference:
        Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping",
        2006, https://doi.org/10.1109/CVPR.2006.100
    """

    def __init__(self, margin=1.0, reduction="sum_over_batch_size", name="contrastive_loss"):
        check_choice("reduction", "none" if reduction is None else reduction, REDUCTIONS)
        known = "sum_over_batch_size" if reduction == "auto" else reduction
        super().__init__(name=name, reduction=known)
        self.margin = as_margin(margin)

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_pred = as_tensor("y_pred", y_pred)
        with keras.name_scope(self.name):
            terms = _terms(y_true, y_pred, self.margin)
            value = self._reduced([single_terms(terms)], sample_weight, terms.dtype)
        return ops.cast(value, y_pred.dtype)

    @classmethod
    def reads_branches(cls, number):
        """Return False: it takes distances, not the embeddings of a model (see `MetricLoss`)."""
        return False

    def call(self, y_true, y_pred):
        """One term per pair, `(batch,)`, without reduction."""
        return contrastive_loss(y_true, y_pred, self.margin)

    def get_config(self):
        return {"margin": self.margin, "reduction": self.reduction, "name": self.name}


@drop_in
def contrastive_loss(y_true, y_pred, margin=1.0):
    """The terms of `ContrastiveLoss`, one per pair.

    Args:
        y_true: `(batch,)` or `(batch, 1)`, 1 where the two items of a pair are the same, else 0.
        y_pred: distances, `(batch,)` or `(batch, 1)`.
        margin: distance above which a pair of two classes has no loss. Default 1.

    Returns:
        Tensor `(batch,)` with the dtype of `y_pred`.

    Raises:
        ValueError: for other shapes.

    Example:
    >>> import numpy as np
    >>> import keras_metric.addons as tfa
    >>> distances = np.array([0.5, 0.5], "float32")
    >>> np.asarray(tfa.losses.contrastive_loss(np.array([1, 0]), distances, margin=2.0)).tolist()
    [0.25, 2.25]
    """
    y_pred = as_tensor("y_pred", y_pred)
    return ops.cast(_terms(y_true, y_pred, as_margin(margin)), y_pred.dtype)


def _terms(y_true, y_pred, margin):
    y_true = as_tensor("y_true", y_true)
    kind = keras.backend.standardize_dtype(y_pred.dtype)
    if not keras.backend.is_float_dtype(kind):
        raise ValueError(
            f"`y_pred` must be floating point distances. Received: y_pred.dtype={kind}. Call "
            "loss(labels, distances)."
        )
    shapes = tuple(y_true.shape), tuple(y_pred.shape)
    batch = {shape[0] for shape in shapes if shape} - {None}
    if any(len(shape) not in (1, 2) or shape[1:] not in ((), (1,)) for shape in shapes) or (
        len(batch) > 1
    ):
        raise ValueError(
            "Expected the labels and the distances of pairs, (batch,) or (batch, 1) each. "
            f"Received: y_true.shape={shapes[0]}, y_pred.shape={shapes[1]}. For embeddings "
            "use keras_metric.losses.ContrastiveLoss."
        )
    # Squares of half-precision distances overflow from 256 on.
    distance = ops.cast(y_pred, "float64" if kind == "float64" else "float32")
    distance = ops.reshape(distance, (-1,))
    same = ops.reshape(ops.cast(y_true, distance.dtype), (-1,))
    push = bounded_square(ops.relu(margin - distance))
    return same * bounded_square(distance) + (1 - same) * push


__all__ = ["ContrastiveLoss", "contrastive_loss"]
