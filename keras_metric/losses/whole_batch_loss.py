"""WholeBatchLoss: base of the losses that are one number a batch, and no sum over anchors."""

from keras import ops

from keras_metric._validation import row_weights
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.losses.reductions import Rows


def whole_batch(value, batch):
    """Parts of a loss from its one `value` for `batch` items."""
    ones = ops.ones((batch,), dtype=value.dtype)
    return [Rows(value * ones, ones, ones)]


class WholeBatchLoss(MetricLoss):
    """Base of the losses whose terms belong to no anchor: of histograms, of dimensions.

    They take no `reduction`, and no `sample_weight`: there are no rows to weigh. A subclass
    returns `whole_batch(value, batch)` from `batch_parts` or `tuple_parts`.
    """

    def __init__(self, name, dtype=None):
        super().__init__(reduction="sum_over_batch_size", name=name, dtype=dtype)

    def __call__(self, y_true, y_pred, sample_weight=None):
        self._refuse(sample_weight)
        return super().__call__(y_true, y_pred)

    def against(self, y_true, y_pred, reference_labels, reference_embeddings, sample_weight=None):
        """The loss of a batch against a reference set, see `MetricLoss.against`."""
        self._refuse(sample_weight)
        return super().against(y_true, y_pred, reference_labels, reference_embeddings)

    def _refuse(self, sample_weight):
        if sample_weight is not None:
            row_weights(sample_weight)
            raise ValueError(
                f"{type(self).__name__} is one number for the whole batch: it has no rows that "
                "`sample_weight` or `class_weight` could weigh. Leave them out, or use a loss "
                "with a term for each anchor."
            )
