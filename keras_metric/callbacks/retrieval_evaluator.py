"""Callback that evaluates retrieval metrics during training."""

import re
import sys
import warnings

import keras
import numpy as np

from keras_metric import distributed
from keras_metric._validation import as_path, check_choice, check_count, check_flag
from keras_metric.callbacks._labelled_data import LabelledData
from keras_metric.callbacks._named_evaluations import as_evaluations, check_labels
from keras_metric.callbacks._tensorboard_log import TensorBoardLog, check_plots
from keras_metric.evaluation import retrieval_metrics
from keras_metric.neighbors import METRICS
from keras_metric.viz._pixels import channels_last
from keras_metric.viz._plot_inputs import check_length
from keras_metric.viz._plot_style import check_class_names, readable
from keras_metric.viz.write_projector import PROJECTOR_NAME

_UNLOGGED = ("num_", "excluded_", "cmc_at_")


class RetrievalEvaluator(keras.callbacks.Callback):
    """Evaluates retrieval metrics at the end of an epoch and writes them to logs and TensorBoard.

    A metric-learning loss does not measure the quality of the embeddings; retrieval does. The
    callback embeds the data with `model.encoder` (or the model itself without one; for a
    `TwoTowerModel` the queries with the first encoder and the gallery with the second), calls
    `evaluation.retrieval_metrics`, and writes every average into `logs` as `val_recall_at_1`,
    `val_map_at_r` and so on. They are in the History, and callbacks that are listed AFTER this one
    can use them; set their mode to "max":

    `EarlyStopping("val_recall_at_1", mode="max", patience=5)`

    Counts and `cmc_at_k`, which is equal to recall, are not written. With `sets`, such as classes
    with and without training data, the names are `val_seen_recall_at_1` and so on; `measures` adds
    other evaluations.

    The model is not changed. `history` is a dict of lists: "epoch", the number of finished epochs
    (0 is the untrained model), and one list for each metric, counts included.

    With `log_dir` TensorBoard shows the curves over the number of finished epochs and, under
    Projector, the embeddings of the last evaluation with labels and thumbnails, named `name`;
    with `at_start` also those of the first one, named `name` + `_start`. Non-finite embeddings
    give NaN and a warning, so that `TerminateOnNaN` stops the training.

    Args:
        x: Array or dict of arrays; or a `tf.data.Dataset`, `PyDataset` or other finite iterable
            of `(x, labels)` batches, with `y=None`. None if there are `sets`.
        y: Labels `(items,)`, of any kind, preferably of classes that are not trained on.
        gallery: None for leave-one-out among `x`; or `(x, y)` or a source of batches, in which the
            queries are searched.
        name: Prefix of the names in `logs`. With `log_dir` it is also part of file names: letters,
            digits, ".", "_" and "-", as the names of `sets`.
        k: Cut-offs of recall and precision.
        metric: See `evaluation.retrieval_metrics`.
        every: Evaluate after each `every`-th epoch. With more than 1, the logs of the other epochs
            have no metrics.
        at_start: Also evaluate before the first epoch, as a baseline. A run that resumes, with
            `initial_epoch` or by `BackupAndRestore`, keeps the projection of the untrained model.
        batch_size: Number of rows at a time, for arrays; as in `predict`.
        log_dir: Folder for TensorBoard, or None. Needs the package `tensorboard`.
        images: Images of the items for the thumbnails; by default `x`, if it has the shape of
            images (nearly square; 1, 3 or 4 channels). False for none.
        class_names: Optional list or dict from a label to its name.
        max_points: Points in the projector, see `viz.write_projector`.
        plots: With `log_dir`, True or a list of names also writes plots of `viz`, under Images:
            "confusions", "distance_history" (of the evaluations so far), "distances", "similarity"
            and, if there are images, "hardest_pairs", "label_errors" and "neighbors". All of them
            take some seconds each time; False (default) for none. A plot that cannot be computed,
            such as distances of items without a common class, gives a warning. Plots compare the
            items of `x`, without the gallery, by cosine or Euclidean distance.
        sets: None, or a dict from a name to `(x, y)` or to a source of batches: several sets, each
            evaluated separately (in the gallery, if there is one).
        measures: Names among "retrieval" (default), "clustering", "few_shot", "geometry",
            "identification" (needs a gallery) and "verification" (of the pairs of
            `evaluation.pair_distances`), or functions `(embeddings, labels)` that return a dict of
            floats; with a gallery, `(embeddings, labels, gallery_embeddings, gallery_labels)`.
            Clustering, few-shot, geometry and verification evaluate the items of `x` without the
            gallery; the first three are Euclidean. Pass a function for other settings:
            `lambda x, y: few_shot_accuracy(x, y, ways=20)`.

    Under `tf.distribute.MultiWorkerMirroredStrategy` only the chief evaluates, without the
    strategy, so that no worker waits for another; the logs of the others lack these metrics.

    Raises:
        TypeError: An argument of another type.
        ValueError: Arrays of unequal length or without labels, labels for which a measure cannot be
            computed, or an infinite source.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_metric.callbacks import RetrievalEvaluator
        >>> x, y = np.eye(6, dtype="float32"), np.arange(6) // 2
        >>> model = keras.Sequential([keras.layers.Dense(4)])
        >>> model.compile("sgd", "mse")
        >>> evaluator = RetrievalEvaluator(x, y, k=(1, 5))
        >>> history = model.fit(x, np.zeros((6, 4)), callbacks=[evaluator], verbose=0)
        >>> history.history["val_recall_at_5"]
        [1.0]
    """

    def __init__(
        self,
        x=None,
        y=None,
        gallery=None,
        name="val",
        k=(1, 5, 10),
        metric="euclidean",
        every=1,
        at_start=False,
        batch_size=32,
        log_dir=None,
        images=None,
        class_names=None,
        max_points=10_000,
        plots=False,
        sets=None,
        measures=("retrieval",),
    ):
        super().__init__()
        check_count("every", every)
        check_count("batch_size", batch_size)
        check_count("max_points", max_points)
        check_flag("at_start", at_start)
        plots = check_plots(plots)
        # Check cut-offs, metric and labels now, not at the end of the first epoch.
        check_choice("metric", metric, METRICS)
        names = retrieval_metrics(np.zeros((1, 1)), [0], k=k, metric=metric)
        if isinstance(measures, str) or callable(measures):
            measures = [measures]
        self.measures = as_evaluations(measures, gallery is not None)
        # The names of results that are NaN if the encoder diverges.
        self.metric_names = set(names) if "retrieval" in measures else set()
        self.sets = _as_sets(x, y, sets, batch_size)
        self.gallery = None
        if gallery is not None:
            self.gallery = LabelledData.of("gallery", gallery, batch_size)
        for source in self.sets.values():
            check_labels(measures, source, self.gallery, k, metric)
        self.name, self.k, self.metric = name, k, metric
        self.every, self.at_start = every, at_start
        if images is not None and images is not False:
            checked = channels_last(images)
            for source in self.sets.values():
                if source.y is not None:
                    check_length("images", checked, len(source.y), f"items of `{source.name}`")
        _check_names(name, self.sets, log_dir, at_start)
        check_class_names(class_names)
        self.images, self.log_dir, self.tensorboard = images, log_dir, None
        if log_dir is not None:
            as_path("log_dir", log_dir)
            for source in self.sets.values() if class_names is not None else ():
                for label in set(np.asarray([] if source.y is None else source.y).ravel().tolist()):
                    readable(label, class_names)
            self.tensorboard = TensorBoardLog(log_dir, class_names, max_points, plots, metric)
        self.history = {}

    def on_train_begin(self, logs=None):
        self.history = {}
        if self.tensorboard is not None:
            self.tensorboard.close()  # An interrupted fit did not close it.

    def on_epoch_begin(self, epoch, logs=None):
        if self.at_start and not self.history:
            # A resumed run keeps the projection of the untrained model.
            self._evaluate(epoch, "" if epoch else "_start")

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            metrics = self._evaluate(epoch + 1)
            if logs is not None:
                logs.update(metrics)

    def on_train_end(self, logs=None):
        if self.tensorboard is not None:
            self.tensorboard.close()

    def _evaluate(self, epoch, suffix=""):
        encoder = getattr(self.model, "encoder", self.model)
        # Of two towers, the first embeds the queries and the second the gallery.
        encoder, second = getattr(self.model, "towers", (encoder, encoder))
        if not distributed.is_chief(encoder):
            return {}
        gallery = ()
        if self.gallery is not None:
            gallery = self.gallery.embed(second, False)[:2]
        self.history.setdefault("epoch", []).append(epoch)
        metrics, written = {}, []
        for name, source in self.sets.items():
            metrics |= self._evaluate_set(epoch, encoder, name, source, gallery, suffix, written)
        files = ""
        if self.tensorboard is not None:
            self.tensorboard.write_scalars(metrics, epoch)
            files = f"; {' and '.join(['scalars', *written])} to {self.log_dir}"
        self._report(epoch, metrics, files)
        return metrics

    def _evaluate_set(self, epoch, encoder, name, source, gallery, suffix, written):
        with_images = self.tensorboard is not None and self.images is None
        embeddings, labels, images = source.embed(encoder, with_images)
        prefix = "_".join(filter(None, [self.name, name]))
        if all(np.isfinite(part).all() for part in (embeddings, *gallery[:1])):
            result = {}
            for measure in self.measures:
                result |= measure(embeddings, labels, *gallery, k=self.k, metric=self.metric)
            self.metric_names |= set(result)
            if self.tensorboard is not None:
                if self.images is not None:
                    images = None if self.images is False else self.images
                written_name = prefix + suffix
                self.tensorboard.write_embeddings(written_name, embeddings, labels, images, epoch)
                written.append(f"projector {written_name!r}")
        else:
            result = dict.fromkeys(sorted(self.metric_names), float("nan"))
            warnings.warn(
                f"RetrievalEvaluator: after epoch {epoch} the encoder returns NaN or infinity; "
                f"the metrics {prefix}_... are NaN.",
                stacklevel=2,
            )
        for key, value in result.items():
            # A measure may omit a name in some epochs; fill its list to the length of "epoch".
            values = self.history.setdefault(f"{name}_{key}" if name else key, [])
            values += [float("nan")] * (len(self.history["epoch"]) - 1 - len(values)) + [value]
        return {f"{prefix}_{key}": result[key] for key in result if not key.startswith(_UNLOGGED)}

    def _report(self, epoch, metrics, written):
        # The progress bar shows the logs of epochs, but neither files nor the first evaluation.
        not_shown = written or (epoch == 0 and self.at_start)
        verbose = (self.params or {}).get("verbose")  # None in a custom training loop
        if not_shown and verbose and keras.config.is_interactive_logging_enabled():
            # There are no metrics if the encoder returns NaN from the start.
            first = "".join(f"{key}={value:.4f}" for key, value in list(metrics.items())[:1])
            sys.stdout.write(f"\nRetrievalEvaluator: epoch {epoch}: {first}{written}\n")


def _check_names(name, sets, log_dir, at_start):
    """Raise unless the names are valid in logs and, with `log_dir`, in file names."""
    for part in (name, *filter(None, sets)):
        if not isinstance(part, str) or not part:
            raise TypeError(
                f"`name` and the names of `sets` must be non-empty strings. Received: {part!r}"
            )
        if log_dir is not None and not re.fullmatch(PROJECTOR_NAME, part, re.ASCII):
            raise ValueError(
                "With `log_dir`, `name` and the names of `sets` must be letters, digits, '.', '_' "
                f"and '-'. Received: {part!r}"
            )
    written = ["_".join(filter(None, [name, part])) for part in sets]
    written += [f"{part}_start" for part in written if at_start]
    if len(set(written)) < len(written):
        raise ValueError(
            "`sets` must have unique names in TensorBoard, where the first evaluation of a set is "
            f"its name and '_start'. Received: {sorted(sets)}"
        )


def _as_sets(x, y, sets, batch_size):
    """Return a dict from a name, empty for that of `x` and `y`, to its `LabelledData`."""
    if (x is None) == (sets is None):
        raise ValueError(
            "RetrievalEvaluator needs either `x` (and `y`) or `sets`. "
            f"Received: {'neither' if x is None else 'both'}."
        )
    if sets is None:
        return {"": LabelledData("x", x, y, batch_size)}
    if not isinstance(sets, dict) or not sets or y is not None:
        raise ValueError(
            '`sets` must be a dict such as {"seen": (x, y), "unseen": (x, y)}, without `y`. '
            f"Received: sets of type {type(sets).__name__}, y={'None' if y is None else 'given'}"
        )
    return {
        name: LabelledData.of(f"sets[{name!r}]", part, batch_size) for name, part in sets.items()
    }
