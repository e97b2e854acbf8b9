"""What the batch sources share whose samples are at hand by number: rows, loading, augmentation."""

import keras
import numpy as np

from keras_metric.data.batches.epoch_batches import EpochBatches
from keras_metric.data.batches.samples import Samples
from keras_metric.data.images.augmentation import Augmentation


class SeededBatches(EpochBatches):
    """Batches of rows of `x`. Abstract."""

    def __init__(self, x, index, batches_per_epoch, seed, load, augment, reshuffle, **kwargs):
        """`index` is the ClassIndex of the labels; `_plan` is asked for epoch 0 at the end."""
        super().__init__(batches_per_epoch, seed, reshuffle, **kwargs)
        self._index = index
        self._samples = Samples(x, load)
        if len(self._samples) != len(index.ids):
            raise ValueError(
                "`x` and `y` must have the same number of rows. Received: "
                f"len(x)={len(self._samples)}, len(y)={len(index.ids)}"
            )
        self._augmentation = None
        self._check_augment(augment)
        if augment is not None:
            self._augmentation = Augmentation(augment, self._samples.take(np.zeros(1, "int64")))
        self._begin()

    @property
    def classes(self):
        """The labels as they were given: `classes[i]` is the label numbered i."""
        return self._index.classes

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
