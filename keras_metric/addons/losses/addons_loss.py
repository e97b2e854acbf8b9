"""Base class of the tensorflow-addons losses of labelled batches."""

import keras
from keras import ops

from keras_metric._validation import as_array, as_tensor, check_choice, check_number, class_ids
from keras_metric.losses import MetricLoss

# tensorflow-addons registers its losses under this package name; saved configurations contain it.
drop_in = keras.saving.register_keras_serializable(package="Addons")

REDUCTIONS = ("auto", "mean", "mean_with_sample_weight", "none", "sum", "sum_over_batch_size")


class AddonsLoss(MetricLoss):
    """Base of the losses with one value per batch, the mean over all terms.

    Distances are computed in float32 or wider; the value has the dtype of `y_pred`. `sample_weight`
    weights the anchors. A scalar is the same under every reduction, so `reduction` may be any of
    Keras's and is not stored.
    """

    def __init__(self, name=None, reduction="none"):
        check_choice("reduction", "none" if reduction is None else reduction, REDUCTIONS)
        super().__init__(reduction="mean_valid", name=name)

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_pred = as_tensor("y_pred", y_pred)
        return ops.cast(super().__call__(y_true, y_pred, sample_weight), y_pred.dtype)

    def against(self, y_true, y_pred, reference_labels, reference_embeddings, sample_weight=None):
        """Raise: tensorflow-addons has no reference sets."""
        raise ValueError(
            f"{type(self).__name__} compares a batch with itself, as in tensorflow-addons. "
            "Use a loss of keras_metric.losses, which takes a reference set."
        )

    def _checked_labels(self, labels, name):
        # tensorflow-addons compares labels of any dtype, also floats.
        labels = labels if ops.is_tensor(labels) else as_array(name, labels)
        dtype = keras.backend.standardize_dtype(labels.dtype) if _is_number(labels) else None
        if dtype == "bool":
            labels = ops.cast(labels, "int32")
        if dtype is None or not keras.backend.is_float_dtype(dtype):
            return class_ids(labels, name)
        # One-hot rows and other shapes raise the errors of integer ids.
        if len(labels.shape) != 1:
            class_ids(ops.cast(labels, "int32"), name)
        return ops.reshape(ops.convert_to_tensor(labels), (-1,))

    def check_ids(self, labels):
        """Accept all labels: tensorflow-addons compares fractions too."""

    def _invalid_ids(self, labels):
        return None


def _is_number(labels):
    return ops.is_tensor(labels) or labels.dtype.kind in "biuf"


def as_margin(margin):
    """`margin` as a Python number; tensorflow-addons also accepts a scalar tensor."""
    if ops.is_tensor(margin) and len(margin.shape) == 0:
        margin = float(ops.convert_to_numpy(margin))
    check_number("margin", margin)
    return margin
