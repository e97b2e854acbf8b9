"""ClassLoss: what the losses share that compare embeddings with learned vectors of classes."""

import keras
from keras import ops

from keras_metric import distances, distributed
from keras_metric._validation import as_array, as_tensor, check_count, check_matrix
from keras_metric.losses.classification.class_vectors import ClassVectors
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.losses.reductions import single_terms
from keras_metric.losses.running_state import report_strange_ids
from keras_metric.losses.train_reports import report


def cross_entropy_rows(logits, own):
    """One term an item: -log of its class's share in a softmax over `logits` (batch, classes).

    `own`: boolean (batch, classes), the column of the item's class.
    """
    logits = bounded(logits)
    mine = ops.sum(ops.where(own, logits, 0), axis=1)
    return class_terms(ops.logsumexp(logits, axis=1) - mine, own)


def bounded(logits):
    """The logits, at most 1e9 in size.

    Of larger ones the rounding alone, which compilers do in any order, is more than an exponential
    can tell apart.
    """
    return ops.clip(logits, -1e9, 1e9)


def class_terms(values, own):
    """Rows of one term an item; NaN, and without a gradient, where the item has no class."""
    return single_terms(ops.where(ops.any(own, axis=1), values, float("nan")))


def cosines(embeddings, vectors):
    """Cosine of each embedding with each class vector, (batch, vectors)."""
    return ops.matmul(distances.unit(embeddings), ops.transpose(distances.unit(vectors)))


def check_class_ids(loss, labels, num_classes):
    """Raise unless each of the NumPy `labels` is a class that the `loss` of that name knows."""
    ids = as_array("y_true", labels)
    if ids.size and ids.dtype.kind in "iuf" and not 0 <= ids.min() <= ids.max() < num_classes:
        raise ValueError(
            f"{loss} has num_classes={num_classes}: ids must run from 0 to {num_classes - 1}. "
            f"Received ids from {ids.min()} to {ids.max()}. `y_true` holds others: count the "
            "classes anew, or number them: classes, ids = np.unique(labels, return_inverse=True)."
        )


def members(labels, num_classes, loss):
    """Boolean (batch, num_classes): the class of each item. Tells the model of strange ids."""
    own = ops.equal(labels[:, None], ops.arange(num_classes, dtype=labels.dtype)[None, :])
    strange = ops.logical_not(ops.any(own, axis=1))
    number = ops.sum(ops.cast(strange, "float32"))
    group = distributed.current()
    if group is not None and loss.rows_see == "batch":
        # Each replica sees them all, and the model adds up what the replicas tell.
        number = number / group.number
    report_strange_ids(loss, number)
    return own


class ClassLoss(MetricLoss):
    """Base of the losses that compare an item with one or several vectors of each class.

    A subclass defines `class_parts(embeddings, vectors, own)`: parts of a batch, from the
    embeddings (batch, dim), the vectors (num_classes * each, dim) and the boolean matrix `own`
    (batch, num_classes) of each item's class. An id outside 0 to num_classes - 1 makes the loss
    NaN without a gradient; where it can be seen earlier it raises.
    """

    rows_see = "item"
    # An item is compared with the vectors of the classes: labels that all differ are fine.
    needs_positives = False

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
        except Exception as error:  # Keras raises whatever a broken config hits.
            raise ValueError(
                "`initializer` must be a keras initializer, its name, or None. "
                f"Received: initializer={initializer!r}"
            ) from error
        self.proxies = ClassVectors(num_classes, each, made, learned, name=name)
        if embedding_dim is not None:
            check_count("embedding_dim", embedding_dim)
            self.proxies.build((None, embedding_dim))

    @property
    def layers(self):
        return (self.proxies,)

    @property
    def class_vectors(self):
        """The learned vectors, (num_classes * each, dim), as a NumPy array."""
        self._check_layers()
        return ops.convert_to_numpy(self.proxies.vectors)

    def check_ids(self, labels):
        """Raise unless each of the NumPy `labels` is one of the classes."""
        super().check_ids(labels)
        check_class_ids(self.name, labels, self.num_classes)

    def class_parts(self, embeddings, vectors, own):
        """Parts of a labelled batch, see the class."""
        raise NotImplementedError(f"{type(self).__name__} must define class_parts.")

    def batch_parts(self, labels, embeddings, references=None, reference_labels=None):
        if references is not None:
            raise ValueError(
                f"{type(self).__name__} takes no reference set: items are compared with the "
                "learned vectors of the classes."
            )
        own = members(labels, self.num_classes, self)
        vectors = ops.cast(self.proxies.vectors, embeddings.dtype)
        if embeddings.shape[1] not in (None, vectors.shape[1]):
            raise ValueError(
                f"{self.name} has learned vectors of length {vectors.shape[1]}, made for "
                f"`y_pred` of this width. Received: y_pred.shape={tuple(embeddings.shape)}"
            )
        return self.class_parts(embeddings, vectors, own)

    def report_cosines(self, cosine, own):
        """Tell an open `watch` how far items are from their class, and from the others."""
        report(1 - cosine, 1 - cosine, own, ops.logical_not(own))

    def _checked_labels(self, labels, name):
        ids = super()._checked_labels(labels, name)
        if not ops.is_tensor(labels):
            check_class_ids(self.name, labels, self.num_classes)
        return ids


class SoftmaxLoss(ClassLoss):
    """Base of the class losses that are a softmax over classes.

    A subclass defines `class_logits(embeddings, vectors)` -> (cosines, factor), both (batch,
    num_classes) or broadcasting to it, and `with_margin(cosine)`, the cosine that the item's own
    class gets in training. The logits are factor * cosine.
    """

    def class_logits(self, embeddings, vectors):
        """Cosines and their factor, see the class."""
        return cosines(embeddings, vectors), self.scale

    def with_margin(self, cosine):
        """The cosine of an item with its own class, made harder."""
        return cosine

    def class_parts(self, embeddings, vectors, own):
        cosine, factor = self.class_logits(embeddings, vectors)
        self.report_cosines(cosine, own)
        logits = factor * ops.where(own, self.with_margin(cosine), cosine)
        return [cross_entropy_rows(logits, own)]

    def logits(self, embeddings):
        """Logits of a classifier, (batch, num_classes): without the margin of the training.

        Args:
            embeddings: `(batch, dim)`, of the model's encoder.

        Returns:
            Tensor, float32 at least; its largest element of a row is the class, a softmax the
            probabilities.

        Raises:
            ValueError: for embeddings that are no floating-point matrix, or before an
                `EmbeddingModel` has made the vectors of the classes.
        """
        self._check_layers()
        z = as_tensor("embeddings", embeddings)
        check_matrix("embeddings", z)
        z = ops.cast(z, distances.at_least_float32(keras.backend.standardize_dtype(z.dtype)))
        cosine, factor = self.class_logits(z, ops.cast(self.proxies.vectors, z.dtype))
        return factor * cosine
