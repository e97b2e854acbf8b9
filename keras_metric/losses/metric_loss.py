"""MetricLoss: what every loss of the package shares."""

import inspect
import warnings

import keras
import numpy as np
from keras import ops

from keras_metric import distances, distributed
from keras_metric._validation import (
    as_array,
    as_tensor,
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
from keras_metric.losses.reductions import OVER_COUNTS, Rows, reduce_rows
from keras_metric.losses.running_state import keep, report_positives, report_strange_ids
from keras_metric.losses.train_reports import report, report_active, summed_over_replicas
from keras_metric.pairwise import class_pairs

_KERAS_REDUCTIONS = ("mean", "mean_with_sample_weight", "none", "sum", "sum_over_batch_size")
REDUCTIONS = (*OVER_COUNTS, *_KERAS_REDUCTIONS)


class MetricLoss(keras.losses.Loss):
    """Base of the losses on embeddings: labels stay integers, every anchor gives its own rows.

    A subclass defines `batch_parts(labels, embeddings)` for labelled batches and, where ready
    made tuples make sense, `tuple_parts(y_true, branches)`. Each returns a list of `Rows`; the
    loss is the sum over the list.

    Reductions:

    - "mean_active": sum of all terms over the number of terms greater than zero. The gradient
      keeps its size when most triplets are solved.
    - "mean_valid": sum of all terms over the number of all terms.
    - Keras's own ("sum_over_batch_size", "sum", "none", "mean", "mean_with_sample_weight") act
      on the row means: an anchor's sum over its active terms. "sum_over_batch_size" divides by
      all rows, those without a partner included.

    `sample_weight` weighs the anchors, in the sum and in the count.

    A subclass keeps every argument of its constructor in an attribute of that name; from these
    come `get_config` and `from_config`.
    """

    # What y_true of a labelled batch is: class "ids", or "multi_hot" rows, where one shared label
    # makes two items a positive pair.
    labels = "ids"
    # What y says of ready-made pairs, in words, where the loss can do nothing without it.
    y_of_pairs: str | None = None
    # Whether a batch (batch, dim) needs no labels.
    label_free = False
    # Numbers of branches that ready-made tuples may have; None for any.
    num_branches: tuple[int, ...] | None = None
    # A `layers.CrossBatchMemory` of past embeddings, of losses that take one.
    memory = None
    # Whether anchors need other items of their class: a batch without any deserves a warning.
    needs_positives = True
    # What the row of an anchor in a labelled batch looks at: the "item" alone, its distances to all
    # "references", or the whole "batch". Under tf.distribute a replica works out the rows of its
    # own items; of a loss of the last kind, and of ready-made tuples, those of all.
    rows_see = "batch"
    # Whether the loss holds a state that a training step has to update: see `running_state.keep`.
    keeps_state = False
    # Old argument names in files of earlier versions, {old: new}; read by `from_config`.
    renamed_arguments = {}

    def __init__(self, reduction, name, dtype=None):
        check_choice("reduction", "none" if reduction is None else reduction, REDUCTIONS)
        known = "sum" if reduction in OVER_COUNTS else reduction
        super().__init__(name=name, reduction=known, dtype=dtype)
        self.reduction = reduction
        self._told_no_positives = False

    @property
    def layers(self):
        """The Keras layers this loss holds; `EmbeddingModel` tracks, trains and saves them."""
        return ()

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_true = distributed.ids_of_trial(y_true)
        group = distributed.current()
        with keras.name_scope(self.name):
            if group is not None:
                return self._with_others(group, y_true, y_pred, sample_weight)
            parts = self._parts(y_true, y_pred)
            report_active(parts)
            return reduce_rows(parts, self.reduction, sample_weight, self.name, self.dtype)

    def call(self, y_true, y_pred):
        """Row means `(batch,)`, before any reduction."""
        return reduce_rows(self._parts(y_true, y_pred), "none", None, self.name, self.dtype)

    def against(self, y_true, y_pred, reference_labels, reference_embeddings, sample_weight=None):
        """The loss of anchors whose positives and negatives are other items: a reference set.

        Every anchor is compared with all references, and with nothing else. Use it in a step of
        your own for a queue of past embeddings, the other view of a batch, or a gallery; a
        thousand times as many references as anchors are fine: memory is O(batch * references).

        Args:
            y_true: integer labels of the anchors, `(batch,)`.
            y_pred: their embeddings, `(batch, dim)`.
            reference_labels: integer labels `(references,)`.
            reference_embeddings: `(references, dim)`. They get a gradient too; wrap them in
                `keras.ops.stop_gradient` where they are not to be trained.
            sample_weight: weights of the anchors, optional.

        Returns:
            The loss, reduced as in `__call__`.

        Raises:
            ValueError: for labels or embeddings of a wrong kind or shape.
        """
        references = as_tensor("reference_embeddings", reference_embeddings)
        check_matrix("reference_embeddings", references)
        with keras.name_scope(self.name):
            parts = self._parts(y_true, y_pred, references, reference_labels)
            report_active(parts)
            return reduce_rows(parts, self.reduction, sample_weight, self.name, self.dtype)

    def batch_parts(self, labels, embeddings, references=None, reference_labels=None):
        """Parts of a labelled batch: `labels` (batch,), `embeddings` (batch, dim).

        Of losses that take them, `labels` may also be of 0 and 1, (batch, classes).
        With `references` (references, dim) and their labels, partners come from these alone.
        """
        raise ValueError(
            f"{type(self).__name__} needs ready-made tuples: `y_pred` of shape "
            "(batch, branches, dim). Received embeddings of shape (batch, dim)."
        )

    def tuple_parts(self, y_true, branches):
        """Parts of ready-made tuples: `branches` is a list of (batch, dim) tensors."""
        raise ValueError(
            f"{type(self).__name__} needs a labelled batch: `y_pred` of shape (batch, dim) and "
            f"integer labels. Received {len(branches)} branches."
        )

    def _with_others(self, group, y_true, y_pred, sample_weight):
        """This replica's share of the loss of the batch of all replicas; the shares sum up to it.

        Every replica has all rows in the end and reduces them alike, which is right for unequal
        shares and any reduction. Through the gathering each of them gets the gradients of its own
        items, and of what it did for others.
        """
        labels, embeddings = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if self._sees_batch() or len(embeddings.shape) == 3:
            parts = self._parts(group.gather(labels), group.gather(embeddings))
        else:
            with summed_over_replicas(group, counts=ops.shape(embeddings)[0] > 0):
                mine = self._parts(labels, embeddings)
            parts = [_rows_of_all(group, part) for part in mine]
        if sample_weight is not None:
            weight = row_weights(sample_weight)
            sample_weight = group.gather(weight) if len(weight.shape) else weight
        report_active(parts)
        value = reduce_rows(parts, self.reduction, sample_weight, self.name, self.dtype)
        if self.reduction in ("none", None):
            return ops.take(value, group.places(embeddings), axis=0)
        # Keras divides a mean by the number of replicas, and leaves a sum as it is.
        return value / group.number if self.reduction == "sum" else value

    def _parts(self, y_true, y_pred, *references):
        embeddings = as_tensor("y_pred", y_pred)
        parts = self._sound_parts(y_true, embeddings, *references)
        # Mining compares, and a comparison with NaN is quietly false: a broken encoder must show.
        sound = ops.all(ops.isfinite(embeddings))
        if references:
            sound = ops.logical_and(sound, ops.all(ops.isfinite(references[0])))
        for number in self._numbers_of_invalid_ids(y_true, embeddings, *references[1:]):
            sound = ops.logical_and(sound, ops.equal(number, 0))
        nan = float("nan")
        return [part._replace(total=ops.where(sound, part.total, nan)) for part in parts]

    def _numbers_of_invalid_ids(self, y_true, embeddings, *reference_labels):
        """Number of invalid float ids in each of the labels that a traced step could not check."""
        rank = len(embeddings.shape)
        if self.labels != "ids" or (rank == 3 and not self.reads_ids(embeddings.shape[1])):
            return []
        numbers = [self._invalid_ids(labels) for labels in (y_true, *reference_labels)]
        numbers = [number for number in numbers if number is not None]
        group = distributed.current()
        gathered = group is not None and (self._sees_batch() or rank == 3)
        for i, number in enumerate(numbers):
            # Losses of known classes report such an id as one that is no class.
            if getattr(self, "num_classes", None) is None:
                report_strange_ids(self, number / group.number if gathered else number)
            if group is not None and not gathered:
                numbers[i] = group.total(number)
        return numbers

    def _invalid_ids(self, labels):
        return invalid_ids(labels)

    def _check_layers(self, dim=None):
        """Raise unless the layers are built; `dim` is the length of an embedding, if known."""
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

    def _sound_parts(self, y_true, embeddings, references=None, reference_labels=None):
        self._check_layers(embeddings.shape[-1] if len(embeddings.shape) > 1 else None)
        if y_true is not None:
            check_not_swapped(y_true, embeddings)
        dtype = keras.backend.standardize_dtype(embeddings.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                "Embeddings must be floating point. "
                f"Received: y_pred.dtype={dtype}. The call is loss(labels, embeddings)."
            )
        # Distances of half-precision vectors are taken in float32: their squares overflow.
        dtype = distances.at_least_float32(dtype)
        embeddings = ops.cast(embeddings, dtype)
        shape = tuple(embeddings.shape)
        if y_true is None and (self.label_free or (len(shape) == 3 and self.y_of_pairs is None)):
            # Each item is a class of its own, as a model has it that is given no y.
            y_true = ops.arange(ops.shape(embeddings)[0], dtype="int32")
        if 0 in shape and distributed.current() is None:
            raise ValueError(
                f"`y_pred` must hold at least one embedding. Received: y_pred.shape={shape}. Leave "
                "empty batches out: tf.data's batch(..., drop_remainder=True) makes none."
            )
        if len(shape) == 3 and references is None:
            self._check_no_memory()
            return self.tuple_parts(y_true, [embeddings[:, i] for i in range(shape[1])])
        if len(shape) != 2:
            raise ValueError(
                "Expected embeddings of shape (batch, dim), or (batch, branches, dim) for "
                f"ready-made tuples. Received: y_pred.shape={shape}"
            )
        labels = self._checked_labels(y_true, "y_true")
        check_one_each(labels, embeddings, "y_true", "y_pred")
        if references is not None:
            reference_labels = self._checked_labels(reference_labels, "reference_labels")
            check_one_each(reference_labels, references, "reference_labels", "reference_embeddings")
            return self.batch_parts(
                labels, embeddings, ops.cast(references, dtype), reference_labels
            )
        group = distributed.current()
        group = None if self.rows_see == "item" or self._sees_batch() else group
        if group is not None:
            return self._parts_among_all(group, labels, embeddings)
        if self.memory is not None:
            return self.batch_parts(labels, embeddings, *self._remembered(labels, embeddings))
        self._note_positives(labels, y_true)
        return self.batch_parts(labels, embeddings)

    def _parts_among_all(self, group, labels, embeddings):
        """Parts of this replica's items, compared with the items of all replicas."""
        everyone = group.gather(labels), group.gather(embeddings)
        places = group.places(labels)
        # A loop over blocks of rows needs at least one row. A replica without items computes the
        # row of the first item of the whole batch, and drops it again.
        rows = ops.shape(labels)[0]
        missing = 1 - ops.minimum(rows, 1)
        labels = ops.concatenate([labels, everyone[0][:missing]])
        embeddings = ops.concatenate([embeddings, ops.stop_gradient(everyone[1][:missing])])
        places = ops.concatenate([places, ops.zeros((missing,), dtype="int32")])
        if self.memory is not None:
            queue, held = self._remembered(*everyone)
            held = held._replace(own=ops.take(held.own, places))
            parts = self.batch_parts(labels, embeddings, queue, held)
        else:
            self._note_positives(everyone[0])
            placed = class_pairs.Placed(everyone[0], places)
            parts = self.batch_parts(labels, embeddings, everyone[1], placed)
        return [Rows(*(number[:rows] for number in part)) for part in parts]

    def _sees_batch(self):
        return self.rows_see == "batch" or any(getattr(m, "sees_batch", False) for m in self.layers)

    def _remembered(self, labels, embeddings):
        """The batch and what the memory holds, as references; the model keeps the new state."""
        queue, state = self.memory.extended(labels, embeddings)
        for variable, value in state:
            keep(variable, value)
        return queue

    def _check_no_memory(self):
        if self.memory is not None:
            raise ValueError(
                f"{self.name} has a memory, which keeps class ids from batch to batch: it needs "
                "labelled batches, embeddings (batch, dim). Received ready-made tuples or views."
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
            checked_ids(labels, "y", self._takes_multi_hot())

    def _takes_multi_hot(self):
        return "labels" in inspect.signature(type(self).__init__).parameters

    def _checked_labels(self, labels, name):
        if self.labels == "multi_hot":
            return multi_hot(labels, name)
        return class_ids(labels, name, self._takes_multi_hot())

    def _note_positives(self, labels, y_true=None):
        """Report whether the batch has a positive pair; warn where `y_true` is a NumPy array."""
        if not self.needs_positives or self.label_free:
            return
        report_positives(self, labels)
        # Only labels that are still NumPy's can be looked at without stopping the device.
        if self._told_no_positives or self.labels == "multi_hot":
            return
        if y_true is None or ops.is_tensor(y_true):
            return
        ids = as_array("y_true", y_true).ravel()
        if len(ids) and len(np.unique(ids)) == len(ids):
            self._told_no_positives = True
            warnings.warn(
                f"{self.name}: no two items of a batch of {len(ids)} share a label, so no "
                "anchor has a positive. Use keras_metric.data.BalancedBatches, which puts "
                "samples_per_class items of each class into a batch.",
                stacklevel=3,
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


def scores_of_pairs(y_true, branch):
    """What y says of ready-made pairs: a number for each row of `branch`, `(batch,)`."""
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


def measured_pairs(labels, embeddings, metric, references=None, reference_labels=None):
    """Distances of a batch to itself, or to references, and its `Pairs`; tells an open `watch`."""
    partners = class_pairs.from_labels(labels, reference_labels)
    distance = distances.pairwise(embeddings, references, metric=metric)
    report(distance, distance, partners.positive, partners.negative)
    return distance, partners


def _rows_of_all(group, rows):
    """`Rows` of all replicas from those of one."""
    return Rows(*ops.unstack(group.gather(ops.stack(rows, axis=1)), 3, axis=1))
