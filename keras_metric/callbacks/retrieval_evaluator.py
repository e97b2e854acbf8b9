"""RetrievalEvaluator: recall@k while a model trains."""

import sys
import warnings

import keras
import numpy as np

from keras_metric._checks import check_count, check_flag
from keras_metric.callbacks._board import Board
from keras_metric.callbacks._source import Source
from keras_metric.evaluation import retrieval_metrics


class RetrievalEvaluator(keras.callbacks.Callback):
    """Measures retrieval at the end of epochs, for `logs`, TensorBoard and your eyes.

    A metric loss says little about how good the embeddings are; this says it. It embeds the data
    with `model.encoder` (or the model itself, if it has none), calls
    `evaluation.retrieval_metrics`, and writes every average into `logs` as `val_recall_at_1`,
    `val_map_at_r` and so on. History has them, and callbacks that stand AFTER this one in the
    list see them; tell those that more is better:

    `EarlyStopping("val_recall_at_1", mode="max", patience=5)`

    The model is left as found. `history` is a dict of lists: "epoch", the number of finished
    epochs (0 is the untrained model), and one list for each metric.

    With `log_dir` TensorBoard shows the curves (at the number of finished epochs) and, under
    Projector, the embeddings of the last evaluation with labels and thumbnails, named `name`;
    with `at_start` those of the first one too, named `name` + `_start`. Embeddings that are not
    finite warn and give NaN, so that `TerminateOnNaN` can do its work.

    Args:
        x: Array or dict of arrays; or a `tf.data.Dataset`, `PyDataset` or other finite iterable
            of `(x, labels)` batches, with `y=None`.
        y: Labels `(items,)`, of any kind; they need not have been trained on, and better not.
        gallery: None for leave-one-out among `x`, or `(x, y)`, or a source of batches: what the
            queries are searched in.
        name: Prefix of the names in `logs`.
        k: Cut-offs of recall and precision.
        metric: See `evaluation.retrieval_metrics`.
        every: Evaluate after each `every`-th epoch. With more than 1, a callback that reads
            these logs finds them in those epochs only.
        at_start: Also evaluate before the first epoch. It is what the training must beat.
        batch_size: Rows at a time, for arrays; as in `predict`.
        log_dir: Folder for TensorBoard, or None. Needs the package `tensorboard`.
        images: Pictures of the items for the thumbnails; by default `x`, where it looks like
            images (square enough, 1, 3 or 4 channels). False for none.
        class_names: Optional list or dict from a label to its name.
        max_points: Points in the projector, see `viz.write_projector`.
        pictures: With `log_dir`, also write the pictures of `viz.plot_distances` and, where there
            are images, `viz.plot_neighbors`, about a second each time.

    Raises:
        ValueError: arrays of unequal length or without labels, or a source without end.

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
        x,
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
    ):
        super().__init__()
        check_count("every", every)
        check_count("batch_size", batch_size)
        check_count("max_points", max_points)
        check_flag("at_start", at_start)
        check_flag("pictures", pictures)
        # A wrong cut-off or metric should not wait for the end of the first epoch.
        nothing = retrieval_metrics(np.zeros((1, 1)), [0], k=k, metric=metric)
        self.undefined = dict.fromkeys(nothing, float("nan"))
        self.queries = Source("x", x, y, batch_size)
        self.gallery = None
        if gallery is not None:
            parts = gallery if isinstance(gallery, tuple) else (gallery, None)
            self.gallery = Source("gallery", *parts, batch_size)
        self.name, self.k, self.metric = name, k, metric
        self.every, self.at_start = every, at_start
        self.images = images
        self.log_dir = log_dir
        self.board = None
        if log_dir is not None:
            self.board = Board(log_dir, class_names, max_points, pictures)
        self.history = {}

    def on_train_begin(self, logs=None):
        self.history = {}

    def on_epoch_begin(self, epoch, logs=None):
        if self.at_start and not self.history:
            self._evaluate(epoch, f"{self.name}_start")

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            metrics = self._evaluate(epoch + 1, self.name)
            if logs is not None:
                logs.update(metrics)

    def on_train_end(self, logs=None):
        if self.board is not None:
            self.board.close()

    def _evaluate(self, epoch, projection):
        encoder = getattr(self.model, "encoder", self.model)
        with_images = self.board is not None and self.images is None
        embeddings, labels, images = self.queries.embed(encoder, with_images)
        gallery = (None, None)
        if self.gallery is not None:
            gallery = self.gallery.embed(encoder, False)[:2]
        finite = np.isfinite(embeddings).all() and (
            gallery[0] is None or np.isfinite(gallery[0]).all()
        )
        if finite:
            result = retrieval_metrics(embeddings, labels, *gallery, k=self.k, metric=self.metric)
        else:
            result = self.undefined
            warnings.warn(
                f"RetrievalEvaluator: after epoch {epoch} the encoder gives NaN or infinity; "
                f"the metrics {self.name}_... are NaN.",
                stacklevel=2,
            )
        for key, value in {"epoch": epoch, **result}.items():
            self.history.setdefault(key, []).append(value)
        metrics = {f"{self.name}_{key}": result[key] for key in result if "queries" not in key}
        written = ""
        if self.board is not None:
            self.board.write_scalars(metrics, epoch)
            written = f"; scalars to {self.log_dir}"
            if finite:
                images = images if self.images is None else self.images
                images = None if images is False else images
                self.board.write_embeddings(projection, embeddings, labels, images, epoch)
                written = f"; scalars and projector {projection!r} to {self.log_dir}"
        self._report(epoch, metrics, written)
        return metrics

    def _report(self, epoch, metrics, written):
        # The progress bar shows what is in logs already; the start and files it cannot show.
        untold = written or (epoch == 0 and self.at_start)
        if untold and self.params.get("verbose") and keras.config.is_interactive_logging_enabled():
            key, value = next(iter(metrics.items()))
            sys.stdout.write(f"\nRetrievalEvaluator: epoch {epoch}: {key}={value:.4f}{written}\n")
