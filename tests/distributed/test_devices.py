"""Several devices and processes train as one device does: the same loss, gradient and weights.

Each set-up needs processes of its own: devices_child.py. TensorFlow and JAX both run from here.
"""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

CHILD = Path(__file__).with_name("devices_child.py")
PATIENCE = 400
CASES = ("all", "semi-hard", "multi-similarity", "sup-con", "proxy-anchor", "memory", "weighted")
# Of ModelParallel, where the compiler does all: one that needs all columns, and one with proxies.
FEW = ("semi-hard", "proxy-anchor")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="its children run TensorFlow and JAX, whichever backend the tests run on",
    ),
]


def free_ports():
    """The first of two neighbouring ports that nobody listens on."""
    for port in range(21000 + 2 * (os.getpid() % 4000), 40000, 2):
        try:
            for number in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return str(port)
    raise OSError("no two free ports")


def trained(backend, setup, folder, cases=CASES, processes=1):
    """What each process of a set-up wrote."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    # One thread for each of what they are many of; and they look for no proxy on the way to
    # each other.
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "",
        "no_proxy": "127.0.0.1,localhost",
    }
    environment.pop("TF_CONFIG", None)
    outs = [folder / f"{backend}-{setup}-{rank}.npz" for rank in range(processes)]
    children, port = [], free_ports()
    for rank, out in enumerate(outs):
        command = [sys.executable, str(CHILD), setup, str(out), "--rank", str(rank)]
        command += ["--port", port, "--patience", str(PATIENCE), "--cases", *cases]
        with open(out.with_suffix(".log"), "w", encoding="utf-8") as log:
            children.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        for child, out in zip(children, outs):
            if child.wait(timeout=PATIENCE + 60):
                said = out.with_suffix(".log").read_text("utf-8")
                pytest.fail(f"{backend}, {setup}:\n{said[-6000:]}")
    finally:
        for child in children:
            child.kill()
            child.wait()
    return [dict(np.load(out)) for out in outs]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One device with the whole batch: a function of the backend, which trains only once."""
    known = {}

    def of(backend):
        if backend not in known:
            (known[backend],) = trained(backend, "one", tmp_path_factory.mktemp(backend))
        return known[backend]

    return of


def check_equal(found, expected, cases=CASES, mean_rtol=1e-4):
    """Losses, the gradient of the first step, and the weights after twenty.

    `mean_rtol`: for the mean of the loss over the steps after the first.
    """
    for case in cases:
        keys = [key for key in expected if key.startswith(f"{case}|")]
        assert set(keys) == {key for key in found if key.startswith(f"{case}|")}
        for key in keys:
            # What float32 leaves of a gradient that is a difference of weights: 1e-6.
            rtol = mean_rtol if "|loss 20|" in key else 1e-4
            np.testing.assert_allclose(found[key], expected[key], rtol=rtol, atol=1e-5, err_msg=key)
        way = max(np.abs(expected[key]).max() for key in keys if "|way|" in key)
        assert way > 0.05, f"{case}: hardly trained, so the comparison says nothing"


def test_two_devices_of_tensorflow(alone, tmp_path):
    """Also with one share smaller than the other, and with weights of samples."""
    (found,) = trained("tensorflow", "mirrored", tmp_path)
    check_equal(found, alone("tensorflow"))


def test_two_processes_of_tensorflow(alone, tmp_path):
    chief, other = trained("tensorflow", "workers", tmp_path, processes=2)
    assert 0 <= chief.pop("recall") <= 1
    assert other.pop("recall") == -1
    for found in (chief, other):
        # Keras weighs the steps of a worker by the rows that this worker had.
        check_equal(found, alone("tensorflow"), mean_rtol=1e-3)


def test_two_devices_of_jax(alone, tmp_path):
    (found,) = trained("jax", "data", tmp_path)
    check_equal(found, alone("jax"))


def test_a_layer_spread_over_two_devices_of_jax(alone, tmp_path):
    (found,) = trained("jax", "model", tmp_path, FEW)
    check_equal(found, alone("jax"), FEW)


def test_two_processes_of_jax(alone, tmp_path):
    for found in trained("jax", "processes", tmp_path, processes=2):
        check_equal(found, alone("jax"))
