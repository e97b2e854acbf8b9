"""WeightedSum: several losses on the same embeddings."""

import keras

from keras_metric._export import export
from keras_metric._validation import check_number


@export
class WeightedSum(keras.losses.Loss):
    """The sum of losses on the same embeddings, each with a weight.

    `compile(loss=[a, b])` on a model with one output trains on `a` alone, without a word; this
    trains on both.

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
        super().__init__(name=name, reduction="sum", dtype=dtype)
        if not isinstance(terms, (list, tuple)):
            raise TypeError(f"`terms` must be a list of (weight, loss). Received: terms={terms!r}")
        if not terms:
            raise ValueError("`terms` must hold at least one (weight, loss). Received: terms=[]")
        self.terms = [_checked(term) for term in terms]

    @property
    def layers(self):
        """The layers of all losses, each once."""
        held = [layer for _, loss in self.terms for layer in getattr(loss, "layers", ())]
        return tuple(dict.fromkeys(held))

    @property
    def y_of_pairs(self):
        """What y says of ready-made pairs to the first term that needs it, or None."""
        needs = (getattr(loss, "y_of_pairs", None) for _, loss in self.terms)
        return next(filter(None, needs), None)

    @property
    def label_free(self):
        """Whether no term needs labels of a batch."""
        return all(getattr(loss, "label_free", False) for _, loss in self.terms)

    def check_ids(self, labels):
        """Raise unless the NumPy `labels` are of the kind that every term reads."""
        for _, loss in self.terms:
            if hasattr(loss, "check_ids"):
                loss.check_ids(labels)

    def __call__(self, y_true, y_pred, sample_weight=None):
        return keras.ops.cast(
            sum(weight * loss(y_true, y_pred, sample_weight) for weight, loss in self.terms),
            self.dtype,
        )

    def call(self, y_true, y_pred):
        return self(y_true, y_pred)

    def against(self, y_true, y_pred, reference_labels, reference_embeddings, sample_weight=None):
        """The sum against a reference set; see `MetricLoss.against`."""
        for _, loss in self.terms:
            if not hasattr(loss, "against"):
                raise ValueError(
                    "A reference set needs losses of keras_metric in every term. "
                    f"Received: {type(loss).__name__}"
                )
        batch = (y_true, y_pred, reference_labels, reference_embeddings, sample_weight)
        return keras.ops.cast(
            sum(weight * loss.against(*batch) for weight, loss in self.terms), self.dtype
        )

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype,
            "terms": [
                [weight, keras.saving.serialize_keras_object(loss)] for weight, loss in self.terms
            ],
        }

    @classmethod
    def from_config(cls, config):
        terms = [
            (weight, keras.saving.deserialize_keras_object(loss))
            for weight, loss in config["terms"]
        ]
        return cls(**{**config, "terms": terms})


def terms_of(loss):
    """The losses that `loss` is made of: a loss, a sum of losses, or a structure of them."""
    terms = []
    for one in keras.tree.flatten(loss):
        is_sum = isinstance(one, WeightedSum)
        terms += terms_of([part for _, part in one.terms]) if is_sum else [one]
    return terms


def _checked(term):
    if not isinstance(term, (tuple, list)) or len(term) != 2:
        raise TypeError(f"Each of `terms` must be (weight, loss). Received: {term!r}")
    weight, loss = term
    check_number("weight", weight)
    if not isinstance(loss, keras.losses.Loss):
        raise TypeError(f"Each of `terms` must be (weight, keras.losses.Loss). Received: {term!r}")
    return weight, loss
