"""Batches of several augmented views of each sample, for training without labels."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.data.batches.class_index import ClassIndex
from keras_metric.data.batches.epoch_batches import RowBatches, split_branches
from keras_metric.data.batches.row_reader import RowReader
from keras_metric.data.batches.seeded_permutation import hash_words, permuted


class ViewBatches(RowBatches):
    """Batches of two or more randomly augmented views of each sample.

    For training without labels by `NTXentLoss`, `VICRegLoss`, `BarlowTwinsLoss` or `SimSiamLoss`:
    the embedding becomes invariant to the augmentation. A `keras.utils.PyDataset` that yields
    `({"first": ..., "second": ...},)`, or with labels `({...}, y)` with `y` int32 numbers 0..C-1,
    where `classes[y]` are the original labels.

    Three and more views are one batch: all rows of the first view, then all of the second and so
    on, with `y` repeated; without labels `y` is the number of the sample. Use it with losses that
    read labels, such as `NTXentLoss` and `SupConLoss`.

    Rules. A batch has no sample twice. All samples are used in random order before any is used
    again, also across epochs where an epoch is short; each round omits the samples that do not
    fill a batch, different ones each time. The content of a batch depends on `seed`, `epoch` and
    its index only; see `BalancedBatches`.

    Args:
        x: rows as in `BalancedBatches`.
        augment: layer or function as in `BalancedBatches`, applied to each view independently. Use
            strong augmentation: crops, colours, noise.
        batch_size: integer, samples in a batch, at most the number of rows. Default 256, since
            `NTXentLoss` takes its negatives from the batch.
        views: integer of at least 2, views of each sample. Default 2.
        y: labels of any kind, as in `BalancedBatches`, or None.
        batches_per_epoch: integer, or None for the number of complete batches.
        seed, load, reshuffle, **kwargs: as in `BalancedBatches`.

    Raises:
        ValueError: fewer rows than `batch_size`, fewer than two views, no `augment`, or `x` and
            `y` of different lengths.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> from keras_metric.data import ViewBatches
    >>> photos = np.random.default_rng(0).random((20, 8, 8, 3), dtype="float32")
    >>> augment = keras.Sequential(
    ...     [keras.layers.RandomCrop(6, 6), keras.layers.RandomFlip("horizontal")]
    ... )
    >>> batches = ViewBatches(photos, augment, batch_size=8, seed=0)
    >>> (views,) = batches[0]
    >>> sorted(views), views["second"].shape, len(batches)
    (['first', 'second'], (8, 6, 6, 3), 2)
    """

    def __init__(
        self,
        x,
        augment,
        batch_size=256,
        views=2,
        y=None,
        batches_per_epoch=None,
        seed=None,
        load=None,
        reshuffle=True,
        **kwargs,
    ):
        check_count("batch_size", batch_size)
        check_count("views", views, at_least=2)
        if augment is None:
            raise ValueError("`augment` must change the samples. Received: augment=None")
        rows = len(RowReader(x, load))
        if rows < batch_size:
            raise ValueError(
                "`x` must have at least `batch_size` rows, since a batch has no sample twice. "
                f"Received: {rows} rows, batch_size={batch_size}"
            )
        self.batch_size = batch_size
        self.views = views
        self._labelled = y is not None
        self._round = rows // batch_size
        index = ClassIndex(np.arange(rows) if y is None else y)
        settings = (batches_per_epoch, seed, load, augment, reshuffle)
        super().__init__(x, index, self._round, *settings, **kwargs)

    def _batch(self, epoch, index, plan):
        round_number, position = divmod(epoch * len(self) + index, self._round)
        positions = position * self.batch_size + np.arange(self.batch_size)
        key = hash_words(np.full(1, self.seed), np.full(1, round_number))
        rows = permuted(positions, len(self._index.ids), key)
        x = self._take(np.tile(rows, self.views), epoch, index)
        y = self._index.ids[rows]
        if self.views > 2:
            return x, np.tile(y, self.views)
        parts = split_branches(x, ("first", "second"))
        return (parts, y) if self._labelled else (parts,)
