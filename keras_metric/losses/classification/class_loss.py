"""ClassLoss: base class of the losses that compare embeddings with learned class vectors."""

import keras
from keras import ops

from keras_metric import distances, distributed
from keras_metric._validation import (
    as_array,
    as_tensor,
    at_least_float32,
    check_count,
    check_matrix,
)
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.pairwise.anchor_rows import single_terms


class ClassVectors(keras.layers.Layer):
    """One or several trainable vectors for each class, `(num_classes * each, dim)`.

    The vectors of class c are the rows c * each to (c + 1) * each - 1. They are float32 in every
    precision, since half precision loses small steps.

    The attribute name `vectors` is part of the file format.
    """

    def __init__(self, num_classes, each=1, initializer=None, learned=True, **kwargs):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})
        self.num_classes = num_classes
        self.each = each
        self.initializer = initializer
        # Passed to the weight: freezing and unfreezing a model sets `trainable` of its layers.
        self.learned = learned

    def build(self, input_shape):
        initializer = self.initializer
        if initializer is None:
            # Length about 1. Cosines do not depend on the length, but an optimizer step changes the
            # direction of a long vector less.
            initializer = keras.initializers.VarianceScaling(1.0, "fan_out", "untruncated_normal")
        self.vectors = self.add_weight(
            (self.num_classes * self.each, input_shape[-1]),
            initializer,
            trainable=self.learned,
            name="vectors",
        )


def cross_entropy_rows(logits, own):
    """Rows of one term: -log of the softmax of the item's class over `logits` (batch, classes).

    `own`: boolean (batch, classes), the column of the item's class.
    """
    logits = bounded(logits)
    of_class = ops.sum(ops.where(own, logits, 0), axis=1)
    return class_terms(ops.logsumexp(logits, axis=1) - of_class, own)


def bounded(logits):
    """The logits, at most 1e9 in size.

    Rounding errors of larger logits, which depend on the compiler, exceed the range of an
    exponential.
    """
    return ops.clip(logits, -1e9, 1e9)


def class_terms(values, own):
    """Rows of one term; NaN without a gradient for an item that has no class."""
    return single_terms(ops.where(ops.any(own, axis=1), values, float("nan")))


def cosines(embeddings, vectors):
    """Cosine of each embedding with each class vector, (batch, vectors)."""
    return ops.matmul(distances.unit(embeddings), ops.transpose(distances.unit(vectors)))


def check_class_ids(loss, labels, num_classes):
    """Raise unless the NumPy `labels` lie in [0, num_classes); `loss`: its name, for the error."""
    ids = as_array("y_true", labels)
    if ids.size and ids.dtype.kind in "iuf" and not 0 <= ids.min() <= ids.max() < num_classes:
        raise ValueError(
            f"{loss} has num_classes={num_classes}: ids must run from 0 to {num_classes - 1}. "
            f"Received ids from {ids.min()} to {ids.max()}. `y_true` holds others: count the "
            "classes again, or number them: classes, ids = np.unique(labels, return_inverse=True)."
        )


def members(reports, labels, num_classes, loss):
    """Boolean (batch, num_classes): the class of each item. Reports the invalid ids."""
    own = ops.equal(labels[:, None], ops.arange(num_classes, dtype=labels.dtype)[None, :])
    if reports.collecting:
        invalid = ops.logical_not(ops.any(own, axis=1))
        number = ops.sum(ops.cast(invalid, "float32"))
        group = distributed.current()
        if group is not None:
            # In a loss of the whole batch each replica has all labels.
            number = group.part_of_count(number, gathered=loss.rows_depend_on == "batch")
        reports.add_invalid_ids(loss, number)
    return own


class ClassLoss(MetricLoss):
    """Base of the losses that compare an item with one or several vectors of each class.

    By default the loss is a softmax over the classes, with the logits factor * cosine. Subclasses
    may define `with_margin(cosine)`, the cosine of an item with its own class in training, and
    `class_logits(embeddings, vectors)` -> (cosines, factor), both (batch, num_classes) or
    broadcasting to it. Other losses define `class_parts(reports, embeddings, vectors, own)`: parts
    of a batch, from the embeddings (batch, dim), the vectors (num_classes * each, dim) and the
    boolean matrix `own` (batch, num_classes) of each item's class.

    An id outside [0, num_classes) raises in NumPy labels, and otherwise makes the loss NaN without
    a gradient.
    """

    rows_depend_on = "item"
    # Items are compared with class vectors, so a batch needs no two items of a class.
    needs_positives = False
    # Whether the loss is a softmax over classes, of which `logits` are the logits.
    is_softmax = True

    def __init__(
        self,
        num_classes,
        embedding_dim,
        initializer,
        reduction,
        name,
        dtype=None,
        each=1,
        learned=True,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        check_count("num_classes", num_classes, at_least=2)
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.initializer = initializer
        try:
            made = keras.initializers.get(initializer)
        except Exception as error:  # Keras raises errors of many types for an invalid config.
            raise ValueError(
                "`initializer` must be a keras initializer, its name, or None. "
                f"Received: initializer={initializer!r}"
            ) from error
        self.proxies = ClassVectors(num_classes, each, made, learned, name=name)
        self.layers = (self.proxies,)
        if embedding_dim is not None:
            check_count("embedding_dim", embedding_dim)
            self.proxies.build((None, embedding_dim))

    @property
    def class_vectors(self):
        """The learned vectors, (num_classes * each, dim), as a NumPy array."""
        self._check_layers()
        return ops.convert_to_numpy(self.proxies.vectors)

    def check_ids(self, labels):
        """Raise unless each of the NumPy `labels` is one of the classes."""
        super().check_ids(labels)
        check_class_ids(self.name, labels, self.num_classes)

    def batch_parts(self, reports, labels, embeddings, references=None, reference_labels=None):
        if references is not None:
            raise ValueError(
                f"{type(self).__name__} takes no reference set: items are compared with the "
                "learned vectors of the classes."
            )
        own = members(reports, labels, self.num_classes, self)
        vectors = ops.cast(self.proxies.vectors, embeddings.dtype)
        if embeddings.shape[1] not in (None, vectors.shape[1]):
            raise ValueError(
                f"{self.name} has learned vectors of length {vectors.shape[1]}, made for "
                f"`y_pred` of this width. Received: y_pred.shape={tuple(embeddings.shape)}"
            )
        return self.class_parts(reports, embeddings, vectors, own)

    def class_parts(self, reports, embeddings, vectors, own):
        """Parts of a labelled batch; see the class."""
        cosine, factor = self.class_logits(embeddings, vectors)
        report_cosines(reports, cosine, own)
        logits = factor * ops.where(own, self.with_margin(cosine), cosine)
        return [cross_entropy_rows(logits, own)]

    def class_logits(self, embeddings, vectors):
        """Cosines and their factor; see the class."""
        return cosines(embeddings, vectors), self.scale

    def with_margin(self, cosine):
        """The cosine of an item with its own class, made smaller in training."""
        return cosine

    def logits(self, embeddings):
        """Logits of a classifier, (batch, num_classes), without the margin of the training.

        Args:
            embeddings: `(batch, dim)`, of the model's encoder.

        Returns:
            Tensor, float32 at least. The largest element of a row is the predicted class; a softmax
            gives probabilities.

        Raises:
            ValueError: for embeddings that are no floating-point matrix, before an
                `EmbeddingModel` has made the class vectors, or if the loss is no softmax over
                classes.
        """
        if not self.is_softmax:
            raise ValueError(
                f"{type(self).__name__} is no softmax over classes, so it has no logits. Compare "
                "embeddings with `class_vectors`, or use a loss such as NormalizedSoftmaxLoss."
            )
        self._check_layers()
        z = as_tensor("embeddings", embeddings)
        check_matrix("embeddings", z)
        z = ops.cast(z, at_least_float32(keras.backend.standardize_dtype(z.dtype)))
        cosine, factor = self.class_logits(z, ops.cast(self.proxies.vectors, z.dtype))
        return factor * cosine

    def _checked_labels(self, labels, name):
        ids = super()._checked_labels(labels, name)
        if not ops.is_tensor(labels):
            check_class_ids(self.name, labels, self.num_classes)
        return ids


def report_cosines(reports, cosine, own):
    """Report the distances 1 - cosine of items to their class, and to the other classes."""
    if reports.wants_distances:
        reports.add_distances(1 - cosine, 1 - cosine, own, ops.logical_not(own))
