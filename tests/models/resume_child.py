"""Script of test_epoch_resume.py: a training run with all kinds of state, which kills itself.

    python resume_child.py BACKUP EPOCH BATCH

The process is killed in this epoch after this batch.
"""

import os
import re
import signal
import sys

import keras
import numpy as np

from keras_metric import layers, losses
from keras_metric.callbacks import HardExampleMining, MiningSchedule
from keras_metric.data import BalancedBatches
from keras_metric.models import EmbeddingModel

EPOCHS, CLASSES = 4, 8


class Kill(keras.callbacks.Callback):
    """Kills the process in the given epoch after the given batch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.last, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


class Epochs(keras.callbacks.Callback):
    """Records the epochs of `fit`, or the epochs of `batches` if given."""

    def __init__(self, batches=None):
        super().__init__()
        self.batches, self.recorded, self.epoch = batches, [], 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.recorded.append(self.epoch if self.batches is None else self.batches.epoch)


def noise(x, rng):
    return x + 0.1 * rng.normal(size=x.shape).astype("float32")


def build():
    """Return the model and its batches, as a script creates them in each run."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    y = np.arange(96) % CLASSES
    x = rng.normal(y[:, None] % 3, 1.0, size=(96, 6)).astype("float32")
    batches = BalancedBatches(x, y, 4, 4, batches_per_epoch=5, seed=5, augment=noise)
    # On PyTorch Keras's dropout uses PyTorch's generator, whose state is not saved.
    rate = 0.0 if keras.backend.backend() == "torch" else 0.3
    backbone = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(16, "tanh"), keras.layers.Dropout(rate)]
    )
    model = EmbeddingModel(backbone, 4)
    miner = layers.TripletMiner(("random", "hard"), seed=11)
    triplets = losses.TripletLoss(mining=miner)
    queue = losses.ContrastiveLoss(2.0, memory=layers.CrossBatchMemory(40))
    loss = losses.WeightedSum([(1, triplets), (1, queue), (1, losses.ProxyAnchorLoss(CLASSES))])
    # Compilation with XLA would take much longer than the training.
    jit = "auto" if keras.backend.backend() == "jax" else False
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=jit)
    return model, batches


def train(*callbacks):
    """Train until the end or until a callback stops, and return the values of all variables."""
    model, batches = build()
    schedule = MiningSchedule({0: "random", 3: "hard"})
    model.fit(
        batches,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[*callbacks, HardExampleMining(batches, max_items=60), schedule],
    )
    values = [*model.variables, *model.optimizer.variables]
    # Remove the numbers that Keras appends to the names of repeated layers.
    return {
        f"{i} {re.sub(r'_[0-9]+', '', value.path)}": keras.ops.convert_to_numpy(value.value)
        for i, value in enumerate(values)
    }


if __name__ == "__main__":
    backup, epoch, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    train(keras.callbacks.BackupAndRestore(backup), Kill(epoch, batch))
