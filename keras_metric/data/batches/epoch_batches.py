"""Base classes of the batch sources: seed, number and length of the epoch, rows of x."""

import operator

import keras
import numpy as np

from keras_metric._validation import check_count, check_flag, check_seed
from keras_metric.data.batches.row_reader import RowReader
from keras_metric.data.images.augmentation import Augmentation


class EpochBatches(keras.utils.PyDataset):
    """Abstract source whose batches depend on the seed, the epoch and their index only.

    Keras requests batches in any order, from several threads, some of them twice, and may shuffle
    the indices; none of that changes the content of a batch. `fit` of the models of this package
    uses the order of the indices unless `shuffle=True`; `fit` of another `keras.Model` shuffles.
    """

    def __init__(self, batches_per_epoch, seed, reshuffle=True, **kwargs):
        super().__init__(**kwargs)
        check_seed("seed", seed, at_least=0)
        if seed is not None and seed >= 2**64:
            raise ValueError(f"`seed` must be below 2**64. Received: seed={seed}")
        check_count("batches_per_epoch", batches_per_epoch)
        check_flag("reshuffle", reshuffle)
        # `keras.utils.set_random_seed` seeds NumPy's global generator.
        self.seed = int(np.random.randint(2**31) if seed is None else seed)
        self.reshuffle = reshuffle
        self._batches_per_epoch = batches_per_epoch

    def _begin(self):
        """Plan the first epoch: a subclass calls this when it has all that `_plan` needs."""
        self._state = (0, self._plan(0))

    @property
    def epoch(self):
        """Number of the epoch; assign it to continue where an earlier run stopped."""
        return self._state[0]

    @epoch.setter
    def epoch(self, value):
        check_count("epoch", value, at_least=0)
        if self.reshuffle:
            # A single assignment: other threads read either the old state or the new one.
            self._state = (int(value), self._plan(int(value)))

    def on_epoch_end(self):
        """Advance to the next epoch; Keras calls this."""
        self.epoch = self.epoch + 1

    def catch_up(self, epoch, initial_epoch=0):
        """Advance to the batches of `epoch` of a run that started at `initial_epoch`.

        The models call this where `keras.callbacks.BackupAndRestore` makes `fit` start later than
        `initial_epoch`. `fit` counts its epochs from 0, batches from 1. Batches that an earlier run
        has used continue from their own epoch.
        """
        later = max(self.epoch + epoch - initial_epoch, epoch + 1)
        if later != self.epoch:
            self.epoch = later

    def __len__(self):
        return self._batches_per_epoch

    def __getitem__(self, index):
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"The epoch has {len(self)} batches. Received: index={index}")
        epoch, plan = self._state
        return self._batch(epoch, index, plan)

    def _plan(self, epoch):
        """Return what the batches of an epoch have in common; None by default."""

    def _batch(self, epoch, index, plan):
        raise NotImplementedError(f"{type(self).__name__} must define _batch.")


class RowBatches(EpochBatches):
    """Abstract source of batches of rows of `x`, loaded and augmented.

    `index` is the `ClassIndex` of the labels, `length` the default of `batches_per_epoch`.
    `__init__` calls `_plan` for epoch 0 at its end.
    """

    def __init__(
        self, x, index, length, batches_per_epoch, seed, load, augment, reshuffle, **kwargs
    ):
        length = length if batches_per_epoch is None else batches_per_epoch
        super().__init__(length, seed, reshuffle, **kwargs)
        self._index = index
        self._reader = RowReader(x, load)
        if len(self._reader) != len(index.ids):
            received = f"len(x)={len(self._reader)}, len(y)={len(index.ids)}"
            raise ValueError(f"`x` and `y` must have the same length. Received: {received}")
        self._augmentation = None
        if augment is not None:
            if self.use_multiprocessing:
                raise ValueError(
                    "`augment` works in threads, not in processes. Received: "
                    f"use_multiprocessing=True, augment={augment!r}. Use workers={self.workers} "
                    "with use_multiprocessing=False; layers release Python's lock while they work."
                )
            self._augmentation = Augmentation(augment, self._reader.take(np.zeros(1, "int64")))
        self._begin()

    @property
    def classes(self):
        """The original labels: `classes[i]` is the label numbered i."""
        return self._index.classes

    def _take(self, rows, epoch, index):
        """Return the rows of x, each augmented independently."""
        x = self._reader.take(rows)
        return self._augmentation(x, (self.seed, epoch, index)) if self._augmentation else x


def split_branches(x, names):
    """Return `{name: rows}`: the rows of x split into equal parts, one for each name."""
    rows = len(keras.tree.flatten(x)[0]) // len(names)
    return {
        name: keras.tree.map_structure(lambda part, i=i: part[i * rows : (i + 1) * rows], x)
        for i, name in enumerate(names)
    }
