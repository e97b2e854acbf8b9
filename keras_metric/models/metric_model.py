"""MetricModel: what the models share, how they train with a loss on embeddings."""

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
from keras_metric.losses.running_state import listening
from keras_metric.losses.train_reports import watch
from keras_metric.losses.weighted_sum import terms_of
from keras_metric.models import branches, gradient_caching
from keras_metric.models.backbone_inspection import inputs_of_shape
from keras_metric.models.epoch_resume import EpochResume
from keras_metric.models.loss_layers import LossLayers, random_states
from keras_metric.models.suitable_losses import check_loss, check_target
from keras_metric.models.train_health import TrainHealth

_RANDOM_STATES = "random_states"
_FROZEN = "frozen_loss_layers"


class MetricModel(keras.Model):
    """Base of the models: tracks what the loss owns, and hands it batches or tuples.

    A subclass builds its encoders, calls `compile_default` at the end of its constructor, and
    defines `call`, `towers` (what embeds the two sides of a comparison), `embedding_dim`, `forms`
    (names of ready-made tuples) and `_default_loss`.
    """

    forms: tuple[tuple[str, ...], ...] = ()
    # Whether a tuple or list of as many parts as the first form has names is branches.
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
            # `fit` asks this before it chooses to compile.
            self.supports_jit = False
        self.train_health = train_health
        self.health = TrainHealth() if train_health else None

    def __call__(self, *args, **kwargs):
        # As in the encoder: the first call builds, without Keras's guess at it.
        if not self.built:
            self.build()
        return super().__call__(*args, **kwargs)

    def build(self, input_shape=None):
        if input_shape is not None and not all(tower.built for tower in self.towers):
            self(inputs_of_shape(input_shape))
        self.built = True

    def compile_default(self):
        """Compile with Adam and the model's own loss, so that `fit` works at once."""
        # `compile` gives the layers of the loss to this one. Made here, its weights come last.
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
        # Keras assigns None while it sets the model up, and the loss in every `compile` that
        # names one, also in the `compile` of `load_model`, which reads the weights after it.
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
        with self._checked_batches():
            # What the last epoch had; Keras resets metrics only when the next one begins.
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
        return super().train_on_batch(x, y, sample_weight, class_weight, *args, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, *args, **kwargs):
        self._check_data(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, *args, **kwargs)

    def save(self, filepath, *args, **kwargs):
        check_not_hdf5(filepath)
        super().save(filepath, *args, **kwargs)

    def embed(self, encoder, x, training):
        """Embeddings of `x`, `chunk_size` items at a time."""
        # An encoder without weights yet has to see a batch first, and that is a trial.
        if self.chunk_size is None or encoder.width is None or not training:
            return encoder(x, training=training)
        return gradient_caching.embed(encoder, x, self.chunk_size, training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        branches.check_sample_weight(x, sample_weight)
        if y is None:
            self._check_without_y(y_pred)
            # Tuples carry their own supervision; Keras insists on a target. To losses that read
            # the branches as views, each item is a class of its own.
            group = distributed.current()
            alone = group is None
            y = ops.arange(ops.shape(y_pred)[0], dtype="int32") if alone else group.places(y_pred)
        check_target(self.loss, y, y_pred, self)
        # Evaluation may mine at random, and must not change what training draws after it.
        states = [] if training else random_states(self.loss_layers)
        drawn = [ops.copy(ops.convert_to_tensor(state)) for state in states]
        watched = contextlib.nullcontext() if self.health is None else watch()
        with listening() as told, watched as seen:
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if self.health is not None:
            self.health.update(seen, y_pred)
        self.loss_layers.guard.update(told.strange_ids)
        self.loss_layers.warnings.update(told.positives, y_pred, training)
        if training:
            for variable, value in told.kept:
                variable.assign(value)
        for state, value in zip(states, drawn):
            state.assign(value)
        return loss

    def distance(self, a, b, metric=None, batch_size=32):
        """Distances between the items of `a` and the items of `b`, one by one.

        Args:
            a: a batch of inputs, as for `predict` of the (first) encoder.
            b: as many inputs as `a`; or one, or one in `a`, to be measured against all others.
            metric: name of a metric of `keras_metric.distances`, or a `layers.Mahalanobis`. Default
                None: the one that the loss uses, of several losses the first that has one,
                "euclidean" if none has.
            batch_size: how many inputs the encoder sees at once. Default 32.

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
        self.loss_layers.guard.look(self.loss, x, y, tuples)

    @contextlib.contextmanager
    def _checked_batches(self):
        """Check the batches of the block at its end; forget them where an exception ends it."""
        try:
            yield
        except BaseException:
            super().reset_metrics()
            raise
        self._check_batches()

    def _check_batches(self):
        """Warn or raise for what the batches since the last reset had."""
        self.loss_layers.warnings.warn()
        self.loss_layers.guard.check()

    def get_metrics_result(self):
        results = super().get_metrics_result()
        # A number that the loss never reports would stand in the logs as 0.
        silent = {self.loss_layers.guard.strange.name, self.loss_layers.warnings.sums.name}
        if self.health is not None:
            silent |= self.health.silent()
        return {name: value for name, value in results.items() if name not in silent}

    def save_own_variables(self, store):
        super().save_own_variables(store)
        states = random_states(self)
        if states:
            # Keras leaves them out. Dropout and miners of a model that goes on training would
            # draw again what they drew in the beginning.
            store[_RANDOM_STATES] = np.stack(
                [ops.convert_to_numpy(state.value).astype("int64") for state in states]
            )

    def load_own_variables(self, store):
        own = {key: store[key] for key in list(store.keys())}
        drawn = own.pop(_RANDOM_STATES, ())
        super().load_own_variables(own)
        states = random_states(self)
        # Files of an earlier version have none; those of a changed model have others.
        if len(drawn) == len(states):
            for state, value in zip(states, np.asarray(drawn)):
                state.assign(value.astype(state.dtype))

    def get_compile_config(self):
        config = super().get_compile_config()
        # After `compile(optimizer)` Keras goes on with the loss it has, but does not save it.
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
        # As Keras does it; but its optimizer must not be built for weights that are frozen.
        self.compile(**keras.saving.deserialize_keras_object(config))
        for place in frozen:
            self.loss_layers.held[place].trainable = False
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def get_config(self):
        own = {"train_health": self.train_health, "chunk_size": self.chunk_size}
        return {**super().get_config(), **own}

    def _loss_metric(self):
        metrics = (getattr(term, "distance", None) for term in terms_of(self.loss))
        known = (m for m in metrics if isinstance(m, str) or distances.layers_of(m))
        return next(known, "euclidean")

    def _check_label_free(self):
        if not all(getattr(t, "label_free", False) for t in keras.tree.flatten(self.loss)):
            raise ValueError(
                "A batch of inputs needs integer class ids: fit(x, y), or a data set of "
                "(inputs, labels). Received no y. Ready-made tuples go without: "
                f"{branches.listing(self.forms)}."
            )

    def _check_without_y(self, y_pred):
        if len(y_pred.shape) == 2:
            self._check_label_free()
        for term in keras.tree.flatten(self.loss):
            meaning = getattr(term, "y_of_pairs", None)
            if y_pred.shape[1] == 2 and meaning:
                raise ValueError(
                    f"Pairs need y: {meaning}. Received no y. Write "
                    'fit({"first": a, "second": b}, y), or let the data set yield '
                    '({"first": a, "second": b}, y).'
                )


def _of_epoch_batches(x, call):
    """Arguments of `fit` after x and y: batches in their own order, and a callback that leads them.

    Keras would mix the batches by a generator of the whole process, and a run that goes on later
    would see another order.
    """
    callback = EpochResume(x, call.get("initial_epoch", 0))
    given = call.get("callbacks")
    if isinstance(given, keras.callbacks.CallbackList):
        given.callbacks.append(callback)
    else:
        given = [*keras.tree.flatten(given if given is not None else []), callback]
    call = {name: value for name, value in call.items() if name not in ("self", "x", "y")}
    return (), {"shuffle": False, **call, "callbacks": given}
