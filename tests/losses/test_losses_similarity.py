"""Table of docs/migrate-tensorflow-similarity.md, compared with values of version 0.17.1.

The values were computed under TensorFlow 2.15.1 on unit vectors of
RandomState(seed).normal(size=(24, 6)), six classes of four. With these seeds the hardest negatives
and the swap of `PNLoss` differ.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from autodiff import step_by_step

from keras_metric import losses

PAGE = Path(__file__).parents[2] / "docs" / "migrate-tensorflow-similarity.md"
SEEDS = (3, 14)
NUMBERS = {
    'TripletLoss("l2", "hard", "hard", margin=m)': (1.7548310, 1.7815825),
    'TripletLoss("l2", "hard", "hard", margin=None)': (1.1467961, 1.1664367),
    'TripletLoss("cosine", "hard", "hard", margin=m)': (1.2147348, 1.2052227),
    'PNLoss("l2", "hard", "hard", margin=m)': (1.7649010, 1.7925581),
    "MultiSimilarityLoss(alpha=2, beta=40, epsilon=0.1, lmda=0.5)": (1.3017503, 1.2882727),
    "SoftNearestNeighborLoss(temperature=1)": (2.0645101, 1.8970064),
    "SimCLRLoss(temperature=0.05)": (28.0310574, 32.5705528),
}
ROWS = {
    was.removeprefix("`").removesuffix("`"): re.search(r"`losses\.(.*?)`", now)
    for was, now in re.findall(r"^\| (.*?) \| (.*) \|$", PAGE.read_text("utf-8"), re.M)
}


@pytest.mark.parametrize("index", range(len(SEEDS)))
@pytest.mark.parametrize("was", NUMBERS)
def test_the_constructor_of_the_table_gives_the_number(was, index):
    x = np.random.RandomState(SEEDS[index]).normal(size=(24, 6))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")
    y = np.repeat(np.arange(6), 4)
    # The margin of the run: 0.3 of cosines, 1 of distances.
    margin = 0.3 if "cosine" in was else 1.0
    loss = eval(ROWS[was][1], {**vars(losses), "m": margin})
    expected = NUMBERS[was][index]
    if was.startswith("SimCLR"):
        # Two views of twelve items, and the sum over both where ours is the mean.
        x, y, expected = np.stack([x[:12], x[12:]], axis=1), np.arange(12), expected / 2
    assert float(step_by_step(loss)(y, x)) == pytest.approx(expected, rel=1e-5)
