"""What all batch sources share: rows, loading, augmentation, epochs and seeds."""

import operator

import keras
import numpy as np

from keras_metric._checks import check_count, check_flag
from keras_metric.data.augmentation import Augmentation
from keras_metric.data.samples import Samples
from keras_metric.data.shuffling import new_seed


class SeededBatches(keras.utils.PyDataset):
    """Batches that are a pure function of the seed, the epoch and their index.

    Abstract. Keras asks for batches in any order, from several threads, some of them twice, and
    shuffles the indices; none of that changes what is in a batch.
    """

    def __init__(self, x, index, batches_per_epoch, seed, load, augment, reshuffle, **kwargs):
        """`index` is the ClassIndex of the labels; `_plan` is asked for epoch 0 at the end."""
        super().__init__(**kwargs)
        if seed is not None:
            check_count("seed", seed, at_least=0)
        check_count("batches_per_epoch", batches_per_epoch)
        check_flag("reshuffle", reshuffle)
        self.seed = new_seed(seed)
        self._index = index
        self._batches_per_epoch = batches_per_epoch
        self.reshuffle = reshuffle
        self._samples = Samples(x, load)
        if len(self._samples) != len(index.ids):
            raise ValueError(
                "`x` and `y` must have the same number of rows. Received: "
                f"len(x)={len(self._samples)}, len(y)={len(index.ids)}"
            )
        self._augmentation = None
        if augment is not None:
            if self.use_multiprocessing:
                raise ValueError(
                    "`augment` works in threads, not in processes. Received: "
                    f"use_multiprocessing=True, augment={augment!r}. Use workers={self.workers} "
                    "with use_multiprocessing=False; layers leave Python's lock while they work."
                )
            self._augmentation = Augmentation(augment, self._samples.take(np.zeros(1, "int64")))
        self._state = (0, self._plan(0))

    @property
    def classes(self):
        """The labels as they were given: `classes[i]` is the label numbered i."""
        return self._index.classes

    @property
    def epoch(self):
        """Number of the epoch; assign it to go on where an earlier run stopped."""
        return self._state[0]

    @epoch.setter
    def epoch(self, value):
        check_count("epoch", value, at_least=0)
        if self.reshuffle:
            # One assignment: a thread still at work sees the old epoch or the new one, whole.
            self._state = (int(value), self._plan(int(value)))

    def on_epoch_end(self):
        """Go on to the next epoch's batches; Keras calls this."""
        self.epoch = self.epoch + 1

    def __len__(self):
        return self._batches_per_epoch

    def __getitem__(self, index):
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"The epoch has {len(self)} batches. Received: index={index}")
        epoch, plan = self._state
        return self._batch(epoch, index, plan)

    def _plan(self, epoch):
        """Return what the batches of an epoch have in common; nothing by default."""

    def _batch(self, epoch, index, plan):
        raise NotImplementedError

    def _take(self, rows, epoch, index):
        """Return the rows of x, each augmented on its own."""
        x = self._samples.take(rows)
        return self._augmentation(x, (self.seed, epoch, index)) if self._augmentation else x


def branches(x, names):
    """Return `{name: rows}`, the rows of x cut into as many equal parts as there are names."""
    rows = len(keras.tree.flatten(x)[0]) // len(names)
    return {
        name: keras.tree.map_structure(lambda part, i=i: part[i * rows : (i + 1) * rows], x)
        for i, name in enumerate(names)
    }
