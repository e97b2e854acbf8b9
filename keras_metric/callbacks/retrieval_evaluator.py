"""RetrievalEvaluator: recall@k while a model trains."""

import re
import sys
import warnings

import keras
import numpy as np

from keras_metric import distributed
from keras_metric._validation import as_path, check_choice, check_count, check_flag
from keras_metric.callbacks._board import Board, check_pictures
from keras_metric.callbacks._measures import as_measures, check_labels
from keras_metric.callbacks._source import Source
from keras_metric.evaluation import retrieval_metrics
from keras_metric.evaluation._distances import METRICS
from keras_metric.viz._pixels import channels_last
from keras_metric.viz._style import check_class_names, readable
from keras_metric.viz.write_projector import PROJECTOR_NAME

_UNLOGGED = ("num_", "excluded_", "cmc_at_")


class RetrievalEvaluator(keras.callbacks.Callback):
    """Measures retrieval at the end of epochs, for `logs`, TensorBoard and your eyes.

    A metric loss says little about how good the embeddings are; this says it. It embeds the data
    with `model.encoder` (or the model itself, if it has none; of a `TwoTowerModel` queries with
    the first encoder, a gallery with the second), calls
    `evaluation.retrieval_metrics`, and writes every average into `logs` as `val_recall_at_1`,
    `val_map_at_r` and so on. History has them, and callbacks that stand AFTER this one in the
    list see them; tell those that more is better:

    `EarlyStopping("val_recall_at_1", mode="max", patience=5)`

    Counts and `cmc_at_k`, which repeats recall, are not written. With `sets`, such as classes that
    are trained on and classes that are not, the names become `val_seen_recall_at_1` and so on;
    `measures` asks for more than retrieval.

    The model is left as found. `history` is a dict of lists: "epoch", the number of finished
    epochs (0 is the untrained model), and one list for each metric, counts included.

    With `log_dir` TensorBoard shows the curves (at the number of finished epochs) and, under
    Projector, the embeddings of the last evaluation with labels and thumbnails, named `name`;
    with `at_start` those of the first one too, named `name` + `_start`. Embeddings that are not
    finite warn and give NaN, so that `TerminateOnNaN` can do its work.

    Args:
        x: Array or dict of arrays; or a `tf.data.Dataset`, `PyDataset` or other finite iterable
            of `(x, labels)` batches, with `y=None`. None if there are `sets`.
        y: Labels `(items,)`, of any kind; they need not have been trained on, and better not.
        gallery: None for leave-one-out among `x`, or `(x, y)`, or a source of batches: what the
            queries are searched in.
        name: Prefix of the names in `logs`. With `log_dir` it names files, too: letters, digits,
            ".", "_" and "-", as the names of `sets`.
        k: Cut-offs of recall and precision.
        metric: See `evaluation.retrieval_metrics`.
        every: Evaluate after each `every`-th epoch. With more than 1, a callback that reads
            these logs finds them in those epochs only.
        at_start: Also evaluate before the first epoch. It is what the training must beat. A run
            that goes on, with `initial_epoch` or after `BackupAndRestore`, keeps the projection of
            the untrained model.
        batch_size: Rows at a time, for arrays; as in `predict`.
        log_dir: Folder for TensorBoard, or None. Needs the package `tensorboard`.
        images: Pictures of the items for the thumbnails; by default `x`, where it looks like
            images (square enough, 1, 3 or 4 channels). False for none.
        class_names: Optional list or dict from a label to its name.
        max_points: Points in the projector, see `viz.write_projector`.
        pictures: With `log_dir`, True or a list of names also writes pictures of `viz`, under
            Images: "confusions", "distance_history" (of the evaluations so far), "distances",
            "similarity" and, where there are images, "hardest_pairs", "label_errors" and
            "neighbors". All of them take some seconds each time; False, the default, none. One that
            cannot be drawn, such as distances of items that share no class, warns. They compare the
            items of `x` among themselves, without the gallery, by "cosine" or Euclidean distances.
        sets: None, or a dict from a name to `(x, y)` or to a source of batches: several sets, each
            evaluated by itself (in the one gallery, if there is one).
        measures: Names among "retrieval" (default), "clustering", "few_shot", "geometry",
            "identification" (needs a gallery) and "verification" (of the pairs that
            `evaluation.pair_distances` makes), or functions `(embeddings, labels)` that return a
            dict of floats; with a gallery, `(embeddings, labels, gallery_embeddings,
            gallery_labels)`. Clustering, few-shot, geometry and verification look at the items of
            `x` alone, not at the gallery; the first three are Euclidean. A function gives them
            other settings: `lambda x, y: few_shot_accuracy(x, y, ways=20)`.

    Under `tf.distribute.MultiWorkerMirroredStrategy` the chief alone evaluates, without the
    strategy, so that no worker waits for another; the others' logs lack these numbers.

    Raises:
        TypeError: an argument of another type.
        ValueError: arrays of unequal length or without labels, labels of which a measure cannot be
            computed, or a source without end.

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
        pictures=False,
        sets=None,
        measures=("retrieval",),
    ):
        super().__init__()
        check_count("every", every)
        check_count("batch_size", batch_size)
        check_count("max_points", max_points)
        check_flag("at_start", at_start)
        pictures = check_pictures(pictures)
        # A wrong cut-off, metric or label should not wait for the end of the first epoch.
        check_choice("metric", metric, METRICS)
        nothing = retrieval_metrics(np.zeros((1, 1)), [0], k=k, metric=metric)
        if isinstance(measures, str) or callable(measures):
            measures = [measures]
        self.measures = as_measures(measures, gallery is not None)
        # Of a diverged encoder the names are known beforehand, or from earlier epochs.
        self.known = set(nothing) if "retrieval" in measures else set()
        self.sets = _as_sets(x, y, sets, batch_size)
        self.gallery = None
        if gallery is not None:
            self.gallery = Source.of("gallery", gallery, batch_size)
        for source in self.sets.values():
            check_labels(measures, source, self.gallery, k, metric)
        self.name, self.k, self.metric = name, k, metric
        self.every, self.at_start = every, at_start
        if images is not None and images is not False:
            _check_images(channels_last(images), self.sets)
        if log_dir is not None:
            as_path("log_dir", log_dir)
        _check_names(name, self.sets, log_dir, at_start)
        check_class_names(class_names)
        if log_dir is not None and class_names is not None:
            for source in self.sets.values():
                for label in set(np.asarray([] if source.y is None else source.y).ravel().tolist()):
                    readable(label, class_names)
        self.images = images
        self.log_dir = log_dir
        self.board = None
        if log_dir is not None:
            self.board = Board(log_dir, class_names, max_points, pictures, metric)
        self.history = {}

    def on_train_begin(self, logs=None):
        self.history = {}
        if self.board is not None:
            self.board.close()  # An interrupted fit did not.

    def on_epoch_begin(self, epoch, logs=None):
        if self.at_start and not self.history:
            # A run that goes on is not untrained: it leaves the first projection alone.
            self._evaluate(epoch, "" if epoch else "_start")

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            metrics = self._evaluate(epoch + 1)
            if logs is not None:
                logs.update(metrics)

    def on_train_end(self, logs=None):
        if self.board is not None:
            self.board.close()

    def _evaluate(self, epoch, suffix=""):
        encoder = getattr(self.model, "encoder", self.model)
        # Of two towers the first embeds what is searched for, the second what it is searched in.
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
        if self.board is not None:
            self.board.write_scalars(metrics, epoch)
            written.insert(0, "scalars")
            self._report(epoch, metrics, f"; {' and '.join(written)} to {self.log_dir}")
        else:
            self._report(epoch, metrics, "")
        return metrics

    def _evaluate_set(self, epoch, encoder, name, source, gallery, suffix, written):
        with_images = self.board is not None and self.images is None
        embeddings, labels, images = source.embed(encoder, with_images)
        prefix = "_".join(filter(None, [self.name, name]))
        if all(np.isfinite(part).all() for part in (embeddings, *gallery[:1])):
            result = {}
            for measure in self.measures:
                result |= measure(embeddings, labels, *gallery, k=self.k, metric=self.metric)
            self.known |= set(result)
            if self.board is not None:
                images = images if self.images is None else self.images
                images = None if images is False else images
                self.board.write_embeddings(prefix + suffix, embeddings, labels, images, epoch)
                written.append(f"projector {prefix + suffix!r}")
        else:
            result = dict.fromkeys(sorted(self.known), float("nan"))
            warnings.warn(
                f"RetrievalEvaluator: after epoch {epoch} the encoder gives NaN or infinity; "
                f"the metrics {prefix}_... are NaN.",
                stacklevel=2,
            )
        for key, value in result.items():
            # A measure may leave out a name in some epochs; the lists stay beside "epoch".
            values = self.history.setdefault(f"{name}_{key}" if name else key, [])
            values += [float("nan")] * (len(self.history["epoch"]) - 1 - len(values)) + [value]
        return {f"{prefix}_{key}": result[key] for key in result if not key.startswith(_UNLOGGED)}

    def _report(self, epoch, metrics, written):
        # The progress bar shows what is in logs already; the start and files it cannot show.
        untold = written or (epoch == 0 and self.at_start)
        verbose = (self.params or {}).get("verbose")  # None in a loop of one's own
        if untold and verbose and keras.config.is_interactive_logging_enabled():
            # Of an encoder that gives NaN from the start no measure's names are known.
            first = "".join(f"{key}={value:.4f}" for key, value in list(metrics.items())[:1])
            sys.stdout.write(f"\nRetrievalEvaluator: epoch {epoch}: {first}{written}\n")


def _check_names(name, sets, log_dir, at_start):
    """Raise unless `name` and the names of the sets can stand in logs and, if any, in files."""
    for part in (name, *filter(None, sets)):
        if not isinstance(part, str) or not part:
            raise TypeError(f"`name` and names of `sets` must be texts. Received: {part!r}")
        if log_dir is not None and not re.fullmatch(PROJECTOR_NAME, part, re.ASCII):
            raise ValueError(
                "With `log_dir`, `name` and names of `sets` must be letters, digits, '.', '_' and "
                f"'-'. Received: {part!r}"
            )
    written = ["_".join(filter(None, [name, part])) for part in sets]
    written += [f"{part}_start" for part in written if at_start]
    if len(set(written)) < len(written):
        raise ValueError(
            "`sets` must have names of their own in TensorBoard, where the start of a set is its "
            f"name and '_start'. Received: {sorted(sets)}"
        )


def _check_images(images, sets):
    """Raise unless there is an image for each item of each set."""
    for name, source in sets.items():
        if source.y is not None and len(source.y) != len(images):
            raise ValueError(
                f"`images` must hold one image for each of {len(source.y)} items of "
                f"`{f'sets[{name!r}]' if name else 'x'}`. Received: {len(images)}"
            )


def _as_sets(x, y, sets, batch_size):
    """Return a dict from a name, empty for the one of `x` and `y`, to its `Source`."""
    if (x is None) == (sets is None):
        raise ValueError(
            "RetrievalEvaluator takes either `x` (and `y`) or `sets`. "
            f"Received: {'neither' if x is None else 'both'}."
        )
    if sets is None:
        return {"": Source("x", x, y, batch_size)}
    if not isinstance(sets, dict) or not sets or y is not None:
        raise ValueError(
            '`sets` must be a dict such as {"seen": (x, y), "unseen": (x, y)}, without `y`. '
            f"Received: sets of type {type(sets).__name__}, y={'None' if y is None else 'given'}"
        )
    return {name: Source.of(f"sets[{name!r}]", part, batch_size) for name, part in sets.items()}
