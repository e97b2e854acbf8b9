"""An interrupted run resumes and reaches the weights of an uninterrupted run."""

import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from resume_child import EPOCHS, Epochs, build, train

from keras_metric.data import BalancedBatches
from keras_metric.models import EmbeddingModel
from keras_metric.models.loss_layers import random_states

CHILD = Path(__file__).with_name("resume_child.py")


def test_a_run_killed_within_an_epoch_reaches_the_same_weights(tmp_path):
    """Order, augmentation, dropout, random miner, stage, queue, proxies, hard examples, Adam."""
    uninterrupted = train()
    backup = tmp_path / "backup"
    killed = subprocess.run(
        [sys.executable, str(CHILD), str(backup), "2", "3"], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-4000:]
    epochs = Epochs()
    resumed = train(keras.callbacks.BackupAndRestore(backup), epochs)
    assert epochs.recorded == list(range(2, EPOCHS))
    assert set(uninterrupted) == set(resumed)
    for name, value in uninterrupted.items():
        np.testing.assert_allclose(resumed[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    # Each of these is a state that must be restored.
    for part in ("seed_generator_state", "vectors", "position", "stage", "momentum"):
        assert any(part in name for name in uninterrupted), (part, list(uninterrupted))


def small_model_and_batches():
    x, y = np.random.default_rng(0).normal(size=(16, 3)).astype("float32"), np.arange(16) % 4
    model = EmbeddingModel(keras.layers.Dense(3), 2)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    return model, BalancedBatches(x, y, 2, 2, batches_per_epoch=1, seed=0)


@pytest.mark.parametrize("form", ["keyword", "positional", "one", "list of Keras"])
def test_batches_start_at_the_epoch_of_fit(form):
    """In a new process; callbacks may have every form that Keras accepts."""
    model, batches = small_model_and_batches()
    epochs = Epochs(batches)
    if form == "positional":
        model.fit(batches, None, None, 5, 0, [epochs], initial_epoch=3)
    else:
        callbacks = epochs if form == "one" else [epochs]
        if form == "list of Keras":
            callbacks = keras.callbacks.CallbackList(callbacks, add_history=True, model=model)
        model.fit(batches, epochs=5, initial_epoch=3, verbose=0, callbacks=callbacks)
    assert epochs.recorded == [4, 5]


def test_a_second_fit_continues_with_new_batches(tmp_path):
    """Also if it is interrupted and resumed."""

    def second(first_epochs, *callbacks):
        model, batches = small_model_and_batches()
        model.fit(batches, epochs=first_epochs, verbose=0)
        epochs = Epochs(batches)
        model.fit(batches, epochs=3, verbose=0, callbacks=[*callbacks, epochs])
        return epochs.recorded

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    uninterrupted = second(4)
    assert uninterrupted == sorted(set(uninterrupted)) and uninterrupted[0] > 4
    with pytest.raises(KeyboardInterrupt):
        second(4, keras.callbacks.BackupAndRestore(tmp_path / "backup"), Stop())
    resumed = second(4, keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    assert resumed == uninterrupted[2:]


def test_weights_of_a_model_without_random_states_are_loaded(tmp_path):
    """Random states are saved with the weights; a model without them has none in its file."""
    model, _ = build()
    model(np.zeros((1, 6), "float32"))
    model.save_weights(tmp_path / "some.weights.h5")
    plain, _ = small_model_and_batches()
    plain(np.zeros((1, 3), "float32"))
    plain.save_weights(tmp_path / "plain.weights.h5")
    state = keras.ops.convert_to_numpy(random_states(model)[0].value)
    random_states(model)[0].assign(state + 5)
    model.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(random_states(model)[0].value), state)
    assert random_states(plain) == []
    plain.load_weights(tmp_path / "plain.weights.h5")
