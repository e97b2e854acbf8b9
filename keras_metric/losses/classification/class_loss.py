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
from keras_metric.losses.classification import class_sampling
from keras_metric.losses.classification.class_log_sums import (
    LARGEST_LOGIT,
    Block,
    Form,
    log_sums,
)
from keras_metric.losses.classification.class_sampling import OwnClasses
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.pairwise.anchor_rows import single_terms


class ClassVectors(keras.layers.Layer):
    """One or several trainable vectors for each class, `(num_classes * each, dim)`.

    The vectors of class c are the rows c * each to (c + 1) * each - 1. They are float32 in every
    precision, since half precision loses small steps.

    The attribute name `vectors` is part of the file format. `sampled`: whether the layer has a
    generator of random numbers, whose state `EmbeddingModel` saves.
    """

    def __init__(
        self, num_classes, each=1, initializer=None, learned=True, sampled=False, **kwargs
    ):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})
        self.num_classes = num_classes
        self.each = each
        self.initializer = initializer
        # Passed to the weight: freezing and unfreezing a model sets `trainable` of its layers.
        self.learned = learned
        self.seed_generator = keras.random.SeedGenerator() if sampled else None

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


def cross_entropy_rows(others, target, valid):
    """Rows of one term: -log of the softmax of each item's class.

    Args:
        others: `(batch,)`, log of the sum of exp of the logits of the other classes.
        target: `(batch,)`, the logit of the item's class.
        valid: Boolean `(batch,)`, whether the item has a class.
    """
    return class_terms(ops.softplus(others - bounded(target)), valid)


def bounded(logits):
    """The logits, at most `LARGEST_LOGIT` in size."""
    return ops.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)


def class_terms(values, valid):
    """Rows of one term; NaN without a gradient for an item that has no class."""
    return single_terms(ops.where(valid, values, float("nan")))


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


def own_classes(reports, labels, num_classes, loss):
    """The `OwnClasses` of the items. Reports the invalid ids."""
    valid = ops.logical_and(labels >= 0, labels < num_classes)
    if reports.collecting:
        number = ops.sum(ops.cast(ops.logical_not(valid), "float32"))
        group = distributed.current()
        if group is not None:
            # In a loss of the whole batch each replica has all labels.
            number = group.part_of_count(number, gathered=loss.rows_depend_on == "batch")
        reports.add_invalid_ids(loss, number)
    return OwnClasses(ops.cast(ops.clip(labels, 0, num_classes - 1), "int32"), valid)


def members(reports, labels, num_classes, loss):
    """Boolean (batch, num_classes): the class of each item. Reports the invalid ids."""
    own = own_classes(reports, labels, num_classes, loss)
    return is_own(ops.where(own.valid, own.ids, -1), num_classes)


def is_own(own, number):
    """Boolean (batch, number): whether a column is the item's class, at the positions `own`."""
    return ops.equal(own[:, None], ops.arange(number, dtype="int32")[None, :])


class ClassLoss(MetricLoss):
    """Base of the losses that compare an item with one or several vectors of each class.

    By default the loss is a softmax over the classes, with the logits factor * cosine. Subclasses
    may define `with_margin(cosine)`, the cosine of an item with its own class in training;
    `left(embeddings)`, `factor(embeddings)` and `form`, how the logits are computed; and
    `target(embeddings, vectors, own, logit)`, the logit with the margin. Other losses define
    `class_parts(reports, embeddings, vectors, own)`: parts of a batch, from the embeddings (batch,
    dim), the vectors (num_classes * each, dim) and the `OwnClasses` of the items.

    Time of a softmax is that of four matrix products of size batch * dim * num_classes. Memory is
    the gradient of the class vectors and a few MB: no matrix (batch, num_classes) is stored, unless
    it is small. With `sample_rate` below 1 a training step compares the items with the classes of
    the batch and a random sample of the others, and only the gathered vectors get a gradient.

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
        sample_rate=1.0,
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
        self.each = each
        self.sample_rate = class_sampling.check_sample_rate(sample_rate)
        self.num_sampled = class_sampling.number_sampled(num_classes, sample_rate)
        sampled = self.num_sampled < num_classes
        self.proxies = ClassVectors(num_classes, each, made, learned, sampled, name=name)
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
        own = own_classes(reports, labels, self.num_classes, self)
        vectors = ops.cast(self.proxies.vectors, embeddings.dtype)
        if embeddings.shape[1] not in (None, vectors.shape[1]):
            raise ValueError(
                f"{self.name} has learned vectors of length {vectors.shape[1]}, made for "
                f"`y_pred` of this width. Received: y_pred.shape={tuple(embeddings.shape)}"
            )
        return self.class_parts(reports, embeddings, vectors, own)

    def class_parts(self, reports, embeddings, vectors, own):
        """Parts of a labelled batch; see the class."""
        others, logit = self.against_classes(reports, embeddings, vectors, own)
        target = self.target(embeddings, vectors, own, logit)
        return [cross_entropy_rows(others, target, own.valid)]

    def compared_classes(self, reports, vectors, own):
        """List of disjoint `ComparedClasses`; the last has the own class of each item."""
        if self.num_sampled == self.num_classes or not reports.training:
            return class_sampling.all_classes(vectors, own)
        return class_sampling.sampled_classes(
            vectors,
            own,
            self.num_classes,
            self.each,
            self.num_sampled,
            self.proxies.seed_generator,
        )

    def against_classes(self, reports, embeddings, vectors, own):
        """Two tensors (batch,): log-sum-exp of the logits of other classes; the own logit.

        Reports the distances.
        """
        left, wanted = self.left(embeddings), reports.wants_distances
        found = [
            log_sums(left, part.vectors, part.own, self.form, part.valid, with_sums=wanted)
            for part in self.compared_classes(reports, vectors, own)
        ]
        others, logits, *sums = (ops.stack(parts) for parts in zip(*found))
        if wanted:
            sums = [ops.where(own.valid, ops.sum(parts, axis=0), 0) for parts in sums]
            self.report(reports, embeddings, vectors, own, logits[-1], *sums)
        return ops.logsumexp(others, axis=0), logits[-1]

    def report(self, reports, embeddings, vectors, own, logit, sums, number):
        """Report the distances 1 - cosine of items to their class, and to the other classes.

        `sums`, `number`: sum of the logits with other classes of each item, and their number.
        """
        factor = self.factor(embeddings)
        near = ops.where(own.valid, 1 - logit / factor, 0)
        reports.add_distance_sums(near, number - sums / factor, own.valid, number)

    @property
    def form(self):
        """How the logits are computed from products."""
        return Form(self.scale, self.each)

    def left(self, embeddings):
        """Vectors (batch, dim) whose products with the class vectors are the logits."""
        return self.scale * distances.unit(embeddings)

    def factor(self, embeddings):
        """The logits divided by the cosines: a number above 0, or (batch,)."""
        return self.scale

    def target(self, embeddings, vectors, own, logit):
        """The logit of each item's class with the margin, from that without, (batch,)."""
        factor = self.factor(embeddings)
        return factor * self.with_margin(logit / factor)

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
        vectors = ops.cast(self.proxies.vectors, z.dtype)
        return ops.transpose(Block(self.left(z), vectors, self.form).logits)

    def _checked_labels(self, labels, name):
        ids = super()._checked_labels(labels, name)
        if not ops.is_tensor(labels):
            check_class_ids(self.name, labels, self.num_classes)
        return ids


def report_cosines(reports, cosine, mine, others):
    """Report the distances 1 - cosine of items to their class, and to the other classes."""
    if reports.wants_distances:
        reports.add_distances(1 - cosine, 1 - cosine, mine, others)
