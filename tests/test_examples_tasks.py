"""The examples of single tasks run with --short, without data, and print their results."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from test_examples import run

pytestmark = pytest.mark.slow


def rows_of(printed):
    """Return the rows of the printed tables as a dict from name to numbers."""
    found = re.findall(r"^(\S.*?)((?: +\d\.\d{3})+)$", printed, re.M)
    return {name.strip(): [float(value) for value in values.split()] for name, values in found}


def check_written(folder, *names):
    for name in names:
        assert Path(folder, name).exists(), f"{name} was not written"


def test_text():
    pytest.importorskip("rapidfuzz")
    printed = run("text.py", "--short")
    rows = rows_of(printed)
    assert {"edit distance", "Jaccard, words", "TF-IDF, words", "SVD + LDA", "trained"} <= set(rows)
    # Twenty intents: a random answer has accuracy 0.05.
    assert re.search(r"^trained +0\.[3-9]\d\d +0\.[3-9]\d\d$", printed, re.M), printed
    assert float(re.search(r"whole encoder: embeddings differ by (\S+)", printed).group(1)) < 1e-5
    check_written("runs/text", "questions.keras", "pairs.keras", "questions.png", "distances.png")


def test_text_from_files():
    lines = [f'{{"text": "{w} {i} {w}s", "kind": "{w}"}}' for i in range(9) for w in ("red", "big")]
    Path("questions").mkdir()
    for part in ("train", "test"):
        Path("questions", f"{part}.jsonl").write_text("\n".join(lines), "utf-8")
    printed = run("text.py", "--short", "--data", "questions", "--label", "kind")
    assert printed.startswith("18 training questions, 18 test questions")


def test_features():
    printed = run("features.py", "--short")
    rows = rows_of(printed)
    # Identity initialization returns the raw vectors; random initialization does not.
    raw, start = rows["raw vectors"][0], rows["linear, identity"][0]
    assert abs(raw - start) < 0.002 and rows["linear, random"][0] < raw
    assert {"random", "raw columns", "standardized columns"} <= set(rows)
    # The last table is that of the patients. With two diagnoses, random results would be 0.5.
    assert rows["trained"][0] > 0.8
    check_written(
        "runs/features", "synthetic.keras", "synthetic.png", "payments.keras", "patients.keras"
    )


def test_features_from_a_file(rng):
    y = np.repeat(np.arange(8), 10)
    np.savez("vectors.npz", x=rng.normal(size=(8, 12))[y] + 0.3 * rng.normal(size=(80, 12)), y=y)
    printed = run("features.py", "--short", "--part", "vectors", "--data", "vectors.npz")
    assert "40 test vectors of 4 classes" in printed


def test_selfsupervised():
    pytest.importorskip("mlxtend")
    for loss in ("ntxent", "vicreg"):
        printed = run("selfsupervised.py", "--short", "--loss", loss)
        assert f"views, {loss}, no labels" in rows_of(printed)
    check_written("runs/selfsupervised", "encoder.keras", "neighbors.png", "embeddings.png")


def test_recommend():
    printed = run("recommend.py", "--short")
    rows = rows_of(printed)
    # Sixty steps on 200 users are enough to be better than a random order.
    assert rows["trained, with popularity"][2] > rows["random"][2]
    check_written("runs/recommend", "users.keras", "items.keras", "index", "items.png")


def test_recommend_from_a_file(rng):
    rows = {f"ann{u},tea{i}" for u in range(30) for i in rng.permutation(20)[:8]}
    Path("pairs.csv").write_text("user,item\n" + "\n".join(rows), "utf-8")
    printed = run("recommend.py", "--short", "--data", "pairs.csv")
    assert printed.startswith("30 users, 20 items: 180 training pairs,")


def test_attention():
    rows = rows_of(run("attention.py", "--short"))
    assert {f"{p}, {s}" for p in ("attention", "max") for s in ("trained", "untrained")} <= set(
        rows
    )
    check_written("runs/attention", "encoder.keras", "embeddings.png", "distances.png")


def test_transfer():
    printed = run("transfer.py", "--short")
    # Kernel and bias of the head have the higher learning rate.
    assert "fine-tuning: 2 variables at 0.0001" in printed
    assert {"features", "features, trained head", "fine-tuned"} <= set(rows_of(printed))
    check_written("runs/transfer", "encoder.keras", "neighbors.png")


def test_transfer_from_a_folder_with_a_saved_model(rng):
    for label in range(4):
        Path("photos", str(label)).mkdir(parents=True)
        for i in range(4):
            image = rng.uniform(0, 255, (8, 8, 3)) + 40 * label
            keras.utils.save_img(f"photos/{label}/{i}.png", image, scale=False)
    keras.Sequential([keras.layers.Input((64, 64, 3)), keras.layers.Conv2D(4, 3, strides=4)]).save(
        "mine.keras"
    )
    printed = run("transfer.py", "--short", "--data", "photos", "--model", "mine.keras")
    assert printed.startswith("8 training images of 2 classes, 8 test images of 2 other classes")
