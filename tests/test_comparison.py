"""The comparison page agrees with the scripts that it compares."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "comparison"
PAGE = (ROOT / "docs" / "comparison.md").read_text("utf-8")


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("comparison_run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(text):
    """The numbers of each row: lines, CPU, training and elapsed seconds, recall."""
    found = re.findall(r"^\| \[([^\]]+)\]\(.*?\) \| (.*) \|$", text, re.M)
    cells = {name: row.split(" | ") for name, row in found}
    return {
        name: [float(c.split()[0]) for c in row if re.match(r"-?\d", c)]
        for name, row in cells.items()
    }


def test_the_page_shows_our_script_as_it_is():
    (shown,) = re.findall(r"^```py\n(.*?)^```", PAGE, re.M | re.S)
    assert (FOLDER / "siamese_keras_metric.py").read_text("utf-8").endswith(f'"""\n\n{shown}')


def test_the_table_counts_the_scripts_as_they_are(runner):
    rows = rows_of(PAGE)
    assert set(rows) == set(runner.SCRIPTS)
    lines = {name: runner.lines_of_code(FOLDER / path) for name, path in runner.SCRIPTS.items()}
    assert {name: row[0] for name, row in rows.items()} == lines, "Run benchmarks/comparison/run.py"
    assert min(lines, key=lines.get) == "keras_metric"


def test_lines_of_code_are_counted_as_the_page_says(runner, tmp_path):
    path = tmp_path / "script.py"
    path.write_text('"""One.\n\nTwo.\n"""\n\n# A comment.\nx = 1  # counted\n\nif x:\n    x = 2\n')
    assert runner.lines_of_code(path) == 3


def test_recall_of_pixels(runner, rng):
    labels = np.arange(40) % 4
    images = (60 * labels + rng.integers(5, size=(9, 40))).T.reshape(40, 3, 3)
    assert runner.recall_of_pixels(images, labels) == 1
    # A class with one image: its nearest other image is of another class.
    assert runner.recall_of_pixels(images[3:5], labels[3:5]) == 0


@pytest.mark.slow
def test_the_scripts_run_and_the_page_is_written(runner, rng, monkeypatch):
    pytest.importorskip("pytorch_metric_learning", reason="one of the scripts needs it")
    labels = rng.permutation(np.arange(640) % 10)
    images = rng.integers(60, size=(640, 28, 28)).astype("uint8")
    # Each digit has a bright square at its own position, so that the classes can be learned.
    for image, label in zip(images, labels):
        image[9 * (label // 4) : 9 * (label // 4) + 6, 7 * (label % 4) :][:, :6] = 255
    np.savez("mnist.npz", x_train=images, y_train=labels, x_test=images[::4], y_test=labels[::4])
    Path("page.md").write_text(f"above\n\n{runner.LINE}\n\nold\n")
    arguments = ["run.py", "--data", "mnist.npz", "--epochs", "2", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--page", "page.md"])
    runner.main()
    text = Path("page.md").read_text()
    assert text.startswith("above") and "old" not in text
    rows = rows_of(text)
    assert set(rows) == set(runner.SCRIPTS)
    for name, (_, cpu, training, elapsed, recall, untrained) in rows.items():
        # The training is so short that its time varies as much as the time of the start.
        assert training < cpu and elapsed > 0
        assert recall > 0.5 and 0 <= untrained <= 1, f"{name}: {recall}"
