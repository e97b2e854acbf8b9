"""Two devices of tf.distribute give the loss and the gradient of one with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

CHILD = Path(__file__).with_name("replicas_child.py")


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")
def test_two_devices_give_what_one_gives(tmp_path):
    """Shares of 12 and 11 items; the two shares of the value sum up to it."""
    out = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, str(CHILD), str(out)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(out.read_text("utf-8"))
    assert set(found) == {"semi-hard", "weighted", "memory", "proxy-anchor"}
    for name, case in found.items():
        assert sum(case["shares"]) == pytest.approx(case["value"], rel=1e-5), name
        assert case["largest"] > 1e-2, name
        assert case["error"] < 1e-5 * case["largest"], name
