"""Callback that puts items which the encoder confuses into the same batches."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_metric._block_loops import check_progress, with_progress
from keras_metric._validation import check_choice, check_count, check_number
from keras_metric.data import BalancedBatches
from keras_metric.neighbors import nearest_items

_LARGEST_OWN_CLASS = 128  # neighbours of the item's class that are searched in addition, at most
RULES = ("neighbors", "classes")


class HardExampleMining(keras.callbacks.Callback):
    """Fills batches with items that are hard to distinguish, mined in the whole training set.

    Miners select items inside a batch; if there are many classes, a random batch has few hard
    negatives. Every few epochs this callback embeds the training set, finds for each item the
    nearest items of other classes, and passes them to the `BalancedBatches` that the model trains
    on. A fraction of the classes of each batch is still random.

    - `rule="neighbors"`: each batch starts with items of random classes and adds their difficult
      neighbours, with more items of the neighbours' classes, as the lifted-structure paper does.
    - `rule="classes"`: each batch starts with random classes and adds the nearest class of one of
      its classes until it is full: the hard classes of the N-pairs paper, by class means.

    A run that `keras.callbacks.BackupAndRestore` resumes searches before its first epoch. With
    `every=1` the result is that of an uninterrupted run. A training of another model starts with
    the original batches.

    If a class has more than 128 sampled items, the nearest 128 items of an item may all be of its
    own class; such items have no difficult neighbours. A warning reports their number if it is more
    than half.

    Args:
        batches: The `data.BalancedBatches` that are passed to `fit`.
        every: Number of epochs from one search to the next. Default 1.
        start: Number of epochs before the first search. Default 1, because the neighbours of an
            untrained encoder are of little use.
        rule: "neighbors" (default) or "classes".
        fraction: Fraction of the classes of a batch that are neighbours, above 0 and below 1.
            Default 0.5.
        neighbors: Number of neighbours to keep of an item, or of a class. Default 8. The table
            takes 4 * neighbors bytes an item.
        max_items: Number of items to embed, sampled again at each search. Default 50,000: with 128
            dimensions 26 MB of embeddings. The other items have no neighbours until they are
            sampled.
        batch_size: Number of items to embed at once. Default 256.
        progress: Bar: True always, False never, None (default) on terminals after two seconds.

    Attributes:
        history: Dict of lists, `epoch` and `nearest`, the mean distance of an item (a class) to the
            nearest one of another class.

    Raises:
        TypeError: `batches` are not `BalancedBatches`, or an argument of another type.
        ValueError: A number out of its range or an unknown rule.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_metric.callbacks import HardExampleMining
        >>> from keras_metric.data import BalancedBatches
        >>> from keras_metric.models import EmbeddingModel
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(60) % 12
        >>> x = rng.normal(y[:, None], size=(60, 4)).astype("float32")
        >>> batches = BalancedBatches(x, y, 4, 2, seed=0)
        >>> mining = HardExampleMining(batches)
        >>> model = EmbeddingModel(keras.layers.Dense(8), 4)
        >>> history = model.fit(batches, epochs=2, callbacks=[mining], verbose=0)
        >>> mining.history["epoch"]
        [1, 2]

    Reference:
        Song, Xiang, Jegelka and Savarese, "Deep Metric Learning via Lifted Structured Feature
        Embedding", 2016, https://arxiv.org/abs/1511.06452; Sohn, "Improved Deep Metric Learning
        with Multi-class N-pair Loss Objective", 2016,
        https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective
    """

    def __init__(
        self,
        batches,
        every=1,
        start=1,
        rule="neighbors",
        fraction=0.5,
        neighbors=8,
        max_items=50_000,
        batch_size=256,
        progress=None,
    ):
        super().__init__()
        if not isinstance(batches, BalancedBatches):
            raise TypeError(
                "`batches` must be the keras_metric.data.BalancedBatches that are passed to fit. "
                f"Received: {type(batches).__name__}"
            )
        check_count("every", every)
        check_count("start", start)
        check_choice("rule", rule, RULES)
        check_number("fraction", fraction, above=0)
        if fraction >= 1:
            raise ValueError(f"`fraction` must be below 1. Received: fraction={fraction}")
        check_count("neighbors", neighbors)
        check_count("max_items", max_items, at_least=2)
        check_count("batch_size", batch_size)
        check_progress(progress)
        self.batches = batches
        self.every, self.start = every, start
        self.rule, self.fraction, self.neighbors = rule, fraction, neighbors
        self.max_items, self.batch_size, self.progress = max_items, batch_size, progress
        self.history = {"epoch": [], "nearest": []}
        self._mined_with = None

    def on_train_begin(self, logs=None):
        self.history = {"epoch": [], "nearest": []}
        if self.batches.has_hard_neighbors and self._mined_with is not self.model:
            self.batches.set_hard_neighbors()  # remove the neighbours of another encoder

    def on_epoch_begin(self, epoch, logs=None):
        # A resumed run has its weights, but no table of neighbours.
        if epoch >= self.start and not self.batches.has_hard_neighbors:
            self._mine_and_record(epoch)

    def on_epoch_end(self, epoch, logs=None):
        passed = epoch + 1 - self.start
        if passed >= 0 and passed % self.every == 0:
            self._mine_and_record(epoch + 1)

    def _mine_and_record(self, epoch):
        nearest = self.mine(epoch)
        self.history["epoch"].append(epoch)
        self.history["nearest"].append(nearest)

    def mine(self, epoch=0):
        """Search now and update the batches; returns the mean distance to the nearest neighbour.

        Args:
            epoch: Seeds the sampling of items, if there are more than `max_items`.

        Raises:
            ValueError: Outside of `fit`, before `set_model(model)`.
        """
        if self.model is None:
            raise ValueError(
                "`mine` needs a model: call it during `fit`, or after `set_model(model)`."
            )
        rows = self._sampled_rows(epoch)
        z, ids = self._embedded(rows), self.batches.ids[rows]
        if not np.isfinite(z).all():
            warnings.warn(
                "HardExampleMining: the encoder returns NaN or infinity; the batches are "
                "unchanged.",
                stacklevel=2,
            )
            return float("nan")
        self._mined_with = self.model
        table_rows, size = rows, len(self.batches.ids)
        if self.rule == "classes":
            size = len(self.batches.classes)
            ids, z = _class_means(z, ids)
            table_rows = ids
        table = np.full((size, self.neighbors), -1, "int32")
        found, distance = nearest_of_others(z, ids, self.neighbors)
        table[table_rows] = np.where(found < 0, -1, table_rows[found])
        name = "classes" if self.rule == "classes" else "rows"
        self.batches.set_hard_neighbors(**{name: table}, fraction=self.fraction)
        if len(distance) < len(found) / 2:
            warnings.warn(
                f"HardExampleMining: {len(found) - len(distance):,} of {len(found):,} items have "
                "no item of another class among their nearest; their batches are random. "
                'Use rule="classes", which compares the means of classes.',
                stacklevel=2,
            )
        return float(np.mean(distance)) if len(distance) else float("nan")

    def _sampled_rows(self, epoch):
        rows = np.flatnonzero(self.batches.ids >= 0)
        if len(rows) <= self.max_items:
            return rows
        rng = np.random.default_rng((self.batches.seed, epoch, 3))
        return np.sort(rng.choice(rows, self.max_items, replace=False))

    def _embedded(self, rows):
        encoder = getattr(self.model, "encoder", self.model)
        starts = range(0, len(rows), self.batch_size)
        parts = []
        for start in with_progress(starts, len(starts), "hard examples", self.progress):
            x = self.batches.rows_of(rows[start : start + self.batch_size])
            z = ops.convert_to_numpy(encoder.predict_on_batch(x))
            parts.append(np.asarray(z, "float32"))
        return np.ascontiguousarray(np.concatenate(parts))


def nearest_of_others(vectors, ids, count):
    """Return the `count` nearest vectors of other ids, and the distances to the nearest.

    They are searched among the nearest `count` plus the size of the largest id, at most 128. The
    last entries are -1 if most of these have the same id. The distances are of the vectors that
    have such a neighbour.
    """
    own = min(_LARGEST_OWN_CLASS, int(np.unique(ids, return_counts=True)[1].max(initial=1)))
    found = np.full((len(vectors), count), -1, "int64")
    nearest = []
    for rows, index, distance in nearest_items(vectors, vectors, "euclidean", count + own):
        other = ids[index] != ids[rows, None]
        order = np.argsort(~other, axis=1, kind="stable")[:, :count]
        index, other, distance = (
            np.take_along_axis(part, order, axis=1) for part in (index, other, distance)
        )
        found[rows, : index.shape[1]] = np.where(other, index, -1)
        nearest.append(distance[:, 0][other[:, 0]])
    return found, np.concatenate(nearest)


def _class_means(z, ids):
    """Return the ids that occur, and the mean of their vectors."""
    present, position = np.unique(ids, return_inverse=True)
    sums = np.zeros((len(present), z.shape[1]), "float64")
    np.add.at(sums, position, z)
    return present, (sums / np.bincount(position)[:, None]).astype("float32")
