"""Saving and loading: what is stored, damaged files, kept folders and encoder fingerprints."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from expected_results import content

from keras_metric.search import Index
from keras_metric.search.fingerprint import fingerprint
from keras_metric.search.storage.file_checks import read_array

DIM = 6
KINDS = {
    "flat": {},
    "short": {"dims": 3},
    "hnsw": {"M": 8},
    "ivf": {"nlist": 4, "nprobe": 2},
    "pq": {"m": 3, "nbits": 4},
    "ivf-pq": {"nlist": 4, "m": 3, "nbits": 4},
}


def filled(rng, count=40, **arguments):
    index = Index(DIM, **{"metric": "euclidean", "description": "Faces of é.", **arguments})
    attributes = [
        {"age": n, "size": n / 3, "by": f"é{n % 3}", "ok": n % 2 == 0} for n in range(count)
    ]
    attributes[3] = {}
    ids = [n if n % 2 else f"id {n}" for n in range(count)]
    index.add(rng.normal(size=(count, DIM)), np.arange(count) % 7, ids, attributes)
    index.remove([1, "id 4"])
    return index


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_index_is_the_saved_one(rng, kind):
    settings = {**KINDS[kind], "train_at": 30} if kind != "flat" else None
    index = filled(rng, 200, kind=kind, settings=settings)
    index.calibrate(false_accept_rate=0.1, rule="centroid")
    queries = rng.normal(size=(9, DIM))
    expected = index.search(queries, 3, where={"by": ["é1", "é2"]})
    named = index.identify(queries, "centroid")
    for path in ("a", Path("b/c")):
        index.save(path)
        index = Index.load(path)
        assert repr(index).startswith("Index(dim=6, metric='euclidean', store='faiss'")
        assert content(index) == content(filled(np.random.default_rng(0), 200))
        assert index.settings == filled(rng, 1 + 5, kind=kind, settings=settings).settings
        assert index.search(queries, 3, where={"by": ["é1", "é2"]}) == expected
        assert index.identify(queries, "centroid") == named
        assert index.description == "Faces of é."
    # Changes continue after loading.
    assert index.add(rng.normal(size=(1, DIM)), ["new"]) == [200]
    index.replace(rng.normal(size=(1, DIM)), ["new"], [3], [{"age": 3, "colour": "red"}])
    assert index.search(queries, 1, where={"colour": "red"})[0][0].id == 3
    with pytest.raises(TypeError, match="kind 'number'"):
        index.add(rng.normal(size=(1, DIM)), ["new"], attributes=[{"age": "old"}])
    index.remove(index.ids())
    index.save("empty")
    assert len(Index.load("empty")) == 0


def test_the_index_card(rng):
    index = filled(rng)
    index.calibrate(false_accept_rate=0.1)
    index.save("faces")
    card = Path("faces/card.md").read_text("utf-8")
    assert "Faces of é." in card and "| items | 38 |" in card and "| labels | 7 |" in card
    assert "age (number), by (string), ok (flag), size (number)" in card
    assert "not recorded" in card and "| metric | euclidean |" in card
    assert f"| nearest | {index.operating_points['nearest'].threshold:.6g} |" in card


def saved_files():
    return sorted(
        path for path in Path("index").rglob("*") if path.is_file() and path.stat().st_size
    )


@pytest.mark.parametrize("damage", ["truncated", "altered", "longer", "empty", "missing"])
def test_a_damaged_file_is_named(rng, damage):
    index = filled(rng, kind="short", settings={"train_at": 10})
    index.keep("index")
    index.add(rng.normal(size=(2, DIM)), [5, 5])
    index.close()
    expected = content(Index.load("index"))
    for path in saved_files():
        if path.name == "card.md":
            continue
        good = path.read_bytes()
        middle = len(good) // 2
        if damage == "altered":
            path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
        elif damage == "missing":
            path.unlink()
        else:
            bad = {"truncated": good[:middle], "longer": good + b"x" * 99, "empty": b""}[damage]
            path.write_bytes(bad)
        if path.name.startswith("journal") and damage in ("truncated", "empty"):
            # A kill in the middle of a change leaves this: the change has not happened.
            assert len(Index.load("index")) == len(expected) - 2
        else:
            with pytest.raises(ValueError, match=path.name.split("-")[0]):
                Index.load("index")
        path.write_bytes(good)
        assert content(Index.load("index")) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operating_points": []}, r"manifest\.json .* edited"),
        ({"version": 3}, "version 3 .* Install a newer"),
    ],
)
def test_an_edited_manifest_is_rejected(rng, change, message):
    index = filled(rng)
    index.calibrate(false_accept_rate=0.1)
    index.save("index")
    path = Path("index/manifest.json")
    manifest = json.loads(path.read_text())
    manifest["body"].update(change)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        Index.load("index")


def test_arrays_in_fortran_order_are_read(rng, tmp_path):
    """FAISS accepts arrays in C order only."""
    vectors = rng.normal(size=(6, 4))
    np.save(tmp_path / "vectors.npy", np.asfortranarray(vectors))
    array = read_array(tmp_path / "vectors.npy")
    assert array.flags.c_contiguous and np.array_equal(array, vectors)


def test_array_headers_that_are_not_python(tmp_path):
    """NumPy parses a header as Python, which can raise a TokenError."""
    file = tmp_path / "vectors.npy"
    for text in (b"(" * 500, b"{'descr': '<f4', 'shape': (", b"\x00" * 20):
        file.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
        with pytest.raises(ValueError, match="is not an array of numbers"):
            read_array(file)


def test_other_files_and_folders_are_rejected(rng, tmp_path):
    index = filled(rng)
    Path("file").write_text("x")
    with pytest.raises(ValueError, match="not a file"):
        index.save("file")
    Path("photos").mkdir()
    Path("photos/holiday.jpg").write_text("x")
    with pytest.raises(ValueError, match="folder of its own.*holiday"):
        index.save("photos")
    for path in ("photos", "nowhere", "file"):
        with pytest.raises(ValueError, match="no index at"):
            Index.load(path)
    # Other files in the folder of an index stay.
    index.save("index")
    Path("index/notes.txt").write_text("x")
    Path("index/data-mine").mkdir()
    index.save("index")
    assert Path("index/notes.txt").exists() and Path("index/data-mine").exists()


class TestKept:
    def test_every_change_is_loaded_without_a_save(self, rng):
        index = filled(rng)
        index.keep("index")
        index.add(rng.normal(size=(3, DIM)), ["a", 2, "é"], ["x", 99, "z"], [{"age": 1}, {}, {}])
        index.replace(rng.normal(size=(1, DIM)), ["b"], ["x"], [{"by": "q", "ok": True}])
        index.remove(["z", 3])
        index.enrol(rng.normal(size=(3, DIM)), "mean")
        index.close()
        with pytest.raises(ValueError, match="was closed"):
            index.remove([5])
        assert content(Index.load("index")) == content(index)
        # Loading changes nothing, and a save merges the journal.
        again = Index.load("index")
        again.keep("index")
        assert content(Index.load("index")) == content(index)
        again.add(rng.normal(size=(1, DIM)), [0])
        again.save("index")
        again.add(rng.normal(size=(1, DIM)), [0])
        again.save("elsewhere")
        again.add(rng.normal(size=(1, DIM)), [0])
        assert content(Index.load("index")) == content(again)
        assert len(Index.load("elsewhere")) == len(again) - 1
        assert len(list(Path("index").glob("journal-*"))) == 1
        again.close()

    def test_a_card_that_cannot_be_written_loses_nothing(self, rng):
        index = filled(rng)
        Path("here/card.md").mkdir(parents=True)
        with pytest.warns(UserWarning, match="its card.md is not"):
            index.keep("here")
        index.add(rng.normal(size=(1, DIM)), ids=["late"], labels=["x"])
        assert len(Index.load("here")) == len(index)
        index.close()

    def test_one_index_keeps_a_folder(self, rng):
        index = filled(rng)
        index.keep("index")
        other = filled(rng)
        for call in (other.keep, other.save):
            with pytest.raises(ValueError, match="keeps or saves"):
                call("index")
        index.keep("moved")
        other.keep("index")
        index.close()
        other.close()


@pytest.mark.touches_keras
class TestEncoder:
    def encoder(self, scale=255, width=DIM):
        keras.utils.set_random_seed(1)
        return keras.Sequential(
            [keras.Input((5,)), keras.layers.Rescaling(1 / scale), keras.layers.Dense(width)]
        )

    def test_the_fingerprint_depends_on_the_computation(self):
        encoder = self.encoder()
        expected = fingerprint(encoder)
        assert fingerprint(self.encoder()) == expected, "layer names should not matter"
        encoder.save("encoder.keras")
        assert fingerprint(keras.saving.load_model("encoder.keras")) == expected
        encoder.compile("sgd", "mse")
        assert fingerprint(encoder) == expected
        encoder.fit(np.ones((4, 5)), np.ones((4, DIM)), verbose=0)
        assert fingerprint(encoder) != expected
        assert fingerprint(self.encoder(scale=127)) != expected

    def test_another_vocabulary_is_another_encoder(self):
        def encoder(words):
            keras.utils.set_random_seed(0)
            lookup = keras.layers.StringLookup()
            lookup.adapt(np.array(words))
            return keras.Sequential([lookup, keras.layers.Embedding(8, 4)])

        one = encoder(["owl", "owl", "hen"])
        assert fingerprint(one) == fingerprint(encoder(["owl", "owl", "hen"]))
        assert fingerprint(one) != fingerprint(encoder(["owl", "hen", "hen"]))

    def test_another_encoder_is_rejected(self, rng):
        encoder = self.encoder()
        index = Index(encoder=encoder)
        assert index.dim == DIM
        index.add(encoder.predict(rng.normal(size=(3, 5)), verbose=0), [1, 2, 3])
        index.save("index")
        loaded = Index.load("index", encoder=self.encoder())
        assert len(loaded) == 3
        assert loaded.fingerprint in Path("index/card.md").read_text()
        for other in (self.encoder(scale=127), self.encoder(width=4)):
            with pytest.raises(ValueError, match="another encoder"):
                Index.load("index", encoder=other)
            with pytest.raises(ValueError, match="another encoder"):
                loaded.check_encoder(other)
        with pytest.raises(ValueError, match=r"\(rows, 6\), the width of this index"):
            loaded.search(np.ones((1, 4)))
        Index(DIM).save("nameless")
        with pytest.raises(ValueError, match="index has no fingerprint"):
            Index.load("nameless", encoder=encoder)

    def test_invalid_encoders_are_named(self):
        with pytest.raises(TypeError, match="Keras model"):
            Index(encoder=np.zeros)
        with pytest.raises(ValueError, match="embeddings is not defined"):
            Index(encoder=keras.Sequential([keras.layers.Dense(3)]))
        with pytest.raises(ValueError, match="encoder, 6.*dim=5"):
            Index(5, encoder=self.encoder())

    def test_a_model_of_this_package(self, rng):
        from keras_metric import EmbeddingModel

        model = EmbeddingModel(self.encoder(), embedding_dim=4)
        index = Index(encoder=model.encoder)
        assert index.dim == 4
        model.encoder.save("encoder.keras")
        index.check_encoder(keras.saving.load_model("encoder.keras"))


@pytest.mark.milvus
def test_a_milvus_index_is_loaded(rng, uri):
    index = Index(DIM, store="milvus", uri=uri, collection="faces")
    x = rng.normal(size=(30, DIM))
    index.add(x, np.arange(30) % 3, attributes=[{"age": n} for n in range(30)])
    index.calibrate(false_accept_rate=0.2)
    index.save("index")
    expected = index.search(x[:2], 3, where={"age": (10, 20)})
    index.close()
    index = Index.load("index")
    assert index.search(x[:2], 3, where={"age": (10, 20)}) == expected
    assert "| items | 30 |" in Path("index/card.md").read_text()
    assert index.operating_points["nearest"].target == 0.2
    with pytest.raises(TypeError, match="kind 'number'"):
        index.search(x[:1], where={"age": "old"})
    with pytest.raises(ValueError, match="saves every change itself"):
        index.keep("index")
    for arguments, message in (
        ({"dim": DIM + 1}, "length 6"),
        ({"dim": DIM, "metric": "euclidean"}, "ranks by IP"),
    ):
        with pytest.raises(ValueError, match=message):
            Index(**arguments, store="milvus", uri=uri, collection="faces")
    index.close()
    # Both metrics rank by inner products; only cosine stores vectors of length 1.
    products = Index(DIM, metric="dot", store="milvus", uri=uri, collection="products")
    products.add(2 * x, np.arange(30))
    products.close()
    with pytest.raises(ValueError, match='made with metric="dot"'):
        Index(DIM, store="milvus", uri=uri, collection="products")


@pytest.mark.milvus
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs `uri`"),
        ({"uri": "faces"}, "must end in .db"),
        ({"uri": "a.db", "kind": "short"}, "kind='short'"),
    ],
)
def test_invalid_milvus_settings_are_named(arguments, message):
    pytest.importorskip("pymilvus", reason="needs pip install keras_metric[milvus]")
    with pytest.raises(ValueError, match=message):
        Index(DIM, store="milvus", **arguments)
