"""Model files of version 0.1.0 load, give the same numbers, train on and can be saved again."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_metric  # noqa: F401 - registers its classes for loading

SAVED = Path(__file__).parents[1] / "saved_by_0.1.0"
EXPECTED = dict(np.load(SAVED / "expected.npz"))
# Random proxies, and a random choice of negatives.
RANDOM = ("ManifoldLoss", "TripletLoss(distance-weighted)")


def inputs_of(name):
    """x and y for one training step of a model."""
    x, views = EXPECTED["x"], EXPECTED["views"]
    if name == "labelled":
        return x, EXPECTED["y"]
    if name == "quadruplets":
        names = ("anchor", "positive", "negative", "second_negative")
        return {branch: x[i::4] for i, branch in enumerate(names)}, None
    first, second = (views[:, 0], views[:, 1]) if name == "views" else (x, x)
    return {"first": first, "second": second}, np.arange(len(first))


def described(loss):
    strategy = getattr(getattr(loss, "miner", None), "strategy", None)
    return type(loss).__name__ + (f"({strategy})" if strategy == "distance-weighted" else "")


@pytest.mark.parametrize("name", ["labelled", "quadruplets", "two_towers", "views"])
def test_trains_on_and_is_saved_again(name, tmp_path):
    model = keras.models.load_model(SAVED / f"{name}.keras")
    x, y = inputs_of(name)
    before = [np.array(weight) for weight in model.get_weights()]
    history = model.fit(x, y, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert any((old != new).any() for old, new in zip(before, model.get_weights()))
    model.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    config, expected = (json.dumps(m.loss.get_config(), sort_keys=True) for m in (again, model))
    assert config == expected
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("name", "x", "embeddings", "values", "y"),
    [
        ("labelled", "x", "embeddings", "losses", EXPECTED["y"]),
        ("views", "views", "view_embeddings", "view_losses", np.arange(8)),
    ],
)
def test_gives_the_same_numbers(name, x, embeddings, values, y):
    """Embeddings, and the value of each loss, whose arguments had other names in 0.1.0."""
    model = keras.models.load_model(SAVED / f"{name}.keras")
    x = EXPECTED[x]
    found = model.encoder.predict(x.reshape(-1, x.shape[-1]), verbose=0)
    expected = EXPECTED[embeddings]
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
    compared = 0
    for loss, value in zip((term for _, term in model.loss.terms), EXPECTED[values], strict=True):
        if described(loss) not in RANDOM:
            found = float(loss(y, expected))
            np.testing.assert_allclose(found, value, rtol=1e-4, err_msg=described(loss))
            compared += 1
    assert compared == len(EXPECTED[values]) - (len(RANDOM) if name == "labelled" else 0)
