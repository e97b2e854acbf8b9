"""WeightedSum: several losses on the same embeddings."""

import keras

from keras_metric._export import export
from keras_metric._validation import check_number
from keras_metric.losses.metric_loss import MetricLoss


@export
class WeightedSum(MetricLoss):
    """The sum of losses on the same embeddings, each with a weight.

    Keras trains a model with one output on the first loss of `compile(loss=[a, b])` only, without
    a warning; this loss trains on both.

        loss = sum_i weight_i * loss_i(y_true, y_pred)

    Args:
        terms: list of `(weight, loss)`; weight is a number, loss a `keras.losses.Loss`. Each
            keeps its own reduction.
        name: name of the loss.
        dtype: dtype of the result.

    Raises:
        ValueError: for an empty list.
        TypeError: for no list, or a term that is not a (number, Loss) pair.

    Example:
    >>> import numpy as np
    >>> from keras_metric import losses
    >>> points = np.array([[0.0], [1.0], [2.0], [4.0]], "float32")
    >>> half = losses.WeightedSum([(0.5, losses.TripletLoss(mining="hard"))])
    >>> round(float(half(np.array([0, 0, 1, 1]), points)), 3)
    0.35
    """

    def __init__(self, terms, name="weighted_sum", dtype=None):
        super().__init__("sum", name, dtype)
        if not isinstance(terms, (list, tuple)):
            raise TypeError(f"`terms` must be a list of (weight, loss). Received: terms={terms!r}")
        if not terms:
            raise ValueError("`terms` must hold at least one (weight, loss). Received: terms=[]")
        self.terms = [_checked(term) for term in terms]
        metric_losses = self._metric_losses()
        layers = [layer for _, loss in self.terms for layer in MetricLoss.layers_of(loss)]
        self.layers = tuple(dict.fromkeys(layers))
        meanings = [loss.y_of_pairs for loss in metric_losses if loss.y_of_pairs]
        self.y_of_pairs = meanings[0] if meanings else None
        are_label_free = [loss.label_free for loss in metric_losses]
        self.label_free = all(are_label_free) and len(are_label_free) == len(self.terms)

    def all_losses(self):
        """List of the losses of the sum and of sums in it, without weights."""
        return [
            one
            for _, loss in self.terms
            for one in (loss.all_losses() if isinstance(loss, MetricLoss) else [loss])
        ]

    def _metric_losses(self):
        return [loss for _, loss in self.terms if isinstance(loss, MetricLoss)]

    def check_ids(self, labels):
        """Raise unless the NumPy `labels` are of the kind that every term reads."""
        for loss in self._metric_losses():
            loss.check_ids(labels)

    def check_pairs(self, y):
        """Raise unless the NumPy `y` of ready-made pairs is of the kind that every term reads."""
        for loss in self._metric_losses():
            loss.check_pairs(y)

    def __call__(self, y_true, y_pred, sample_weight=None):
        total = sum(weight * loss(y_true, y_pred, sample_weight) for weight, loss in self.terms)
        return keras.ops.cast(total, self.dtype)

    def call(self, y_true, y_pred):
        return self(y_true, y_pred)

    def against(self, y_true, y_pred, reference_labels, reference_embeddings, sample_weight=None):
        """The sum against a reference set; see `MetricLoss.against`."""
        for _, loss in self.terms:
            if not isinstance(loss, MetricLoss):
                raise ValueError(
                    "A reference set needs losses of keras_metric in every term. "
                    f"Received: {type(loss).__name__}"
                )
        batch = (y_true, y_pred, reference_labels, reference_embeddings, sample_weight)
        return keras.ops.cast(
            sum(weight * loss.against(*batch) for weight, loss in self.terms), self.dtype
        )

    def get_config(self):
        terms = [[weight, keras.saving.serialize_keras_object(loss)] for weight, loss in self.terms]
        return {"terms": terms, "name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config):
        terms = [
            (weight, keras.saving.deserialize_keras_object(loss))
            for weight, loss in config["terms"]
        ]
        return cls(**{**config, "terms": terms})


def _checked(term):
    if not isinstance(term, (tuple, list)) or len(term) != 2:
        raise TypeError(f"Each of `terms` must be (weight, loss). Received: {term!r}")
    weight, loss = term
    check_number("weight", weight)
    if not isinstance(loss, keras.losses.Loss):
        raise TypeError(f"Each of `terms` must be (weight, keras.losses.Loss). Received: {term!r}")
    return weight, loss
