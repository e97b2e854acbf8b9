"""CatchUp: batches go on with the epoch that a broken run goes on with."""

import keras


class CatchUp(keras.callbacks.Callback):
    """Sets `batches` to the epoch that `fit` begins with.

    `keras.callbacks.BackupAndRestore` lets a run that was broken off begin with a later epoch than
    `fit` was told. Batches of a new process count from the beginning, and would show again what
    the run has seen already.

    Args:
        batches: an `EpochBatches`.
        initial_epoch: with which epoch `fit` was told to begin.
    """

    def __init__(self, batches, initial_epoch):
        super().__init__()
        self.batches = batches
        self.initial_epoch = initial_epoch
        self._begun = False

    def on_epoch_begin(self, epoch, logs=None):
        if not self._begun:
            self._begun = True
            self.batches.catch_up(epoch, self.initial_epoch)
