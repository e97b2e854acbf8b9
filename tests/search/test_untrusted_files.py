"""Untrusted files: they run no code, refer to no other files, and damage is named.

The author of an index can also compute its checksums, so the forged folders below have valid ones.
"""

import hashlib
import json
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_metric import cli, datasets, models
from keras_metric.search import Index
from keras_metric.search.storage import manifest
from keras_metric.search.storage.journal import encode_change

DIM = 4
VECTORS = np.random.default_rng(0).normal(size=(20, DIM)).astype("float32")
LABELS = [f"p{row % 4}" for row in range(20)]
ATTRIBUTES = [{"region": "r1", "age": row, "in": row % 2 == 0} for row in range(20)]


class Trap:
    """An object that creates a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def code_has_run():
    return Path("sprung").exists()


def saved(**arguments):
    """Save a valid index, with a journal, in the folder `index`."""
    index = Index(DIM, metric="euclidean", **arguments)
    index.add(VECTORS, LABELS, attributes=ATTRIBUTES)
    index.calibrate(false_accept_rate=0.5)
    index.keep("index")
    index.add(VECTORS[:1] + 1, ["new"], attributes=[{"age": 3}])
    index.close()
    assert len(Index.load("index")) == 21


def body():
    return json.loads(Path("index/manifest.json").read_text())["body"]


def forge(change=lambda body: None):
    """Change the manifest, and update its sizes and checksums of the files."""
    made = body()
    change(made)
    folder = Path("index") / str(made.get("data"))
    if isinstance(made.get("files"), dict) and folder.is_dir():
        for name in made["files"]:
            file = folder / name
            if file.is_file() and made["files"][name]:
                content = file.read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                made["files"][name] = {"bytes": len(content), "sha256": digest}
    Path("index/manifest.json").write_text(manifest.manifest_text(made))


def part(name):
    return Path("index") / body()["data"] / name


def names(change):
    path = part("names.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


MANIFESTS = {
    "data above": lambda b: b.update(data="../data-" + "0" * 32),
    "data absolute": lambda b: b.update(data="/etc"),
    "data of no text": lambda b: b.update(data=None),
    "a file above": lambda b: b["files"].update({"../../secret.npy": {"bytes": 1, "sha256": ""}}),
    "an absolute file": lambda b: b["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}),
    "a file of code": lambda b: b["files"].update({"run.py": {"bytes": 1, "sha256": ""}}),
    "a file without its size": lambda b: b["files"].update({"names.json": {}}),
    "no files": lambda b: b.update(files={}),
    "files as a list": lambda b: b.update(files=["names.json"]),
    "the journal above": lambda b: b.update(journal="../journal-" + "0" * 32),
    "the journal absolute": lambda b: b.update(journal="/dev/zero"),
    "dim of text": lambda b: b.update(dim="4"),
    "dim of a list": lambda b: b.update(dim=[4]),
    "no metric": lambda b: b.pop("metric"),
    "settings of a list": lambda b: b.update(settings=[1]),
    "a point too short": lambda b: b.update(operating_points=[["nearest", 1.0]]),
    "a point of text": lambda b: b.update(operating_points=[["nearest", *["x"] * 6]]),
    "a point beyond the floats": lambda b: b["operating_points"][0].__setitem__(1, 10**400),
    "a rate beyond the floats": lambda b: b["operating_points"][0].__setitem__(2, -(10**400)),
    "a count beyond the floats": lambda b: b["operating_points"][0].__setitem__(4, 10**400),
    "a point of NaN": lambda b: b["operating_points"][0].__setitem__(1, float("nan")),
    "a count of NaN": lambda b: b["operating_points"][0].__setitem__(5, float("nan")),
    "dim of infinity": lambda b: b.update(dim=float("inf")),
    "version of infinity": lambda b: b.update(version=float("inf")),
    "version of NaN": lambda b: b.update(version=float("nan")),
    "points of a number": lambda b: b.update(operating_points=3),
    "another argument as address": lambda b: b.update(address={"encoder": "x"}),
    "an address of no text": lambda b: b.update(address={"uri": 3}),
    "a fingerprint of no text": lambda b: b.update(fingerprint=3),
    "version of truth": lambda b: b.update(version=True),
}


@pytest.mark.parametrize("change", MANIFESTS)
def test_a_forged_manifest_is_rejected(change):
    saved()
    forge()
    assert len(Index.load("index")) == 21
    forge(MANIFESTS[change])
    with pytest.raises(ValueError, match=r"manifest\.json"):
        Index.load("index")


@pytest.mark.parametrize("dim", [0, -1, 5, 10**9, 2**63, 10**400])
def test_another_width_is_detected(dim):
    saved()
    forge(lambda b: b.update(dim=dim))
    with pytest.raises(ValueError, match="dim|vectors.npy"):
        Index.load("index")


@pytest.mark.parametrize(
    "settings",
    [{"train_at": value} for value in (10**400, float("inf"), float("nan"), "x", [1], 0, -1, True)]
    + [{name: 10**400} for name in ("M", "ef_construction", "ef_search", "rerank")],
)
def test_forged_settings_are_rejected(settings):
    saved(kind="hnsw", settings={"train_at": 10})
    forge(lambda b: b["settings"].update(settings))
    with pytest.raises(ValueError, match=next(iter(settings))):
        Index.load("index")


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan"), -1, "x", None])
def test_forged_file_sizes_are_rejected(value):
    saved()
    made = body()
    made["files"]["labels.npy"]["bytes"] = value
    Path("index/manifest.json").write_text(manifest.manifest_text(made))
    with pytest.raises(ValueError, match=r"labels\.npy.* damaged"):
        Index.load("index")


@pytest.mark.parametrize("text", ["", "x", "[]", "3", "null", '{"body": 3}', "[" * 10**5, "\0"])
def test_an_unreadable_manifest_is_named(text):
    saved()
    Path("index/manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json .* damaged"):
        Index.load("index")


@pytest.mark.parametrize("part", ["data", "file", "journal", "manifest"])
def test_links_are_rejected(part):
    saved()
    shutil.copytree("index", "elsewhere")
    names = {"data": body()["data"], "journal": body()["journal"], "manifest": "manifest.json"}
    names["file"] = f"{names['data']}/vectors.npy"
    path = Path("index") / names[part]
    target = (Path("elsewhere") / path.relative_to("index")).resolve()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(target)
    with pytest.raises(ValueError, match="link"):
        Index.load("index")


def _npy(header, content=b""):
    header = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (20, 4)}"
FILES = {
    "a pickle": pickle.dumps(Trap()),
    "no array at all": b"hello",
    "nothing": b"",
    "a huge size": _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4)}"),
    "a negative size": _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}"),
    "code as a header": _npy("__import__('os').mkdir('sprung')"),
    "objects": _npy(OBJECTS, b"\0" * 640),
    "a later format": b"\x93NUMPY\x09\x00" + b"\0" * 99,
    "pickled objects": _npy(OBJECTS, pickle.dumps(np.array([Trap()] * 20, object))),
}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("vectors", content) for content in FILES),
        ("labels", np.full(20, 99, "int32")),
        ("labels", np.full(20, -1, "int32")),
        ("labels", np.zeros(20, "float64")),
        ("vectors", np.full((20, DIM), np.nan, "float32")),
        ("vectors", np.zeros((20, DIM + 1), "float32")),
        ("column-0-codes", np.full(20, 7, "int32")),
        ("column-1-numbers", np.zeros(3)),
        ("column-2-flags", np.full(20, 5, "int8")),
    ],
)
def test_forged_arrays_are_rejected(file, content):
    saved()
    if isinstance(content, str):
        part(f"{file}.npy").write_bytes(FILES[content])
    else:
        np.save(part(f"{file}.npy"), content)
    forge()
    with pytest.raises(ValueError, match=rf"{file}\.npy"):
        Index.load("index")
    assert not code_has_run()


NAMES = {
    "no JSON": "x",
    "a list": "[]",
    "deep": "[" * 10**5,
    "ids of lists": {"ids": [[1]] * 20},
    "ids that are equal": {"ids": [1] * 20},
    "ids of numbers with a point": {"ids": [0.5] * 20},
    "an id less": {"ids": list(range(19))},
    "labels less": {"labels": ["p0"]},
    "columns of a number": {"columns": 3},
    "a column of another kind": {"columns": [{"name": "x", "kind": "code", "values": []}]},
    "a column of another array": {"columns": [{"name": "x", "kind": "number", "values": []}]},
    "next_id of text": {"next_id": "x"},
    "next_id that is taken": {"next_id": 0},
    "next_id of infinity": {"next_id": float("inf")},
    "an id of infinity": {"ids": [*range(19), float("inf")]},
    "a label of NaN": {"labels": ["p0", "p1", "p2", float("nan")]},
    "no coarse": {"coarse": 3},
}


@pytest.mark.parametrize("change", NAMES)
def test_forged_names_are_rejected(change):
    saved()
    made = NAMES[change]
    if isinstance(made, str):
        part("names.json").write_text(made)
    else:
        names(lambda content: content.update(made))
    forge()
    with pytest.raises(ValueError, match=r"names\.json|\.npy"):
        Index.load("index")


CHANGES = {
    "another word": ("run", [30], VECTORS[:1], ["a"], {}),
    "an existing id": ("add", [0], VECTORS[:1], ["a"], {}),
    "a duplicate id": ("add", [30, 30], VECTORS[:2], ["a", "b"], {}),
    "no such id": ("remove", [99], None, None, {}),
    "an id of no kind": ("add", [None], VECTORS[:1], ["a"], {}),
    "a label less": ("add", [30, 31], VECTORS[:2], ["a"], {}),
    "NaN": ("add", [30], VECTORS[:1] * np.nan, ["a"], {}),
    "half a vector": ("add", [30], VECTORS[0, :2], ["a"], {}),
    "another kind of attribute": ("add", [30], VECTORS[:1], ["a"], {"age": ("string", ["x"])}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_forged_journal_is_rejected(change):
    saved()
    path = Path("index") / body()["journal"]
    path.write_bytes(path.read_bytes() + encode_change(*CHANGES[change]))
    with pytest.raises(ValueError, match="journal .* damaged at byte"):
        Index.load("index")


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"ilod" * 100, "unknown items"])
def test_an_invalid_structure_is_built_again(content):
    """FAISS would read lists from any path in the bytes of a structure marked "ilod"."""
    import faiss

    saved(kind="ivf", settings={"train_at": 10})
    expected = [m.id for m in Index.load("index").search(VECTORS[:1], k=3)[0]]
    path = part("coarse-structure.npy")
    if content == "unknown items":
        structure = faiss.deserialize_index(np.load(path))
        structure.reset()
        structure.add_with_ids(VECTORS, 10**7 + np.arange(len(VECTORS)))
        content = faiss.serialize_index(structure)
    np.save(path, np.frombuffer(content, "uint8"))
    forge()
    assert [m.id for m in Index.load("index").search(VECTORS[:1], k=3)[0]] == expected


@pytest.mark.parametrize(
    ("uri", "token", "message"),
    [
        ("http://elsewhere.invalid", None, "pass it as uri="),
        ("made/here.db", None, "pass it as uri="),
        ("http://elsewhere.invalid", "secret", "token.*elsewhere"),
    ],
)
def test_a_manifest_connects_to_no_server_and_creates_no_file(uri, token, message):
    saved()
    forge(lambda b: b.update(store="milvus", address={"uri": uri}))
    with pytest.raises(ValueError, match=message):
        Index.load("index", token=token)
    assert not Path("made").exists()


@pytest.mark.parametrize("kind", ["short", "hnsw", "ivf", "pq", "ivf-pq"])
def test_a_valid_structure_is_not_built_again(kind):
    settings = {"train_at": 16, **({"nbits": 4} if "pq" in kind else {})}
    index = Index(DIM, metric="euclidean", kind=kind, settings=settings)
    index.add(VECTORS, LABELS)
    index.remove([0])
    index.save("index")
    # A structure that is built again would have no removed items.
    assert Index.load("index")._store.approximate.removed == 1


@pytest.fixture
def evil(monkeypatch, tmp_path):
    """An importable module that creates a folder when it is imported."""
    Path("evil_module.py").write_text("import os\nos.mkdir('sprung')\ndef run(x): return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("evil_module", None)


def encoder_file(change=None, backbone=None):
    """Save `run/encoder.keras` with a changed config, and a valid run.json."""
    Path("run").mkdir()
    backbone = backbone or keras.layers.Flatten(name="flat")
    encoder = models.Encoder(keras.Sequential([keras.Input((8, 8, 1)), backbone]), 3)
    encoder.build((None, 8, 8, 1))
    encoder.save("run/encoder.keras")
    settings = {"image_size": 8, "color": "grayscale", "held_out": {}, "trained_on": []}
    Path("run/run.json").write_text(json.dumps(settings))
    if change is None:
        return
    with zipfile.ZipFile("run/encoder.keras") as file:
        content = {name: file.read(name) for name in file.namelist()}
    made = json.loads(content["config.json"])
    change(made)
    content["config.json"] = json.dumps(made).encode()
    with zipfile.ZipFile("run/encoder.keras", "w") as file:
        for name, value in content.items():
            file.writestr(name, value)


def layer_of(config, class_name):
    """The part of a config that describes a layer of some class."""
    if isinstance(config, dict):
        if config.get("class_name") == class_name:
            return config
        config = list(config.values())
    if isinstance(config, list):
        return next(filter(None, (layer_of(part, class_name) for part in config)), None)
    return None


def replaced(**values):
    def change(config):
        layer = layer_of(config, "Flatten")
        assert layer is not None
        layer.update(values)

    return change


FOREIGN = {
    "a module that is imported": dict(module="evil_module", class_name="run", config={}),
    "a function of a module": dict(
        module="evil_module", class_name="function", config="run", registered_name="run"
    ),
    "a call of the system": dict(module="os", class_name="system", config={"command": "mkdir x"}),
    "a built-in": dict(module="builtins", class_name="exec", config={"source": "1"}),
}


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_class_runs_no_code(kind, capsys):
    encoder_file(replaced(**{"registered_name": None, **FOREIGN[kind]}))
    assert cli.main(["evaluate", "--run", "run"]) == 2
    assert "encoder.keras" in capsys.readouterr().err
    assert not code_has_run() and not Path("x").exists()


def test_a_lambda_runs_no_code(capsys):
    # A lambda is saved as its byte code.
    spring = lambda x: (os.makedirs("sprung", exist_ok=True), x[:, :, 0, 0])[1]  # noqa: E731
    encoder_file(backbone=keras.layers.Lambda(spring, output_shape=(8,)))
    shutil.rmtree("sprung", ignore_errors=True)
    with pytest.raises(ValueError, match="[Ll]ambda"):
        keras.saving.load_model("run/encoder.keras")
    assert cli.main(["evaluate", "--run", "run"]) == 2
    assert "ambda" in capsys.readouterr().err
    assert cli.main(["train", ".", "--backbone", "run/encoder.keras"]) == 2
    assert not code_has_run()


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "no config"])
def test_a_damaged_encoder_is_named(damage, capsys):
    encoder_file()
    path = Path("run/encoder.keras")
    good = path.read_bytes()
    if damage == "no config":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("metadata.json", "{}")
    else:
        path.write_bytes({"empty": b"", "truncated": good[:200], "text": b"hello"}[damage])
    assert cli.main(["evaluate", "--run", "run"]) == 2
    error = capsys.readouterr().err
    assert "encoder.keras" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "JSON"),
        ("[]", "image_size"),
        ("{}", "image_size"),
        ('{"image_size": 1000000000}', "image_size"),
        ('{"image_size": 8, "color": "x"}', "color"),
        ('{"image_size": 8, "color": "rgb", "held_out": [1]}', "held_out"),
        ('{"image_size": 8, "color": "rgb", "held_out": {"a": 1}}', "held_out"),
        ('{"image_size": 8, "color": "rgb", "held_out": {}, "trained_on": 3}', "trained_on"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_damaged_settings_are_named(content, part, capsys):
    encoder_file()
    Path("run/run.json").write_text(content)
    assert cli.main(["evaluate", "--run", "run"]) == 2
    error = capsys.readouterr().err
    assert "run.json" in error and part in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "a/../../secret.jpg"])
def test_a_list_of_images_cannot_name_files_outside_its_folder(name):
    Path("secret.jpg").write_bytes(b"x")
    Path("data").mkdir()
    for part in ("train", "test"):
        lines = f"image_id class_id super_class_id path\n1 1 1 {name}\n"
        Path(f"data/Ebay_{part}.txt").write_text(lines)
    with pytest.raises(ValueError, match="in its own folder"):
        datasets.read_stanford_online_products("data")
