"""What all batch sources share that know their epoch: its number, its length, and a seed."""

import operator

import keras

from keras_metric._validation import check_count, check_flag, check_seed
from keras_metric.data.batches.shuffling import new_seed


class EpochBatches(keras.utils.PyDataset):
    """Batches that are a pure function of the seed, the epoch and their index.

    Abstract. Keras asks for batches in any order, from several threads, some of them twice, and
    may shuffle the indices; none of that changes what is in a batch. `fit` of our models takes them
    in their own order unless told `shuffle=True`; that of another `keras.Model` shuffles them.
    """

    def __init__(self, batches_per_epoch, seed, reshuffle=True, **kwargs):
        super().__init__(**kwargs)
        check_seed("seed", seed, at_least=0)
        if seed is not None and seed >= 2**64:
            raise ValueError(f"`seed` must be below 2**64. Received: seed={seed}")
        check_count("batches_per_epoch", batches_per_epoch)
        check_flag("reshuffle", reshuffle)
        self.seed = new_seed(seed)
        self.reshuffle = reshuffle
        self._batches_per_epoch = batches_per_epoch

    def _begin(self):
        """Plan the first epoch: a subclass calls this when it has all that `_plan` needs."""
        self._state = (0, self._plan(0))

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

    def catch_up(self, epoch, initial_epoch=0):
        """Go on to the batches of `epoch` of a training that began with `initial_epoch`.

        The models call this where `keras.callbacks.BackupAndRestore` has made `fit` begin later
        than it was told. `fit` counts its epochs from 0, batches from 1. Batches that have seen
        more, in an earlier training, go that far on from there.
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

    def _check_augment(self, augment):
        if augment is not None and self.use_multiprocessing:
            raise ValueError(
                "`augment` works in threads, not in processes. Received: "
                f"use_multiprocessing=True, augment={augment!r}. Use workers={self.workers} "
                "with use_multiprocessing=False; layers leave Python's lock while they work."
            )

    def _plan(self, epoch):
        """Return what the batches of an epoch have in common; nothing by default."""

    def _batch(self, epoch, index, plan):
        raise NotImplementedError(f"{type(self).__name__} must define _batch.")
