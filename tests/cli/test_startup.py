"""TensorFlow's start-up messages are hidden; errors, warnings and other lines are shown."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What TensorFlow 2.21 writes without a GPU, from two of its C++ libraries.
MESSAGES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795934191.478414   31395 port.cc:153] oneDNN custom operations are on. You may see \
slightly different numerical results.
I0000 00:00:1795934191.478795   31395 cudart_stub.cc:31] Could not find cuda drivers on your machine
"""
ERROR = "E0000 00:00:1795934191.478900   31395 loader.cc:9] A library could not be loaded.\n"
FATAL = "F0000 00:00:1795934191.478901   31395 guard.cc:9] Compiled for AVX, which is missing.\n"
SCRIPT = """
import sys
from keras_metric_startup import hide_tensorflow_startup_messages
hide_tensorflow_startup_messages()
hide_tensorflow_startup_messages()
import importlib.util
assert importlib.util.find_spec("tensorflow") is not None
print("before", file=sys.stderr)
import tensorflow
print(tensorflow.answer)
sys.stderr.write(tensorflow.MESSAGES)
"""


def run(tmp_path, code, script=SCRIPT, **environment):
    """Run a script with a stand-in for TensorFlow that executes `code` when it is imported."""
    tmp_path.joinpath("tensorflow.py").write_text(
        f"import os, sys, warnings\nMESSAGES = {MESSAGES!r}\nos.write(2, MESSAGES.encode())\n"
        f"{code}\nos.write(2, MESSAGES.encode())\nanswer = 42\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )


def test_messages_during_the_import_are_hidden_and_later_ones_are_not(tmp_path):
    done = run(tmp_path, "")
    assert (done.returncode, done.stdout) == (0, "42\n")
    assert done.stderr == "before\n" + MESSAGES


def test_level_0_shows_them(tmp_path):
    done = run(tmp_path, "", TF_CPP_MIN_LOG_LEVEL="0")
    assert done.stderr == "before\n" + 3 * MESSAGES


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (f"os.write(2, {ERROR.encode()!r})", ERROR),
        ("warnings.warn('this is old', UserWarning)", "UserWarning: this is old"),
        ("print('half a line', end='', file=sys.stderr)", "half a line"),
        ("raise ImportError('broken installation')", "ImportError: broken installation"),
        # The process crashes after its last message.
        (f"os.write(2, {FATAL.encode()!r}); os.abort()", FATAL),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_everything_else_appears(tmp_path, code, shown):
    done = run(tmp_path, code)
    assert done.stderr.startswith("before\n") and shown in done.stderr
    failed = any(word in code for word in ("raise", "abort"))
    assert (done.returncode != 0) == failed
    assert done.stderr.count("oneDNN") == (0 if failed else 1)


def test_without_stderr_or_tensorflow_an_import_is_as_before(tmp_path):
    (tmp_path / "tensorflow.py").write_text("answer = 42")
    start = (
        f"import os, sys; sys.path[:0] = [{str(ROOT)!r}]" + SCRIPT.partition("import importlib")[0]
    )
    closed = f"{start}sys.path[:0] = [{str(tmp_path)!r}]; os.close(2)\nimport tensorflow"
    # Without site-packages, so that the real TensorFlow is not found.
    for code, shown in (
        (closed, ""),
        (f"{start}import tensorflow", "No module named 'tensorflow'"),
    ):
        command = [sys.executable, "-I", "-S", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == bool(shown) and shown in done.stderr


def test_keras_starts_silently():
    code = SCRIPT.partition("import importlib")[0] + "import keras, tensorflow\n"
    environment = {
        name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
