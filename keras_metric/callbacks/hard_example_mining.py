"""HardExampleMining: what the encoder confuses meets in one batch."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_metric._validation import check_choice, check_count, check_number
from keras_metric.data import BalancedBatches
from keras_metric.evaluation._progress import check_progress, watched
from keras_metric.search.stores.exact_search import nearest_rows

# Neighbours asked for beyond those wanted, at most: all items of the class may be nearer.
_OWN = 128
_PLACES = 2**18  # neighbours looked at together: 134 MB of vectors of 128

RULES = ("neighbors", "classes")


class HardExampleMining(keras.callbacks.Callback):
    """Fills batches with what is hard to tell apart, found in the whole training set.

    Miners choose inside a batch; when classes are many, a batch drawn by chance holds nothing hard
    any more. Every few epochs this embeds the training set, looks for each item's nearest items of
    other classes, and steers the `BalancedBatches` that the model trains on. A part of the classes
    of each batch still comes by chance.

    - `rule="neighbors"`: each batch begins with classes by chance, and their items are joined by
      their difficult neighbours, with more of the neighbours' classes, as the batches of the
      lifted-structure paper.
    - `rule="classes"`: each batch begins with classes by chance, and takes in the nearest class of
      one that it has until it is full: the hard classes of the N-pairs paper, by class means.

    A run that `keras.callbacks.BackupAndRestore` goes on with searches before its first epoch. With
    `every=1` that is what the unbroken run found. A training of another model begins with batches
    as planned.

    Of classes with more than 128 items drawn, an item may have none of its nearest 128 items in
    another class; such items have no difficult neighbours, and a warning says how many there are
    when they are more than half.

    Args:
        batches: the `data.BalancedBatches` that `fit` is given.
        every: epochs from one search to the next. Default 1.
        start: how many epochs pass before the first search. Default 1: what is near to an untrained
            encoder says little.
        rule: "neighbors" (default) or "classes".
        share: share of the classes of a batch that come as neighbours, above 0 and below 1.
            Default 0.5.
        neighbors: how many neighbours of an item, or of a class, are kept. Default 8. The table
            takes 4 * neighbors bytes an item.
        max_items: how many items are embedded, drawn anew each time. Default 50,000: with 128
            dimensions 26 MB of embeddings. The others have no neighbours then and join as they
            are.
        batch_size: how many items are embedded at once. Default 256.
        progress: True shows a bar at once, None (default) on terminals after two seconds, False
            never.

    Attributes:
        history: dict of lists, `epoch` and `nearest`, the mean distance of an item (a class) to the
            nearest one of another class.

    Raises:
        TypeError: if `batches` are no `BalancedBatches`, or for an argument of another type.
        ValueError: for a number out of its range or an unknown rule.

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
        share=0.5,
        neighbors=8,
        max_items=50_000,
        batch_size=256,
        progress=None,
    ):
        super().__init__()
        if not isinstance(batches, BalancedBatches):
            raise TypeError(
                "`batches` must be keras_metric.data.BalancedBatches, the ones that fit is given. "
                f"Received: {type(batches).__name__}"
            )
        check_count("every", every)
        check_count("start", start)
        check_choice("rule", rule, RULES)
        check_number("share", share, above=0)
        if share >= 1:
            raise ValueError(f"`share` must be below 1. Received: share={share}")
        check_count("neighbors", neighbors)
        check_count("max_items", max_items, at_least=2)
        check_count("batch_size", batch_size)
        check_progress(progress)
        self.batches = batches
        self.every, self.start = every, start
        self.rule, self.share, self.neighbors = rule, share, neighbors
        self.max_items, self.batch_size, self.progress = max_items, batch_size, progress
        self.history = {"epoch": [], "nearest": []}
        self._mined_with = None

    def on_train_begin(self, logs=None):
        self.history = {"epoch": [], "nearest": []}
        if self.batches.has_hard_neighbors and self._mined_with is not self.model:
            self.batches.set_hard_neighbors()  # by what another encoder confused

    def on_epoch_begin(self, epoch, logs=None):
        # A run that was broken off and goes on has its weights again, and no table.
        if epoch >= self.start and not self.batches.has_hard_neighbors:
            self._note(epoch)

    def on_epoch_end(self, epoch, logs=None):
        passed = epoch + 1 - self.start
        if passed >= 0 and passed % self.every == 0:
            self._note(epoch + 1)

    def _note(self, epoch):
        nearest = self.mine(epoch)
        self.history["epoch"].append(epoch)
        self.history["nearest"].append(nearest)

    def mine(self, epoch=0):
        """Search now, and steer the batches; returns the mean distance to the nearest neighbour.

        Args:
            epoch: what the items are drawn by, where they are more than `max_items`.

        Raises:
            ValueError: outside of `fit`, before `set_model(model)`.
        """
        if self.model is None:
            raise ValueError(
                "`mine` needs the model that embeds: call it in `fit`, or after `set_model(model)`."
            )
        rows = self._drawn(epoch)
        z, ids = self._embedded(rows), self.batches.ids[rows]
        if not np.isfinite(z).all():
            warnings.warn(
                "HardExampleMining: the encoder gives NaN or infinity, which has no neighbours; "
                "the batches stay as they are.",
                stacklevel=2,
            )
            return float("nan")
        self._mined_with = self.model
        if self.rule == "classes":
            known, means = _class_means(z, ids)
            table = np.full((len(self.batches.classes), self.neighbors), -1, "int32")
            found, distance = nearest_of_others(means, known, self.neighbors)
            table[known] = np.where(found < 0, -1, known[found])
            self.batches.set_hard_neighbors(classes=table, fraction=self.share)
        else:
            table = np.full((len(self.batches.ids), self.neighbors), -1, "int32")
            found, distance = nearest_of_others(z, ids, self.neighbors)
            table[rows] = np.where(found < 0, -1, rows[found])
            self.batches.set_hard_neighbors(rows=table, fraction=self.share)
        if len(distance) < len(found) / 2:
            warnings.warn(
                f"HardExampleMining: {len(found) - len(distance):,} of {len(found):,} items have "
                "no item of another class among their nearest; their batches come by chance. "
                'rule="classes" compares the means of classes.',
                stacklevel=2,
            )
        return float(np.mean(distance)) if len(distance) else float("nan")

    def _drawn(self, epoch):
        rows = np.flatnonzero(self.batches.ids >= 0)
        if len(rows) <= self.max_items:
            return rows
        rng = np.random.default_rng((self.batches.seed, epoch, 3))
        return np.sort(rng.choice(rows, self.max_items, replace=False))

    def _embedded(self, rows):
        encoder = getattr(self.model, "encoder", self.model)
        starts = range(0, len(rows), self.batch_size)
        parts = []
        for start in watched(starts, len(starts), "hard examples", self.progress):
            x = self.batches.rows_of(rows[start : start + self.batch_size])
            z = ops.convert_to_numpy(encoder.predict_on_batch(x))
            parts.append(np.asarray(z, "float32"))
        return np.ascontiguousarray(np.concatenate(parts))


def nearest_of_others(vectors, ids, count):
    """The `count` nearest vectors of other ids to each vector, and the nearest one's distances.

    Among the nearest `count` and as many as the largest id has, up to 128; where most of
    those are of the same id, the last places are -1. Distances are of the vectors that have such a
    neighbour.
    """
    own = min(_OWN, int(np.unique(ids, return_counts=True)[1].max(initial=1)))
    found = np.full((len(vectors), count), -1, "int64")
    nearest = []
    largest = float(np.square(vectors, dtype="float64").sum(axis=1).max(initial=0))
    size = max(1, _PLACES // (count + own))
    for start in range(0, len(vectors), size):
        block = slice(start, start + size)
        rows, distance = nearest_rows(vectors[block], vectors, count + own, "euclidean", largest)
        other = ids[rows] != ids[block, None]
        order = np.argsort(~other, axis=1, kind="stable")[:, :count]
        rows, other, distance = (
            np.take_along_axis(part, order, axis=1) for part in (rows, other, distance)
        )
        found[block, : rows.shape[1]] = np.where(other, rows, -1)
        nearest.append(distance[:, 0][other[:, 0]])
    return found, np.concatenate(nearest)


def _class_means(z, ids):
    """The ids that occur, and the mean of their vectors."""
    known, place = np.unique(ids, return_inverse=True)
    sums = np.zeros((len(known), z.shape[1]), "float64")
    np.add.at(sums, place, z)
    return known, (sums / np.bincount(place)[:, None]).astype("float32")
