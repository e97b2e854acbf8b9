"""Live beside tensorflow-addons, which runs in a process of its own, on fresh random batches."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from autodiff import value_and_gradient

from keras_metric import losses

PYTHON = os.environ.get("KERAS_METRIC_TFA_PYTHON")
SEED = int(os.environ.get("KERAS_METRIC_SEED", np.random.default_rng().integers(2**31)))

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not PYTHON, reason="make parity sets KERAS_METRIC_TFA_PYTHON"),
]


def triplet(**settings):
    return losses.TripletLoss(1.0, reduction="mean_valid", **settings)


CASES = {
    "semi-hard": (triplet(), "TripletSemiHardLoss", {}),
    "semi-hard squared": (
        triplet(distance="squared_euclidean"),
        "TripletSemiHardLoss",
        {"distance_metric": "squared-L2"},
    ),
    "semi-hard angular": (
        triplet(distance="cosine"),
        "TripletSemiHardLoss",
        {"distance_metric": "angular"},
    ),
    "hard": (triplet(mining="hard"), "TripletHardLoss", {}),
    "hard, soft margin": (
        losses.TripletLoss(0, mining="hard", form="soft_margin", reduction="mean_valid"),
        "TripletHardLoss",
        {"soft": True},
    ),
    "lifted structure": (losses.LiftedStructureLoss(), "LiftedStructLoss", {}),
}


def batch(extra):
    rng = np.random.default_rng([SEED, extra])
    # Two of each class at least: tensorflow-addons gives an anchor without a positive a term too.
    labels = np.concatenate([np.repeat(np.arange(6), 2), rng.choice(6, size=20)])
    return rng.uniform(size=(32, 7)).astype("float32"), rng.permutation(labels)


@pytest.fixture(scope="module", params=range(2))
def answers(request):
    """A batch, and what tensorflow-addons makes of it in each case."""
    x, y = batch(request.param)
    question = {"x": x.tolist(), "y": y.tolist(), "calls": [case[1:] for case in CASES.values()]}
    done = subprocess.run(
        [PYTHON, str(Path(__file__).with_name("addons_oracle.py"))],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        # Its Python must not find the packages of ours.
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    if done.returncode:
        pytest.fail(f"tensorflow-addons in {PYTHON} failed:\n{done.stderr[-2000:]}")
    return x, y, dict(zip(CASES, json.loads(done.stdout)))


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient(case, answers):
    x, y, theirs = answers
    value, slope = value_and_gradient(lambda z: CASES[case][0](y, z), x)
    told = f"KERAS_METRIC_SEED={SEED} repeats this batch"
    np.testing.assert_allclose(value, theirs[case][0], rtol=1e-4, err_msg=told)
    np.testing.assert_allclose(slope, theirs[case][1], rtol=1e-3, atol=1e-5, err_msg=told)
