"""Devices of tf.distribute give the loss and the gradient of one device with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

LOSSES = Path(__file__).with_name("replicas_child.py")
FORMS = Path(__file__).with_name("forms_child.py")
PARTS = 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute"),
]


def run(*command):
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            # A waiting replica holds a thread; by default TensorFlow has too few on few cores.
            "TF_NUM_INTEROP_THREADS": "16",
            "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("part", range(PARTS))
def test_four_devices_equal_one_for_every_loss_on_one_to_nine_items(tmp_path, part):
    """From three items on each device to one item on one device and none on three."""
    out = tmp_path / "found.json"
    run(LOSSES, out, part, PARTS)
    found = json.loads(out.read_text("utf-8"))
    assert len(found) >= 10
    for name, runs in found.items():
        assert [r["items"] for r in runs] == list(range(1, 10))
        scale = max(r["largest"] for r in runs)
        assert scale > 1e-3, f"{name}: the gradient is zero"
        for r in runs:
            assert r["replicas"] == pytest.approx(r["value"], rel=1e-4, abs=1e-5), (name, r)
            assert r["error"] <= 1e-4 * max(scale, 1), (name, r)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """Return the results of one device for every form."""
    out = tmp_path_factory.mktemp("forms") / "one.npz"
    run(FORMS, 1, out)
    return dict(np.load(out))


@pytest.mark.parametrize("devices", [2, 4])
def test_fit_on_every_form_equals_one_device(one_device, tmp_path, devices):
    """Compare loss, first gradient, and weights after ten steps with batches down to one item."""
    out = tmp_path / "found.npz"
    run(FORMS, devices, out)
    found = dict(np.load(out))
    assert set(found) == set(one_device)
    assert len({key.split("|")[0] for key in one_device}) == 12
    for key, expected in one_device.items():
        np.testing.assert_allclose(found[key], expected, rtol=1e-4, atol=1e-5, err_msg=key)
        if "|last|" in key:
            before, first = (
                expected - one_device[key.replace("last", kind)] for kind in ("before", "first")
            )
            assert np.abs(before).max() > 0.01, f"{key}: the weights hardly changed"
            assert np.abs(first).max() > 0, f"{key}: no change after the first step"
