"""A run that was killed goes on to the weights that it would have had."""

import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from resume_child import EPOCHS, Seen, start, train

from keras_metric.data import BalancedBatches
from keras_metric.models import EmbeddingModel
from keras_metric.models.loss_layers import random_states

CHILD = Path(__file__).with_name("resume_child.py")


def test_a_run_killed_in_mid_epoch_goes_on_to_the_same_weights(tmp_path):
    """Order, augmentation, dropout, random miner, stage, queue, proxies, hard examples, Adam."""
    whole = train()
    backup = tmp_path / "backup"
    killed = subprocess.run(
        [sys.executable, str(CHILD), str(backup), "2", "3"], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-4000:]
    seen = Seen()
    resumed = train(keras.callbacks.BackupAndRestore(backup), seen)
    assert seen.epochs == list(range(2, EPOCHS))
    assert set(whole) == set(resumed)
    for name, value in whole.items():
        np.testing.assert_allclose(resumed[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    # Each of them has a state to lose.
    for part in ("seed_generator_state", "vectors", "position", "stage", "momentum"):
        assert any(part in name for name in whole), (part, list(whole))


class Epochs(keras.callbacks.Callback):
    """Notes the epoch of the batches in each epoch of `fit`."""

    def __init__(self, batches):
        super().__init__()
        self.batches, self.seen = batches, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.batches.epoch)


def small(batches=None):
    x, y = np.random.default_rng(0).normal(size=(16, 3)).astype("float32"), np.arange(16) % 4
    model = EmbeddingModel(keras.layers.Dense(3), 2)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    return model, batches or BalancedBatches(x, y, 2, 2, batches_per_epoch=1, seed=0)


@pytest.mark.parametrize("form", ["keyword", "positional", "one", "list of Keras"])
def test_epochs_of_fit_are_those_of_the_batches(form):
    """In a new process they count on; callbacks come in every form that Keras takes."""
    model, batches = small()
    seen = Epochs(batches)
    if form == "positional":
        model.fit(batches, None, None, 5, 0, [seen], initial_epoch=3)
    elif form == "list of Keras":
        callbacks = keras.callbacks.CallbackList([seen], add_history=True, model=model)
        model.fit(batches, epochs=5, initial_epoch=3, verbose=0, callbacks=callbacks)
    else:
        callbacks = seen if form == "one" else [seen]
        model.fit(batches, epochs=5, initial_epoch=3, verbose=0, callbacks=callbacks)
    assert seen.seen == [4, 5]


def test_a_second_training_goes_on_with_new_batches(tmp_path):
    """Also when it is broken off itself: as many epochs further as it had done."""

    def second(first_epochs, *callbacks):
        model, batches = small()
        model.fit(batches, epochs=first_epochs, verbose=0)
        seen = Epochs(batches)
        model.fit(batches, epochs=3, verbose=0, callbacks=[*callbacks, seen])
        return seen.seen

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    whole = second(4)
    assert whole == sorted(set(whole)) and whole[0] > 4
    with pytest.raises(KeyboardInterrupt):
        second(4, keras.callbacks.BackupAndRestore(tmp_path / "backup"), Stop())
    assert second(4, keras.callbacks.BackupAndRestore(tmp_path / "backup")) == whole[2:]


def test_weights_of_a_model_that_draws_something_else_are_loaded(tmp_path):
    """Random states are taken up only by the same model; one without any has none in its file."""
    model, _ = start()
    model(np.zeros((1, 6), "float32"))
    model.save_weights(tmp_path / "some.weights.h5")
    plain, _ = small()
    plain(np.zeros((1, 3), "float32"))
    plain.save_weights(tmp_path / "plain.weights.h5")
    state = keras.ops.convert_to_numpy(random_states(model)[0].value)
    random_states(model)[0].assign(state + 5)
    model.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(random_states(model)[0].value), state)
    assert random_states(plain) == []
    plain.load_weights(tmp_path / "plain.weights.h5")
