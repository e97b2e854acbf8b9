"""The table of docs/losses.md: both constructors of a row give the same, live."""

import re
from pathlib import Path

import numpy as np
import pytest
from parity import batch, compare

pytestmark = pytest.mark.parity

PAGE = (Path(__file__).parents[1] / "docs" / "losses.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\w+\(.*?\))` \|.*\| `(\w+\(.*?\))` \|$", PAGE, re.M)


@pytest.mark.parametrize(("ours", "theirs"), ROWS)
def test_both_constructors_agree(ours, theirs):
    x, y = batch(20)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    compare(eval(f"losses.{ours}"), eval(f"pml_losses.{theirs}"), x.astype("float32"), y)


def test_the_rows_are_found():
    assert len(ROWS) > 20
