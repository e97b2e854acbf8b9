"""Two processes of torch.distributed train like one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

ON_TORCH = pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch.distributed")
HERE = Path(__file__).parent
LOSSES, TRAINING = HERE / "processes_child.py", HERE / "ddp_child.py"
TIMEOUT = 600


class Children:
    """Runs of a script in several processes, whose results are in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.running = {}

    def start(self, name, script, *arguments):
        """Start `script OUT ...`, on torch."""
        pytest.importorskip("torch")
        out = self.folder / f"{name}.npz"
        path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""}
        environment["PYTHONPATH"] = path
        with open(out.with_suffix(".log"), "w", encoding="utf-8") as log:
            command = [sys.executable, str(script), str(out), *map(str, arguments)]
            self.running[out] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def logs(self, expected=0):
        """Return what all runs wrote to the console, by name."""
        logs = {}
        for out, child in self.running.items():
            code = child.wait(timeout=TIMEOUT)
            logs[out.stem] = log = out.with_suffix(".log").read_text("utf-8")
            assert code == expected, f"{out.stem}:\n{log[-4000:]}"
        return logs

    def results(self):
        """Return the results of all runs, by name."""
        for log in self.logs().values():
            assert "UserWarning" not in log, log[-4000:]
        return {out.stem: dict(np.load(out)) for out in self.running}

    def kill(self):
        for child in self.running.values():
            child.kill()
            child.wait()


@pytest.fixture
def children(tmp_path):
    started = Children(tmp_path)
    yield started
    started.kill()


def check_equal(found, expected):
    """Compare losses, gradients of the first step, and last weights."""
    for key, values in found.items():
        np.testing.assert_allclose(values, expected[key], rtol=1e-4, atol=1e-5, err_msg=key)


@ON_TORCH
def test_two_processes_train_like_one(children, tmp_path):
    """The first process runs here, which saves time; one loss with learned weights, one without."""
    import ddp_child

    cases = ("arc-face", "module")
    store = tmp_path / "store"
    children.start("second", TRAINING, store, 1, 2, *cases)
    expected = ddp_child.results(cases, None, 0, 1)
    found = ddp_child.results(cases, store, 0, 2)
    assert len(found) > 10
    check_equal(found, expected)
    check_equal(children.results()["second"], expected)


@pytest.mark.slow
def test_every_training_equals_that_of_one_process(children, tmp_path):
    """Loops with DDP and `fit`, for every strategy of mining, proxies, queues and chunks."""
    children.start("one", TRAINING, "none", 0, 1)
    for rank in range(2):
        children.start(f"{rank}", TRAINING, tmp_path / "store", rank, 2)
    found = children.results()
    cases = {key.split("|")[0] for key in found["one"]}
    assert len(cases) > 20 and set(found["0"]) == set(found["one"])
    for rank in "01":
        assert len(found[rank]) > 150
        check_equal(found[rank], found["one"])
    for case in cases:
        largest = [np.abs(v).max() for k, v in found["one"].items() if f"{case}|gradient" in k]
        assert max(largest) > 1e-2, f"{case}: the gradient is zero"


@pytest.mark.slow
def test_every_loss_equals_that_of_one_process(children, tmp_path):
    """Also on parts of unequal size, and without any item in one of the processes."""
    for rank in range(2):
        children.start(f"{rank}", LOSSES, tmp_path / "store", rank)
    found = children.results()
    expected = {key: value for key, value in found["0"].items() if "|one|" in key}
    largest = {}
    for key, value in expected.items():
        case, _, _, kind = key.split("|")
        both = [found[rank][key.replace("|one|", "|two|")] for rank in "01"]
        if kind == "own rows":
            both = [np.concatenate(both)]
        if kind == "gradient":
            # DDP averages the gradients of the encoder.
            both = [np.concatenate(both) / 2]
            largest[case] = max(largest.get(case, 0), np.abs(value).max())
        for one in both:
            np.testing.assert_allclose(one, value, rtol=1e-4, atol=1e-5, err_msg=key)
    assert len(largest) > 80 and min(largest.values()) > 1e-3, largest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "code", "message"),
    [
        ("no DDP", 0, "UserWarning: triplet_loss: the trainable weights of the model or of the"),
        ("dtypes", 1, "ValueError: All processes of torch.distributed must call the loss with"),
    ],
)
def test_a_fault_is_reported(children, tmp_path, case, code, message):
    """Each process trains another model; or labels have two dtypes."""
    for rank in range(2):
        children.start(f"{rank}", TRAINING, tmp_path / "store", rank, 2, case)
    for log in children.logs(code).values():
        assert log.count(message) == 1, log
