"""MetricModel: base class of the models, which train with a loss on embeddings."""

import contextlib
import inspect

import keras
import numpy as np
from keras import ops

from keras_metric import distances, distributed
from keras_metric._validation import (
    check_arrays,
    check_count,
    check_flag,
    check_not_empty,
    check_not_hdf5,
    check_not_strings,
)
from keras_metric.data.batches.epoch_batches import EpochBatches
from keras_metric.losses import MetricLoss, StepReports
from keras_metric.models import branches, gradient_caching
from keras_metric.models.backbone_inspection import inputs_of_shape
from keras_metric.models.loss_layers import LossLayers, random_states
from keras_metric.models.suitable_losses import check_loss, check_target, losses_in
from keras_metric.models.train_health import TrainHealth

_RANDOM_STATES = "random_states"
_FROZEN = "frozen_loss_layers"


class MetricModel(keras.Model):
    """Base of the models: tracks the layers of the loss, and accepts batches or tuples.

    A subclass builds its encoders, calls `compile_default` at the end of its constructor, and
    defines `call`, `towers` (the encoders of the two sides of a comparison), `embedding_dim`,
    `forms` (names of ready-made tuples) and `_default_loss`.
    """

    forms: tuple[tuple[str, ...], ...] = ()
    # Whether a tuple or list with as many parts as the first form has names is ready-made tuples.
    takes_tuples = True
    # Whether a labelled batch (inputs, class ids) is an input as well.
    takes_batches = True
    # Whether losses of Keras that compare y_pred with a target vector or classes are accepted.
    takes_targets = False

    def __init__(self, train_health=False, chunk_size=None, **kwargs):
        super().__init__(**kwargs)
        check_flag("train_health", train_health)
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
        self.chunk_size = chunk_size
        if chunk_size is not None and gradient_caching.is_slow_when_compiled():
            # `fit` reads this attribute before it decides to compile.
            self.supports_jit = False
        self.train_health = train_health
        self.health = TrainHealth() if train_health else None
        # Whether the processes that train together have equal weights.
        self._weights_are_shared = False

    def __call__(self, *args, **kwargs):
        # As in the encoder: the first call builds the model, not Keras's automatic build.
        if not self.built:
            self.build()
        return super().__call__(*args, **kwargs)

    def build(self, input_shape=None):
        if input_shape is not None and not all(tower.built for tower in self.towers):
            self(inputs_of_shape(input_shape))
        self.built = True

    def compile_default(self):
        """Compile with Adam and the model's default loss, so that `fit` works without `compile`."""
        # Holds the layers of the loss. Created after the encoders, so that its weights are last.
        self.loss_layers = LossLayers()
        self.compile(optimizer=keras.optimizers.Adam(1e-3), loss=self._default_loss())

    @property
    def numbers_of_branches(self):
        """Numbers of branches of the inputs that the model takes; 1 for a labelled batch."""
        return {len(form) for form in self.forms} | ({1} if self.takes_batches else set())

    def _default_loss(self):
        raise NotImplementedError(f"{type(self).__name__} must define _default_loss.")

    @property
    def loss(self):
        """The loss in force, set by `compile(loss=...)`."""
        return self._metric_loss

    @loss.setter
    def loss(self, loss):
        # Keras assigns None in its constructor, and the loss in every `compile` with a loss, also
        # in that of `load_model`, which reads the weights after it.
        if isinstance(loss, (list, tuple)) and len(loss) > 1:
            raise ValueError(
                "A model with one output takes one loss; Keras would drop all but the first. "
                f"Received: a list of {len(loss)}. Use losses.WeightedSum([(weight, loss), ...])."
            )
        if isinstance(loss, dict):
            raise ValueError(
                "A model with one output takes one loss, not a dict of losses. Received: a dict "
                f"with the keys {sorted(map(str, loss))}. Use losses.WeightedSum([(weight, loss), "
                "...]) for several."
            )
        if loss is not None:
            check_loss(loss, self)
            self.loss_layers.hold(loss, self.embedding_dim)
        self._metric_loss = loss

    def fit(self, x=None, y=None, *args, **kwargs):
        call = inspect.signature(keras.Model.fit).bind(None, x, y, *args, **kwargs).arguments
        self._check_data(x, y, call.get("sample_weight"), call.get("class_weight"))
        held_out = call.get("validation_data")
        held_out = tuple(held_out) if isinstance(held_out, (list, tuple)) else (held_out,)
        if len(held_out) <= 3:
            self._check_data(*held_out)
        if isinstance(x, EpochBatches):
            args, kwargs = _of_epoch_batches(x, call)
        self._weights_are_shared = False
        with self._checked_batches(), distributed.averaged_gradients(self):
            return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        call = inspect.signature(keras.Model.evaluate).bind(None, x, y, *args, **kwargs).arguments
        self._check_data(x, y, call.get("sample_weight"))
        with self._checked_batches():
            return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        check_not_empty("x", x)
        return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, *args, **kwargs):
        self._check_data(x, y, sample_weight, class_weight)
        with distributed.averaged_gradients(self):
            return super().train_on_batch(x, y, sample_weight, class_weight, *args, **kwargs)

    def make_train_function(self, force=False):
        # Keras calls this after it has built the model, and before the first step.
        if not self._weights_are_shared:
            self._weights_are_shared = True
            distributed.share_weights(self)
        return super().make_train_function(force)

    def test_on_batch(self, x, y=None, sample_weight=None, *args, **kwargs):
        self._check_data(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, *args, **kwargs)

    def save(self, filepath, *args, **kwargs):
        check_not_hdf5(filepath)
        super().save(filepath, *args, **kwargs)

    def embed(self, encoder, x, training):
        """Embeddings of `x`, `chunk_size` items at a time."""
        # An encoder without weights is built by a first batch, without training.
        if self.chunk_size is None or encoder.width is None or not training:
            return encoder(x, training=training)
        return gradient_caching.embed(encoder, x, self.chunk_size, training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        branches.check_sample_weight(x, sample_weight)
        if y is None:
            self._check_without_y(y_pred)
            # Keras requires a target, which ready-made tuples do not have. For losses that read
            # the branches as views, each item is a class of its own.
            group = distributed.current()
            number = ops.shape(y_pred)[0]
            y = ops.arange(number, dtype="int32") if group is None else group.positions(y_pred)
        check_target(self.loss, y, y_pred, self)
        # Evaluation may mine at random, and must not change the random numbers of later training.
        states = [] if training else random_states(self.loss_layers)
        before = [ops.copy(ops.convert_to_tensor(state)) for state in states]
        with StepReports(self.health is not None, training=training) as reports:
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if self.health is not None:
            self.health.update(reports.statistics, y_pred)
        self.loss_layers.guard.update(reports.invalid_ids)
        self.loss_layers.warnings.update(reports.positives, y_pred, training)
        if training:
            for variable, value in reports.updates:
                variable.assign(value)
        for state, value in zip(states, before):
            state.assign(value)
        return loss

    def distance(self, a, b, metric=None, batch_size=32):
        """Distances between the items of `a` and the items of `b`, one by one.

        Args:
            a: a batch of inputs, as for `predict` of the (first) encoder.
            b: as many inputs as `a`. If `a` or `b` has one input, it is compared with all inputs of
                the other.
            metric: name of a metric of `keras_metric.distances`, or a `layers.Mahalanobis`. Default
                None: the metric of the loss; of a sum of losses, of the first that has one;
                "euclidean" if none has one.
            batch_size: number of inputs of a batch of the encoder. Default 32.

        Returns:
            NumPy array `(batch,)`. Smaller is closer.

        Raises:
            ValueError: for an unknown metric, or another number of items in `a` and `b`.
        """
        if metric is None:
            metric = self._loss_metric()
        distances.check_metric("metric", metric)
        a, b = (
            tower.predict(x, batch_size=batch_size, verbose=0)
            for tower, x in zip(self.towers, (a, b))
        )
        if len(a) != len(b) and 1 not in (len(a), len(b)):
            raise ValueError(
                "`a` and `b` must have the same number of items, or one of them a single item. "
                f"Received: len(a)={len(a)}, len(b)={len(b)}. For all against all: "
                "keras_metric.distances.pairwise(encoder.predict(a), encoder.predict(b))."
            )
        return ops.convert_to_numpy(distances.elementwise(a, b, metric))

    def reset_metrics(self):
        self._check_batches()
        super().reset_metrics()

    def _check_data(self, x, y=None, sample_weight=None, class_weight=None):
        """Raise for arrays that cannot train or be evaluated, before the first batch.

        Keras fails on some of them with errors that do not name them. A compiled step cannot raise
        for invalid class ids.
        """
        check_not_strings("y", y)
        for name, values in {"x": x, "y": y, "sample_weight": sample_weight}.items():
            check_arrays(name, values)
        check_not_empty("x", x)
        if y is None and self.takes_batches and hasattr(x, "dtype"):
            self._check_label_free()
        branches.check_weights(x, y, sample_weight, class_weight)
        tuples = branches.are_tuples(x, self.forms, self.takes_tuples)
        self.loss_layers.guard.check_data(self.loss, x, y, tuples)

    @contextlib.contextmanager
    def _checked_batches(self):
        """Check the batches of the block at its end; discard the counts after an exception."""
        try:
            yield
        except BaseException:
            super().reset_metrics()
            raise
        self._check_batches()

    def _check_batches(self):
        """Warn or raise for problems of the batches since the last reset."""
        self.loss_layers.warnings.warn()
        self.loss_layers.guard.check()

    def get_metrics_result(self):
        results = super().get_metrics_result()
        # A statistic that the loss does not report would be logged as 0.
        hidden = {self.loss_layers.guard.number.name, self.loss_layers.warnings.sums.name}
        if self.health is not None:
            hidden |= self.health.not_recorded()
        return {name: value for name, value in results.items() if name not in hidden}

    def save_own_variables(self, store):
        super().save_own_variables(store)
        states = random_states(self)
        if states:
            # Keras does not save them. Without them, dropout and miners of a model that continues
            # training repeat the random numbers from the start.
            store[_RANDOM_STATES] = np.stack(
                [ops.convert_to_numpy(state.value).astype("int64") for state in states]
            )

    def load_own_variables(self, store):
        own = {key: store[key] for key in list(store.keys())}
        saved = own.pop(_RANDOM_STATES, ())
        super().load_own_variables(own)
        states = random_states(self)
        # Files of an earlier version have none; those of a changed model have another number.
        if len(saved) == len(states):
            for state, value in zip(states, np.asarray(saved)):
                state.assign(value.astype(state.dtype))

    def get_compile_config(self):
        config = super().get_compile_config()
        # After `compile(optimizer)` Keras keeps the loss, but does not save it.
        if config and config.get("loss") is None:
            config["loss"] = keras.saving.serialize_keras_object(self.loss)
        frozen = self.loss_layers.frozen()
        return {**config, _FROZEN: frozen} if config and frozen else config

    def compile_from_config(self, config):
        config = dict(config)
        frozen = config.pop(_FROZEN, ())
        if not frozen:
            super().compile_from_config(config)
            return
        # As in Keras, except that the optimizer is not built for frozen weights.
        self.compile(**keras.saving.deserialize_keras_object(config))
        for position in frozen:
            self.loss_layers.held[position].trainable = False
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def get_config(self):
        own = {"train_health": self.train_health, "chunk_size": self.chunk_size}
        return {**super().get_config(), **own}

    def _loss_metric(self):
        terms = losses_in(self.loss)
        metrics = [term.distance for term in terms if isinstance(term, MetricLoss)]
        return next((metric for metric in metrics if metric is not None), "euclidean")

    def _check_label_free(self):
        losses = keras.tree.flatten(self.loss)
        if not all(isinstance(loss, MetricLoss) and loss.label_free for loss in losses):
            raise ValueError(
                "A batch of inputs needs integer class ids: fit(x, y), or a data set of "
                "(inputs, labels). Received no y. Ready-made tuples go without: "
                f"{branches.listing(self.forms)}."
            )

    def _check_without_y(self, y_pred):
        if len(y_pred.shape) == 2:
            self._check_label_free()
        for loss in keras.tree.flatten(self.loss):
            if y_pred.shape[1] == 2 and isinstance(loss, MetricLoss) and loss.y_of_pairs:
                raise ValueError(
                    f"Pairs need y: {loss.y_of_pairs}. Received no y. Write "
                    'fit({"first": a, "second": b}, y), or let the data set yield '
                    '({"first": a, "second": b}, y).'
                )


def _of_epoch_batches(x, call):
    """Arguments of `fit` after x and y: no shuffling, and a callback that aligns the epochs.

    Keras shuffles batches with a global random generator, so a resumed run would get another order.
    """
    initial_epoch, begun = call.get("initial_epoch", 0), []

    def align(epoch, logs):
        # BackupAndRestore can resume at a later epoch than `initial_epoch`, in a new process whose
        # batches start at epoch 0.
        if not begun:
            begun.append(epoch)
            x.catch_up(epoch, initial_epoch)

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=align)
    given = call.get("callbacks")
    if isinstance(given, keras.callbacks.CallbackList):
        given.callbacks.append(callback)
    else:
        given = [*keras.tree.flatten(given if given is not None else []), callback]
    call = {name: value for name, value in call.items() if name not in ("self", "x", "y")}
    return (), {"shuffle": False, **call, "callbacks": given}
