"""MetricLoss: base class of the losses on embeddings."""

import inspect
import warnings

import keras
import numpy as np
from keras import ops

from keras_metric import distances, distributed
from keras_metric._export import export
from keras_metric._validation import (
    as_array,
    as_tensor,
    at_least_float32,
    check_choice,
    check_matrix,
    check_not_swapped,
    check_one_each,
    checked_ids,
    class_ids,
    invalid_ids,
    multi_hot,
    row_weights,
)
from keras_metric.losses.reductions import OVER_COUNTS, reduce_rows
from keras_metric.losses.step_reports import CURRENT
from keras_metric.mining.miner import Miner
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import Rows

_KERAS_REDUCTIONS = ("mean", "mean_with_sample_weight", "none", "sum", "sum_over_batch_size")
REDUCTIONS = (*OVER_COUNTS, *_KERAS_REDUCTIONS)


@export
class MetricLoss(keras.losses.Loss):
    """Base class of the losses on embeddings, for losses of your own as well.

    Unlike in `keras.losses.Loss`, labels stay integers, `y_pred` of rank 3 holds ready-made tuples,
    and each anchor has its own terms. A subclass defines `batch_parts` for labelled batches, and
    `tuple_parts` if it accepts ready-made tuples. Both return a list of parts, and the loss is the
    sum over the list. A part is a tuple of three tensors `(batch,)`: the sum of the terms of each
    anchor, the number of its terms that are greater than zero, and the number of all its terms.

    Reductions:

    - "mean_active": sum of all terms over the number of terms greater than zero. The gradient
      keeps its size when most triplets are solved.
    - "mean_valid": sum of all terms over the number of all terms.
    - Keras's own ("sum_over_batch_size", "sum", "none", "mean", "mean_with_sample_weight") act
      on the row means: an anchor's sum over its active terms. "sum_over_batch_size" divides by
      all rows, also those without terms.

    `sample_weight` weighs the anchors, in the sum and in the count.

    A subclass stores every argument of its constructor in an attribute of that name, from which
    `get_config` and `from_config` work. It stores the Keras layers that it owns in `layers`.

    Args:
        reduction: name of a reduction above. Default "mean_active".
        name: name of the loss.
        dtype: dtype of the result. Subclasses get embeddings in float32 at least.

    Raises:
        ValueError: for an unknown reduction.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> from keras_metric import losses
    >>> class LengthLoss(losses.MetricLoss):
    ...     def batch_parts(self, reports, labels, embeddings, references=None, ids=None):
    ...         terms = keras.ops.sum(keras.ops.square(embeddings), axis=1)
    ...         ones = keras.ops.ones_like(terms)
    ...         return [(terms, ones, ones)]
    >>> float(LengthLoss()(np.array([0, 0]), np.array([[1.0, 2.0], [0.0, 1.0]], "float32")))
    3.0
    """

    # What y_true of a labelled batch is: class "ids", or "multi_hot" rows of 0 and 1, where two
    # items with a common label are a positive pair.
    labels = "ids"
    # The meaning of y for ready-made pairs, as text, if the loss requires it.
    y_of_pairs: str | None = None
    # Whether a batch (batch, dim) needs no labels.
    label_free = False
    # Numbers of branches that ready-made tuples may have; None for any.
    num_branches: tuple[int, ...] | None = None
    # Number of classes, if ids must lie in [0, num_classes).
    num_classes: int | None = None
    # The metric of the distances, if the loss has one.
    distance: object = None
    # A `layers.CrossBatchMemory` of past embeddings, for losses that accept one.
    memory = None
    # The Keras layers that the loss owns; `EmbeddingModel` tracks, trains and saves them.
    layers: tuple = ()
    # Whether anchors need other items of their class: a batch without any causes a warning.
    needs_positives = True
    # What the row of an anchor in a labelled batch depends on: the "item" only, its distances to
    # all "references", or the whole "batch". A replica of a distributed batch computes the rows of
    # its own items; for a loss of the last kind, and for ready-made tuples, those of all items.
    rows_depend_on = "batch"
    # Whether a training step has to update a state of the loss: see `StepReports.update`.
    keeps_state = False
    # Whether the loss is one number for the whole batch, without rows that could be weighed.
    is_one_number = False
    # Old argument names in files of earlier versions, {old: new}; read by `from_config`.
    renamed_arguments: dict[str, str] = {}

    def __init__(self, reduction="mean_active", name=None, dtype=None):
        check_choice("reduction", "none" if reduction is None else reduction, REDUCTIONS)
        of_keras = "sum" if reduction in OVER_COUNTS else reduction
        super().__init__(name=name, reduction=of_keras, dtype=dtype)
        self.reduction = reduction
        self._warned_no_positives = False
        self._distributed_calls = 0
        # Whether the constructor has the argument labels="multi_hot".
        self._takes_multi_hot = "labels" in inspect.signature(type(self).__init__).parameters

    # A method: Keras saves what properties return.
    def all_losses(self):
        """List of the losses that this one is a sum of: itself, except for a `WeightedSum`."""
        return [self]

    @staticmethod
    def layers_of(loss):
        """The layers that a loss owns; a user's own `keras.losses.Loss` may have `layers` too."""
        return tuple(getattr(loss, "layers", ()))

    def __call__(self, y_true, y_pred, sample_weight=None):
        reports = CURRENT.get()
        if self.is_one_number and sample_weight is not None:
            self._refuse(sample_weight)
        group = distributed.current()
        with keras.name_scope(self.name):
            if group is not None:
                return self._distributed_value(reports, group, y_true, y_pred, sample_weight)
            if ops.is_tensor(y_true):
                y_true = distributed.ids_of_trial(y_true)
            parts = self._parts(reports, None, y_true, y_pred)
            if reports.wants_active:
                reports.add_active(parts)
            return self._reduced(parts, sample_weight, self.dtype)

    def call(self, y_true, y_pred):
        """Row means `(batch,)`, before any reduction."""
        parts = self._parts(CURRENT.get(), distributed.current(), y_true, y_pred)
        return reduce_rows(parts, "none", None, self.name, self.dtype)

    def against(self, y_true, y_pred, reference_labels, reference_embeddings, sample_weight=None):
        """The loss of anchors whose positives and negatives are other items, a reference set.

        Every anchor is compared with all references, and not with other anchors. Use it in a custom
        training step for a queue of past embeddings, the other view of a batch, or a gallery.
        Memory is O(batch * references), which allows thousands of references for each anchor.

        Args:
            y_true: integer labels of the anchors, `(batch,)`.
            y_pred: their embeddings, `(batch, dim)`.
            reference_labels: integer labels `(references,)`.
            reference_embeddings: `(references, dim)`. They get a gradient too; pass them through
                `keras.ops.stop_gradient` if they are not to be trained.
            sample_weight: weights of the anchors, optional.

        Returns:
            The loss, reduced as in `__call__`.

        Raises:
            ValueError: for labels or embeddings of a wrong kind or shape.
        """
        if self.is_one_number and sample_weight is not None:
            self._refuse(sample_weight)
        references = as_tensor("reference_embeddings", reference_embeddings)
        check_matrix("reference_embeddings", references)
        with keras.name_scope(self.name):
            reports, group = CURRENT.get(), distributed.current()
            parts = self._parts(reports, group, y_true, y_pred, references, reference_labels)
            reports.add_active(parts)
            return self._reduced(parts, sample_weight, self.dtype)

    def batch_parts(self, reports, labels, embeddings, references=None, reference_labels=None):
        """Parts of a labelled batch.

        Args:
            reports: a `StepReports`, for statistics and state updates.
            labels: `(batch,)`; with `labels="multi_hot"` rows of 0 and 1, `(batch, classes)`.
            embeddings: `(batch, dim)`.
            references: `(references, dim)`, the only positives and negatives if given.
            reference_labels: labels of `references`.
        """
        raise ValueError(
            f"{type(self).__name__} needs ready-made tuples: `y_pred` of shape "
            "(batch, branches, dim). Received embeddings of shape (batch, dim)."
        )

    def tuple_parts(self, reports, y_true, branches):
        """Parts of ready-made tuples: `branches` is a list of tensors `(batch, dim)`."""
        raise ValueError(
            f"{type(self).__name__} needs a labelled batch: `y_pred` of shape (batch, dim) and "
            f"integer labels. Received {len(branches)} branches."
        )

    def _distributed_value(self, reports, group, y_true, y_pred, sample_weight):
        """This replica's part of the loss of the batch of all replicas, see `part_of_loss`.

        Every replica gathers all rows and reduces them in the same way, which is correct for
        unequal parts of the batch and any reduction. The gathering returns the gradients of an
        item from all replicas to the replica that has the item.
        """
        group.share_random_states(self.layers)
        embeddings = ops.convert_to_tensor(y_pred)
        labels = None if y_true is None else ops.convert_to_tensor(y_true)
        if self._depends_on_batch() or len(embeddings.shape) == 3:
            labels = None if labels is None else group.gather(labels)
            embeddings_of_all = group.gather(embeddings)
            parts = self._parts(reports, group, labels, embeddings_of_all)
        else:
            own = reports.of_replica()
            if labels is None and self.label_free:
                labels = group.positions(embeddings)
            rows = ops.shape(embeddings)[0]
            batch = labels, embeddings
            if not self._compares_replicas():
                batch = _with_a_row(*batch)
            parts = self._parts(own, group, *batch)
            if reports.wants_distances:
                reports.add_replica(own, group, counts=rows > 0)
            parts = [
                Rows(*ops.unstack(group.gather(ops.stack(part, axis=1)[:rows]), 3, axis=1))
                for part in parts
            ]
        if sample_weight is not None:
            weight = row_weights(sample_weight)
            sample_weight = group.gather(weight) if len(weight.shape) else weight
        if reports.wants_active:
            reports.add_active(parts)
        value = self._reduced(parts, sample_weight, self.dtype)
        self._check_weights(group, value)
        if self.reduction in ("none", None):
            return ops.take(value, group.positions(embeddings), axis=0)
        return group.part_of_loss(value, self.reduction)

    def _check_weights(self, group, value):
        """Warn if replicas train different weights; checks call 1, 2, 4, 8 and so on."""
        self._distributed_calls += 1
        if self._distributed_calls & (self._distributed_calls - 1):
            return
        if not group.have_equal_weights(value):
            warnings.warn(
                f"{self.name}: the trainable weights of the model or of the loss differ between "
                "the processes of torch.distributed, so that each process trains another model. "
                "Put the model and the layers of the loss into one torch.nn.Module, and that into "
                "torch.nn.parallel.DistributedDataParallel; docs/scale.md has a complete script.",
                stacklevel=4,
            )

    def _parts(self, reports, group, y_true, y_pred, references=None, reference_labels=None):
        """Parts of a batch after checks; NaN if an embedding is not finite, or an id is invalid."""
        embeddings = as_tensor("y_pred", y_pred)
        shape = tuple(embeddings.shape)
        self._check_layers(shape[-1] if len(shape) > 1 else None)
        if y_true is not None and (len(shape) < 2 or shape[1:] == (1,)):
            check_not_swapped(y_true, embeddings)
        dtype = keras.backend.standardize_dtype(embeddings.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                "Embeddings must be floating point. "
                f"Received: y_pred.dtype={dtype}. The call is loss(labels, embeddings)."
            )
        # Comparisons with NaN are false, so mining would turn NaN embeddings into a loss of 0.
        valid = ops.all(ops.isfinite(embeddings))
        # Half-precision vectors are cast to float32, since their squares overflow.
        embeddings = ops.cast(embeddings, at_least_float32(dtype))
        if references is not None:
            distances.check_dim(embeddings, references)
            valid = ops.logical_and(valid, ops.all(ops.isfinite(references)))
            references = ops.cast(references, embeddings.dtype)
        if y_true is None and (self.label_free or (len(shape) == 3 and self.y_of_pairs is None)):
            # Each item is a class of its own, as in a model without y.
            y_true = ops.arange(ops.shape(embeddings)[0], dtype="int32")
        if 0 in shape and group is None:
            raise ValueError(
                f"`y_pred` must hold at least one embedding. Received: y_pred.shape={shape}. Leave "
                "empty batches out: tf.data's batch(..., drop_remainder=True) makes none."
            )
        if len(shape) == 3 and references is None:
            self._check_no_memory()
            branches = [embeddings[:, i] for i in range(shape[1])]
            parts = self.tuple_parts(reports, y_true, branches)
        elif len(shape) != 2:
            raise ValueError(
                "Expected embeddings of shape (batch, dim), or (batch, branches, dim) for "
                f"ready-made tuples. Received: y_pred.shape={shape}"
            )
        else:
            batch = self._batch(y_true, embeddings, references, reference_labels)
            if references is not None:
                parts = self.batch_parts(reports, *batch)
            elif group is not None and self._compares_replicas():
                parts = self._parts_among_all(reports, group, *batch)
            elif self.memory is not None:
                parts = self.batch_parts(reports, *batch, *self._remembered(reports, *batch))
            else:
                if self.needs_positives and not self.label_free:
                    self._note_positives(reports, batch[0], y_true)
                parts = self.batch_parts(reports, *batch)
        if len(shape) == 2 or self.reads_ids(shape[1]):
            # A traced step cannot raise for invalid float ids; it counts them.
            for labels in (y_true, reference_labels):
                if ops.is_tensor(labels) and self.labels == "ids":
                    valid = self._valid_ids(reports, group, labels, len(shape), valid)
        nan = float("nan")
        return [Rows(ops.where(valid, total, nan), *counts) for total, *counts in parts]

    def _batch(self, y_true, embeddings, references, reference_labels):
        """Arguments of `batch_parts` after checks: labels, embeddings, and references if any."""
        labels = self._checked_labels(y_true, "y_true")
        check_one_each(labels, embeddings, "y_true", "y_pred")
        if references is None:
            return labels, embeddings
        reference_labels = self._checked_labels(reference_labels, "reference_labels")
        check_one_each(reference_labels, references, "reference_labels", "reference_embeddings")
        return labels, embeddings, references, reference_labels

    def _parts_among_all(self, reports, group, labels, embeddings):
        """Parts of this replica's items, compared with the items of all replicas."""
        of_all = group.gather(labels), group.gather(embeddings)
        positions = group.positions(labels)
        # A loop over blocks needs at least one row. A replica without items computes the row of the
        # first item of the whole batch, and discards it.
        rows = ops.shape(labels)[0]
        missing = 1 - ops.minimum(rows, 1)
        labels = ops.concatenate([labels, of_all[0][:missing]])
        embeddings = ops.concatenate([embeddings, ops.stop_gradient(of_all[1][:missing])])
        positions = ops.concatenate([positions, ops.zeros((missing,), dtype="int32")])
        if self.memory is not None:
            queue, held = self._remembered(reports, *of_all)
            held = held._replace(own=ops.take(held.own, positions))
            parts = self.batch_parts(reports, labels, embeddings, queue, held)
        else:
            if self.needs_positives and not self.label_free:
                self._note_positives(reports, of_all[0])
            placed = class_pairs.Placed(of_all[0], positions)
            parts = self.batch_parts(reports, labels, embeddings, of_all[1], placed)
        return [Rows(*(number[:rows] for number in part)) for part in parts]

    def _reduced(self, parts, sample_weight, dtype):
        return reduce_rows(parts, self.reduction, sample_weight, self.name, dtype)

    def _valid_ids(self, reports, group, labels, rank, valid):
        """`valid` and no invalid float among `labels`, whose number is reported."""
        number = self._invalid_ids(labels)
        if number is None:
            return valid
        gathered = group is not None and (self._depends_on_batch() or rank == 3)
        # A loss with num_classes reports such an id as one that is no class.
        if self.num_classes is None:
            counted = number if group is None else group.part_of_count(number, gathered)
            reports.add_invalid_ids(self, counted)
        if group is not None and not gathered:
            number = group.total(number)
        return ops.logical_and(valid, ops.equal(number, 0))

    def _invalid_ids(self, labels):
        return invalid_ids(labels)

    def _compares_replicas(self):
        """Whether a replica computes the rows of its items, which depend on other replicas."""
        return self.rows_depend_on == "references" and not self._depends_on_batch()

    def _depends_on_batch(self):
        miners = (layer for layer in self.layers if isinstance(layer, Miner))
        return self.rows_depend_on == "batch" or any(miner.sees_batch for miner in miners)

    def _remembered(self, reports, labels, embeddings):
        """Embeddings and labels of the memory with the batch in it; reports the new state."""
        queue, state = self.memory.extended(labels, embeddings)
        for variable, value in state:
            reports.update(variable, value)
        return queue

    def _check_layers(self, dim=None):
        """Raise unless the layers are built; `dim` is the length of an embedding, or None."""
        for layer in self.layers:
            if not layer.built:
                raise ValueError(
                    f"The loss holds the layer {layer.name!r}, whose weights no model trains or "
                    "saves. Compile the loss with a keras_metric.EmbeddingModel."
                    + self._own_model_hint(dim)
                )

    def _own_model_hint(self, dim):
        if self.keeps_state or self.memory is not None:
            return " Only that updates the state of this loss in training."
        if dim is None:
            return ""
        return (
            " In a functional keras.Model, or before a training loop of your own, run these lines "
            "before `compile`:\n\n"
            "for layer in loss.layers:\n"
            f"    layer.build((None, {dim}))\n"
            "model.loss_layers = list(loss.layers)\n\n"
            "docs/own-model.md has complete examples."
        )

    def _check_no_memory(self):
        if self.memory is not None:
            raise ValueError(
                f"{self.name} has a memory, which keeps class ids from batch to batch: it needs "
                "labelled batches, embeddings (batch, dim). Received ready-made tuples or views."
            )

    def _refuse(self, sample_weight):
        row_weights(sample_weight)
        raise ValueError(
            f"{type(self).__name__} is one number for the whole batch: it has no rows that "
            "`sample_weight` or `class_weight` could weigh. Leave them out, or use a loss "
            "with a term for each anchor."
        )

    @classmethod
    def reads_branches(cls, number):
        """Whether `y_pred` may have so many branches; 1 means a labelled batch (batch, dim)."""
        if number == 1:
            return cls.batch_parts is not MetricLoss.batch_parts
        fits = cls.num_branches is None or number in cls.num_branches
        return fits and cls.tuple_parts is not MetricLoss.tuple_parts

    def reads_ids(self, num_branches):
        """Whether y of ready-made tuples of so many branches is class ids."""
        return False

    def check_ids(self, labels):
        """Raise unless the NumPy `labels` of labelled batches are of the kind that the loss reads.

        The model calls this before training, since a compiled step cannot read values.
        """
        if self.labels == "ids":
            checked_ids(labels, "y", self._takes_multi_hot)

    def check_pairs(self, y):
        """Raise unless the NumPy `y` of ready-made pairs is of the kind that the loss reads."""

    def _checked_labels(self, labels, name):
        if self.labels == "multi_hot":
            return multi_hot(labels, name)
        return class_ids(labels, name, self._takes_multi_hot)

    def _note_positives(self, reports, labels, y_true=None):
        """Report whether the batch has a positive pair; warn if `y_true` is a NumPy array."""
        if reports.collecting:
            reports.add_positives(self, labels)
        # Only NumPy labels can be read without waiting for the device.
        if self._warned_no_positives or self.labels == "multi_hot":
            return
        if y_true is None or ops.is_tensor(y_true):
            return
        ids = as_array("y_true", y_true).ravel()
        if len(ids) and len(np.unique(ids)) == len(ids):
            self._warned_no_positives = True
            warnings.warn(
                f"{self.name}: no two items of a batch of {len(ids)} share a label, so no "
                "anchor has a positive. Use keras_metric.data.BalancedBatches, which puts "
                "samples_per_class items of each class into a batch.",
                stacklevel=4,
            )

    def get_config(self):
        # Keras leaves `dtype` out of a loss's config; a round trip must keep it.
        arguments = inspect.signature(type(self).__init__).parameters.values()
        names = [a.name for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD][1:]
        return {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config):
        revive = keras.saving.deserialize_keras_object
        return cls(
            **{
                cls.renamed_arguments.get(name, name): revive(v) if isinstance(v, dict) else v
                for name, v in config.items()
            }
        )


def _with_a_row(labels, embeddings):
    """The arguments; instead of no item one of class 0, since some operations need a row."""
    if embeddings.shape[0] != 0 or labels is None:
        return labels, embeddings
    row = ops.ones((1, *embeddings.shape[1:]), dtype=embeddings.dtype)
    label = ops.zeros((1, *labels.shape[1:]), dtype=labels.dtype)
    # Embeddings stay a part of the graph: the gradient of the encoder is zero, not missing.
    return ops.concatenate([labels, label]), ops.concatenate([embeddings, row])


def scores_of_pairs(y_true, branch):
    """Y of ready-made pairs: a number for each row of `branch`, `(batch,)`."""
    scores = as_tensor("y_true", y_true)
    shape = tuple(scores.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,), (None,)):
        raise ValueError(
            "`y_true` must hold one number for each pair, shape (batch,) or (batch, 1). Received: "
            f"y_true.shape={shape}"
        )
    check_one_each(scores, branch, "y_true", "y_pred")
    return ops.reshape(ops.cast(scores, branch.dtype), (-1,))


def check_branches(branches, expected, names):
    """Raise unless there are `expected` branches."""
    if len(branches) != expected:
        raise ValueError(
            f"Expected `y_pred` of shape (batch, {expected}, dim): one slice for each of "
            f"{names}. Received {len(branches)} branches. Did the data set yield tuples for "
            "another model?"
        )


def measured_pairs(reports, labels, embeddings, metric, references=None, reference_labels=None):
    """Distances of a batch to itself or to references, which are reported, and its `Pairs`."""
    pairs = class_pairs.from_labels(labels, reference_labels)
    distance = distances.pairwise(embeddings, references, metric=metric)
    reports.add_distances(distance, distance, pairs.positive, pairs.negative)
    return distance, pairs
