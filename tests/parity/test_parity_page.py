"""Tables of the documentation: both constructors of a row have the same value and gradient."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from autodiff import value_and_gradient
from peers import SEED_HINT, batch, torch
from pytorch_metric_learning import losses as pml_losses

from keras_metric import losses

pytestmark = pytest.mark.parity

DOCS = Path(__file__).parents[2] / "docs"
LOSSES = (DOCS / "losses.md").read_text("utf-8")
MOVING = (DOCS / "migrate-pytorch-metric-learning.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\w+\(.*?\))` \|.*\| `(\w+\(.*?\))` \|$", LOSSES, re.M)
# In this table the peer is in the first column.
MOVED = [row[::-1] for row in re.findall(r"^\| `(\w+\(.*\))` \| `(\w+\(.*\))` \|$", MOVING, re.M)]


def along_the_sphere(gradient, x):
    """Tangential part of a gradient; the peer normalises vectors inside the loss."""
    return gradient - (gradient * x).sum(1, keepdims=True) * x


# The peer warns about the temperature of the paper, and about its own indexing.
@pytest.mark.filterwarnings("ignore:Values of Tp or Tn", "ignore:Using a non-tuple sequence")
@pytest.mark.parametrize(("ours", "theirs"), ROWS + MOVED)
def test_both_constructors_agree(ours, theirs):
    x, y = batch(20)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")
    loss, peer = eval(ours, dict(vars(losses))), eval(theirs, dict(vars(pml_losses)))
    value, gradient = value_and_gradient(lambda z: loss(y, z), x)
    tensor = torch.tensor(x, requires_grad=True)
    expected = peer(tensor, torch.tensor(y))
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4, err_msg=SEED_HINT)
    expected_gradient = along_the_sphere(tensor.grad.numpy(), x)
    limit = 1e-4 * np.abs(expected_gradient).max()
    np.testing.assert_allclose(
        along_the_sphere(gradient, x), expected_gradient, rtol=1e-3, atol=limit, err_msg=SEED_HINT
    )


def test_the_rows_are_found():
    assert len(ROWS) > 20 and len(MOVED) > 20


def test_the_script_of_the_peer_runs():
    """The script "before" of the page runs and prints the stated measures."""
    (script,) = re.findall(r"^```py\n(.*?)^```", MOVING, re.M | re.S)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    measures = eval(done.stdout.splitlines()[-1])
    assert measures["precision_at_1"] > 0.9 and measures["r_precision"] > 0.5


@pytest.mark.parametrize(
    "module",
    [
        *("distances", "losses", "miners", "reducers"),
        *("regularizers", "samplers", "testers", "trainers"),
    ],
)
def test_every_name_of_the_peer_is_on_the_page(module):
    module = importlib.import_module(f"pytorch_metric_learning.{module}")
    names = {name for name, thing in vars(module).items() if isinstance(thing, type)}
    names = {name for name in names if not re.match("Base|.*Mixin$", name)}
    missing = {name for name in names if not re.search(rf"\b{name}\b", MOVING)}
    assert names and not missing, f"The page does not name {sorted(missing)}."
