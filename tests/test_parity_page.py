"""The table of docs/losses.md: both constructors of a row give the same, live."""

import re
from pathlib import Path

import numpy as np
import pytest
from autodiff import value_and_gradient
from parity import TOLD, batch, torch
from pytorch_metric_learning import losses as pml_losses

from keras_metric import losses

pytestmark = pytest.mark.parity

PAGE = (Path(__file__).parents[1] / "docs" / "losses.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\w+\(.*?\))` \|.*\| `(\w+\(.*?\))` \|$", PAGE, re.M)


def along_the_sphere(slope, x):
    """The part of a gradient that leaves the lengths alone: the peer scales vectors to 1 itself."""
    return slope - (slope * x).sum(1, keepdims=True) * x


# The peer warns of a temperature that is its paper's, and of its own indexing.
@pytest.mark.filterwarnings("ignore:Values of Tp or Tn", "ignore:Using a non-tuple sequence")
@pytest.mark.parametrize(("ours", "theirs"), ROWS)
def test_both_constructors_agree(ours, theirs):
    x, y = batch(20)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")
    loss, peer = eval(ours, dict(vars(losses))), eval(theirs, dict(vars(pml_losses)))
    value, slope = value_and_gradient(lambda z: loss(y, z), x)
    tensor = torch.tensor(x, requires_grad=True)
    expected = peer(tensor, torch.tensor(y))
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4, err_msg=TOLD)
    wanted = along_the_sphere(tensor.grad.numpy(), x)
    limit = 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(
        along_the_sphere(slope, x), wanted, rtol=1e-3, atol=limit, err_msg=TOLD
    )


def test_the_rows_are_found():
    assert len(ROWS) > 20
