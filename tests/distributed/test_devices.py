"""Several devices and processes give the loss, gradient and weights of one device.

Each set-up runs devices_child.py in separate processes, with TensorFlow and with JAX.
"""

import functools
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
TIMEOUT = 400
CASES = ("all", "semi-hard", "multi-similarity", "sup-con", "proxy-anchor", "memory", "weighted")
# For ModelParallel, which the compiler implements: a loss of all columns, and one with proxies.
FEW = ("semi-hard", "proxy-anchor")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="the child processes run TensorFlow and JAX for every backend",
    ),
]


def free_ports():
    """Return the first of two adjacent free ports."""
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
    """Return the results of each process of a set-up."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    # The processes connect to each other without a proxy.
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
        command += ["--port", port, "--timeout", str(TIMEOUT), "--cases", *cases]
        with open(out.with_suffix(".log"), "w", encoding="utf-8") as log:
            children.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        for child, out in zip(children, outs):
            if child.wait(timeout=TIMEOUT + 60):
                log = out.with_suffix(".log").read_text("utf-8")
                pytest.fail(f"{backend}, {setup}:\n{log[-6000:]}")
    finally:
        for child in children:
            child.kill()
            child.wait()
    return [dict(np.load(out)) for out in outs]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """Return a function of the backend that trains once on one device with the whole batch."""
    return functools.cache(
        lambda backend: trained(backend, "one", tmp_path_factory.mktemp(backend))[0]
    )


def check_equal(found, expected, cases=CASES, mean_rtol=1e-4):
    """Compare losses, the gradient of the first step, and the weights after twenty steps.

    `mean_rtol` is the tolerance of the mean loss over the steps after the first.
    """
    for case in cases:
        keys = [key for key in expected if key.startswith(f"{case}|")]
        assert set(keys) == {key for key in found if key.startswith(f"{case}|")}
        for key in keys:
            # The gradient is a difference of weights in float32, with an error of 1e-6.
            rtol = mean_rtol if "|loss 20|" in key else 1e-4
            np.testing.assert_allclose(found[key], expected[key], rtol=rtol, atol=1e-5, err_msg=key)
        change = max(np.abs(expected[key]).max() for key in keys if "|change|" in key)
        assert change > 0.05, f"{case}: the weights hardly changed"


def test_two_devices_of_tensorflow(one_device, tmp_path):
    """Also with parts of different size, and with sample weights."""
    (found,) = trained("tensorflow", "mirrored", tmp_path)
    check_equal(found, one_device("tensorflow"))


def test_two_processes_of_tensorflow(one_device, tmp_path):
    chief, other = trained("tensorflow", "workers", tmp_path, processes=2)
    assert 0 <= chief.pop("recall") <= 1
    assert other.pop("recall") == -1
    for found in (chief, other):
        # Keras weights the steps of a worker by the number of its rows.
        check_equal(found, one_device("tensorflow"), mean_rtol=1e-3)


def test_two_devices_of_jax(one_device, tmp_path):
    (found,) = trained("jax", "data", tmp_path)
    check_equal(found, one_device("jax"))


def test_a_layer_sharded_over_two_devices_of_jax(one_device, tmp_path):
    (found,) = trained("jax", "model", tmp_path, FEW)
    check_equal(found, one_device("jax"), FEW)


def test_two_processes_of_jax(one_device, tmp_path):
    for found in trained("jax", "processes", tmp_path, processes=2):
        check_equal(found, one_device("jax"))
