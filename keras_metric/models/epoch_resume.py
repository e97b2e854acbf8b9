"""Callback that aligns a batch source with the epoch a resumed run starts from."""

import keras


class EpochResume(keras.callbacks.Callback):
    """Sets `batches` to the first epoch of `fit`.

    `keras.callbacks.BackupAndRestore` resumes an interrupted run at a later epoch than the
    argument `initial_epoch` of `fit`. The batches of a new process start at epoch 0 and would
    repeat the batches of the interrupted run.

    Args:
        batches: an `EpochBatches`.
        initial_epoch: the argument `initial_epoch` of `fit`.
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
