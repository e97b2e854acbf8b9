"""Indexes on the disk: nothing is lost by kills, damage, or another encoder."""

import functools
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

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


def content(index):
    return {
        item.id: (item.label, item.embedding.tolist(), item.attributes, type(item.id))
        for item in index
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
def test_what_is_saved_comes_back(rng, kind):
    settings = {**KINDS[kind], "train_at": 30} if kind != "flat" else None
    index = filled(rng, 200, kind=kind, settings=settings)
    index.calibrate(false_accept_rate=0.1, rule="centroid")
    queries = rng.normal(size=(9, DIM))
    wanted = index.search(queries, 3, where={"by": ["é1", "é2"]})
    named = index.identify(queries, "centroid")
    for path in ("a", Path("b/c")):
        index.save(path)
        index = Index.load(path)
        assert repr(index).startswith("Index(dim=6, metric='euclidean', store='faiss'")
        assert content(index) == content(filled(np.random.default_rng(0), 200))
        assert index.settings == filled(rng, 1 + 5, kind=kind, settings=settings).settings
        assert index.search(queries, 3, where={"by": ["é1", "é2"]}) == wanted
        assert index.identify(queries, "centroid") == named
        assert index.description == "Faces of é."
    # It goes on as if it had never been away.
    assert index.add(rng.normal(size=(1, DIM)), ["new"]) == [200]
    index.replace(rng.normal(size=(1, DIM)), ["new"], [3], [{"age": 3, "colour": "red"}])
    assert index.search(queries, 1, where={"colour": "red"})[0][0].id == 3
    with pytest.raises(TypeError, match="kind 'number'"):
        index.add(rng.normal(size=(1, DIM)), ["new"], attributes=[{"age": "old"}])
    index.remove(index.ids())
    index.save("empty")
    assert len(Index.load("empty")) == 0


def test_the_card_says_what_is_in_there(rng):
    index = filled(rng)
    index.calibrate(false_accept_rate=0.1)
    index.save("faces")
    card = Path("faces/card.md").read_text("utf-8")
    assert "Faces of é." in card and "| items | 38 |" in card and "| labels | 7 |" in card
    assert "age (number), by (string), ok (flag), size (number)" in card
    assert "not recorded" in card and "| metric | euclidean |" in card
    assert f"| nearest | {index.operating_points['nearest'].threshold:.6g} |" in card


def test_what_is_forgotten_is_gone_from_the_disk(rng):
    index = filled(rng)
    secret = {"by": "Secret Studio", "Secret field": "Secret value"}
    index.add(rng.normal(size=(2, DIM)), ["Secret Ann"] * 2, ["Secret id", 77], [secret, {}])
    index.keep("index")
    index.add(rng.normal(size=(1, DIM)), ["Secret Ann"])
    assert any(b"Secret Ann" in path.read_bytes() for path in saved_files())
    index.remove(labels=["Secret Ann"])
    index.save("index")
    for path in saved_files():
        # The names of attributes stay, as those of any column do.
        assert b"Secret" not in path.read_bytes().replace(b"Secret field", b""), path
    assert content(Index.load("index")) == content(index)
    index.close()


def run_until_killed(work):
    """Run `work` in a child of this process; the caller kills it."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fifty_kills_at_random_moments_lose_nothing(rng):
    """The saver alternates between two indexes; at whatever moment, one of them is there, whole."""
    dice = random.Random(0)
    first, second = filled(rng, 3000), filled(rng, 2000)
    wanted = [content(first), content(second)]
    first.save("index")
    start = time.perf_counter()
    second.save("index")
    seconds = time.perf_counter() - start

    def work(turn):
        while True:
            (first, second)[turn % 2].save("index")
            turn += 1

    seen = []
    for kill in range(50):
        # On a busy machine a child may come to one save only: they begin with either.
        child = run_until_killed(functools.partial(work, kill))
        time.sleep(dice.uniform(0, 3 * seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.append(wanted.index(content(Index.load("index"))))
    assert set(seen) == {0, 1}, "the kills should have met both"
    first.save("index")
    left = {path.name.split("-")[0] for path in Path("index").iterdir()}
    assert left == {"data", "manifest.json", "card.md", "lock"}
    assert len(list(Path("index").glob("data-*"))) == 1


def test_a_failed_save_leaves_the_old(rng, monkeypatch):
    index = filled(rng)
    index.save("index")
    before = content(index)
    index.add(rng.normal(size=(1, DIM)), [0])

    def full(*_):
        raise OSError("No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space"):
                index.save("index")
        assert content(Index.load("index")) == before
    index.save("index")
    assert len(Index.load("index")) == len(before) + 1


def saved_files():
    return sorted(
        path for path in Path("index").rglob("*") if path.is_file() and path.stat().st_size
    )


@pytest.mark.parametrize("damage", ["truncated", "altered", "longer", "empty", "missing"])
def test_damage_is_found_and_named(rng, damage):
    index = filled(rng, kind="short", settings={"train_at": 10})
    index.keep("index")
    index.add(rng.normal(size=(2, DIM)), [5, 5])
    index.close()
    wanted = content(Index.load("index"))
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
            # This is what a kill in the middle of a change leaves: the change never happened.
            assert len(Index.load("index")) == len(wanted) - 2
        else:
            with pytest.raises(ValueError, match=path.name.split("-")[0]):
                Index.load("index")
        path.write_bytes(good)
        assert content(Index.load("index")) == wanted


def edited_manifest(change):
    path = Path("index/manifest.json")
    manifest = json.loads(path.read_text())
    change(manifest["body"])
    path.write_text(json.dumps(manifest))
    return manifest["body"]


def test_a_manifest_edited_by_hand_is_found(rng):
    index = filled(rng)
    index.calibrate(false_accept_rate=0.1)
    index.save("index")
    edited_manifest(lambda body: body["operating_points"][0].__setitem__(1, 99.0))
    with pytest.raises(ValueError, match=r"manifest\.json .* edited"):
        Index.load("index")


def test_a_newer_version_is_refused(rng):
    filled(rng).save("index")
    edited_manifest(lambda body: body.update(version=3))
    with pytest.raises(ValueError, match="version 3 .* Install a newer"):
        Index.load("index")


def test_arrays_in_the_order_of_fortran_are_read(rng, tmp_path):
    """They passed the checks, and FAISS refused them at the first search."""
    vectors = rng.normal(size=(6, 4))
    np.save(tmp_path / "vectors.npy", np.asfortranarray(vectors))
    array = read_array(tmp_path / "vectors.npy")
    assert array.flags.c_contiguous and np.array_equal(array, vectors)


def test_headers_of_arrays_that_python_cannot_parse(tmp_path):
    """NumPy reads a header as Python, and raised its TokenError."""
    file = tmp_path / "vectors.npy"
    for text in (b"(" * 500, b"{'descr': '<f4', 'shape': (", b"\x00" * 20):
        file.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
        with pytest.raises(ValueError, match="is not an array of numbers"):
            read_array(file)


def test_other_places_are_refused(rng, tmp_path):
    index = filled(rng)
    Path("file").write_text("x")
    with pytest.raises(ValueError, match="there is a file"):
        index.save("file")
    Path("photos").mkdir()
    Path("photos/holiday.jpg").write_text("x")
    with pytest.raises(ValueError, match="folder of its own.*holiday"):
        index.save("photos")
    for path in ("photos", "nowhere", "file"):
        with pytest.raises(ValueError, match="no index at"):
            Index.load(path)
    # Somebody else's files in the folder of an index stay.
    index.save("index")
    Path("index/notes.txt").write_text("x")
    Path("index/data-mine").mkdir()
    index.save("index")
    assert Path("index/notes.txt").exists() and Path("index/data-mine").exists()


class TestKept:
    def test_every_change_is_there_without_a_save(self, rng):
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
        # Loading twice changes nothing, and a save folds the journal in.
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

    def keeps_what_comes_later(self, index, rng):
        index.add(rng.normal(size=(1, DIM)), ids=["late"], labels=["x"])
        assert len(Index.load("here")) == len(index)
        index.close()

    def test_a_folder_that_cannot_be_kept_leaves_the_other_kept(self, rng):
        index = filled(rng)
        index.keep("here")
        Path("file").write_text("no folder")
        with pytest.raises((ValueError, OSError)):
            index.keep("file")
        self.keeps_what_comes_later(index, rng)

    def test_a_card_that_cannot_be_written_loses_nothing(self, rng):
        index = filled(rng)
        Path("here/card.md").mkdir(parents=True)
        with pytest.warns(UserWarning, match="its card.md is not"):
            index.keep("here")
        self.keeps_what_comes_later(index, rng)

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

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_kills_lose_nothing_that_was_answered(self, rng):
        dice = random.Random(0)
        index = filled(rng, 50)
        index.save("index")
        vectors = rng.normal(size=(1000, DIM))
        for turn in range(15):
            read, write = os.pipe()

            def work(turn=turn, write=write):
                index = Index.load("index")
                index.keep("index")
                for n in range(len(vectors)):
                    index.add(vectors[n : n + 1], ["new"], [f"{turn}-{n}"])
                    os.write(write, b".")
                    if n % 40 == 39:
                        index.save("index")

            child = run_until_killed(work)
            os.close(write)
            answered = len(os.read(read, 1))
            time.sleep(dice.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            while chunk := os.read(read, 4096):
                answered += len(chunk)
            os.close(read)
            found = Index.load("index")
            mine = [key for key in found.ids() if str(key).startswith(f"{turn}-")]
            # One more may have reached the disk without an answer.
            assert answered <= len(mine) <= answered + 1
            assert mine == [f"{turn}-{n}" for n in range(len(mine))]

    def test_a_full_disk_changes_nothing(self, rng, monkeypatch):
        index = filled(rng)
        index.keep("index")
        before = content(index)

        def full(_):
            raise OSError("No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            for call in (
                lambda: index.add(rng.normal(size=(1, DIM)), [0]),
                lambda: index.remove([3]),
            ):
                with pytest.raises(OSError, match="No space"):
                    call()
        assert content(index) == before == content(Index.load("index"))
        index.remove([3])
        assert content(index) == content(Index.load("index"))
        index.close()


@pytest.mark.touches_keras
class TestEncoder:
    def encoder(self, scale=255, width=DIM):
        keras.utils.set_random_seed(1)
        return keras.Sequential(
            [keras.Input((5,)), keras.layers.Rescaling(1 / scale), keras.layers.Dense(width)]
        )

    def test_the_fingerprint_is_of_what_is_computed(self):
        encoder = self.encoder()
        wanted = fingerprint(encoder)
        assert fingerprint(self.encoder()) == wanted, "names of layers should not count"
        encoder.save("encoder.keras")
        assert fingerprint(keras.saving.load_model("encoder.keras")) == wanted
        encoder.compile("sgd", "mse")
        assert fingerprint(encoder) == wanted
        encoder.fit(np.ones((4, 5)), np.ones((4, DIM)), verbose=0)
        assert fingerprint(encoder) != wanted
        assert fingerprint(self.encoder(scale=127)) != wanted

    def test_another_vocabulary_is_another_encoder(self):
        def encoder(words):
            keras.utils.set_random_seed(0)
            lookup = keras.layers.StringLookup()
            lookup.adapt(np.array(words))
            return keras.Sequential([lookup, keras.layers.Embedding(8, 4)])

        one = encoder(["owl", "owl", "hen"])
        assert fingerprint(one) == fingerprint(encoder(["owl", "owl", "hen"]))
        assert fingerprint(one) != fingerprint(encoder(["owl", "hen", "hen"]))

    def test_another_encoder_is_refused(self, rng):
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
        with pytest.raises(ValueError, match="width of this index, dim=6"):
            loaded.search(np.ones((1, 4)))
        Index(DIM).save("nameless")
        with pytest.raises(ValueError, match="no fingerprint of an encoder"):
            Index.load("nameless", encoder=encoder)

    def test_what_is_no_encoder_is_named(self):
        with pytest.raises(TypeError, match="Keras model"):
            Index(encoder=np.zeros)
        with pytest.raises(ValueError, match="embeddings is not defined"):
            Index(encoder=keras.Sequential([keras.layers.Dense(3)]))
        with pytest.raises(ValueError, match="length 6.*dim=5"):
            Index(5, encoder=self.encoder())

    def test_a_model_of_this_package(self, rng):
        from keras_metric import EmbeddingModel

        model = EmbeddingModel(self.encoder(), embedding_dim=4)
        index = Index(encoder=model.encoder)
        assert index.dim == 4
        model.encoder.save("encoder.keras")
        index.check_encoder(keras.saving.load_model("encoder.keras"))


def test_reads_are_safe_while_one_thread_writes(rng):
    """Each item's label and attribute follow from its vector, so that a torn read shows."""
    index = Index(2, metric="euclidean")
    points = rng.integers(-50, 50, (300, 2)).astype("float32")
    stop, faults = threading.Event(), []

    def enrol(rows, ids, verb):
        x = points[rows]
        names = [f"{a:.0f},{b:.0f}" for a, b in x]
        verb(x, names, ids, [{"first": float(a)} for a in x[:, 0]])

    enrol(range(100), list(range(100)), index.add)

    def check(match, query=None):
        x = np.array([float(part) for part in match.label.split(",")])
        wanted = match.attributes["first"] == x[0]
        if query is not None:
            wanted &= abs(np.linalg.norm(query - x) - match.distance) < 1e-6
        else:
            wanted &= (match.embedding == x).all()
        if not wanted:
            faults.append(match)

    def read(seed):
        dice = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                query = dice.integers(-50, 50, 2).astype("float64")
                where = {"first": (-20, 20)} if dice.random() < 0.5 else None
                for match in index.search(query[None], k=7, where=where)[0]:
                    check(match, query)
                index.identify(query[None], "centroid", threshold=3)
                for item in index:
                    check(item)
        except Exception as error:
            faults.append(error)

    readers = [threading.Thread(target=read, args=[seed]) for seed in range(4)]
    for reader in readers:
        reader.start()
    known = list(range(100))
    end = time.perf_counter() + 2
    writes = 0
    while time.perf_counter() < end:
        rows, ids = rng.integers(300, size=3), [1000 + 3 * writes + n for n in range(3)]
        enrol(rows, ids, index.add)
        enrol(rng.integers(300, size=2), known[:2], index.replace)
        index.remove([known.pop(int(rng.integers(len(known)))) for _ in range(3)])
        known += ids
        writes += 1
    stop.set()
    for reader in readers:
        reader.join()
    assert not faults
    assert writes > 20 and sorted(index.ids()) == sorted(known)


@pytest.mark.milvus
def test_a_milvus_index_is_found_again(rng):
    pytest.importorskip("pymilvus", reason="needs pip install keras_metric[milvus]")
    pytest.importorskip("milvus_lite", reason="needs pip install keras_metric[milvus]")
    index = Index(DIM, store="milvus", uri="faces.db", collection="faces")
    x = rng.normal(size=(30, DIM))
    index.add(x, np.arange(30) % 3, attributes=[{"age": n} for n in range(30)])
    index.calibrate(false_accept_rate=0.2)
    index.save("index")
    wanted = index.search(x[:2], 3, where={"age": (10, 20)})
    index.close()
    index = Index.load("index")
    assert index.search(x[:2], 3, where={"age": (10, 20)}) == wanted
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
            Index(**arguments, store="milvus", uri="faces.db", collection="faces")
    index.close()
    # Both rank by inner products, of vectors of length 1 and of vectors as they are.
    products = Index(DIM, metric="dot", store="milvus", uri="faces.db", collection="products")
    products.add(2 * x, np.arange(30))
    products.close()
    with pytest.raises(ValueError, match='made with metric="dot"'):
        Index(DIM, store="milvus", uri="faces.db", collection="products")


@pytest.mark.milvus
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs `uri`"),
        ({"uri": "faces"}, "must end in .db"),
        ({"uri": "a.db", "kind": "short"}, "kind='short'"),
    ],
)
def test_false_settings_of_milvus_are_named(arguments, message):
    pytest.importorskip("pymilvus", reason="needs pip install keras_metric[milvus]")
    with pytest.raises(ValueError, match=message):
        Index(DIM, store="milvus", **arguments)
