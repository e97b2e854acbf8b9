"""Batches of several views of each sample, for training without labels."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.data.batches.class_index import ClassIndex
from keras_metric.data.batches.samples import Samples
from keras_metric.data.batches.seeded_batches import SeededBatches, branches
from keras_metric.data.batches.shuffling import mixed, shuffled


class ViewBatches(SeededBatches):
    """Batches of views: each sample of the batch, changed at random, twice or more often.

    For training without labels by `NTXentLoss`, `VICRegLoss`, `BarlowTwinsLoss` or `SimSiamLoss`:
    the changes are what the embedding shall not see. A `keras.utils.PyDataset` that yields
    `({"first": ..., "second": ...},)`, or with labels `({...}, y)` with `y` int32 numbers 0..C-1,
    where `classes[y]` gives the labels back.

    Three and more views come as one batch, first all rows of the first view, then all of the
    second and so on, with `y` repeated; without labels `y` is the number of the sample. Losses
    that read labels take it, such as `NTXentLoss` and `SupConLoss`.

    Rules. No sample comes twice in a batch. All come once, in random order, before any comes
    again, also from epoch to epoch where an epoch is short; only what is left over at the end of
    such a round, less than a batch, is left out, others each time. What is in a batch depends on
    `seed`, `epoch` and its index alone; see `BalancedBatches`.

    Args:
        x: rows as in `BalancedBatches`.
        augment: layer or function as in `BalancedBatches`; each view is changed anew. Strong
            changes teach most: crops, colours, noise.
        batch_size: integer, samples in a batch, at most the number of rows. Default 256:
            `NTXentLoss` compares within the batch, and likes large ones.
        views: integer of at least 2, views of each sample. Default 2.
        y: labels of any kind, as in `BalancedBatches`, or None.
        batches_per_epoch: integer, or None for as many whole batches as there are.
        seed: integer of at least 0, or None to draw one.
        load: function from an item of `x` to an array, as in `BalancedBatches`.
        reshuffle: False yields the same epoch always.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of `keras.utils.PyDataset`.

    Raises:
        TypeError: for an argument of another type.
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
            raise ValueError(
                "`augment` must change the samples, or all views are equal. Received: augment=None"
            )
        rows = len(Samples(x, load))
        if rows < batch_size:
            raise ValueError(
                "`x` must have at least `batch_size` rows, since no sample comes twice in a batch. "
                f"Received: {rows} rows, batch_size={batch_size}"
            )
        self.batch_size = batch_size
        self.views = views
        self._labelled = y is not None
        self._round = rows // batch_size
        index = ClassIndex(np.arange(rows) if y is None else y)
        if batches_per_epoch is None:
            batches_per_epoch = self._round
        super().__init__(x, index, batches_per_epoch, seed, load, augment, reshuffle, **kwargs)

    def _batch(self, epoch, index, plan):
        turn, place = divmod(epoch * len(self) + index, self._round)
        places = place * self.batch_size + np.arange(self.batch_size)
        samples = len(self._index.ids)
        rows = shuffled(places, samples, mixed(np.full(1, self.seed), np.full(1, turn)))
        x = self._take(np.tile(rows, self.views), epoch, index)
        y = self._index.ids[rows]
        if self.views > 2:
            return x, np.tile(y, self.views)
        parts = branches(x, ("first", "second"))
        return (parts, y) if self._labelled else (parts,)
