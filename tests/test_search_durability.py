"""An index on the disk through full disks, kills, forks, power failures and deleted folders."""

import copy
import errno
import gc
import itertools
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

from keras_metric.search import Index, folder, journal

DIM = 6


def content(index):
    return {item.id: (item.label, item.embedding.tolist(), item.attributes) for item in index}


def filled(rng, count=5):
    index = Index(DIM, metric="euclidean")
    attributes = [{"age": n, "by": f"studio {n % 3}"} for n in range(count)]
    index.add(
        rng.normal(size=(count, DIM)), [f"label {n % 7}" for n in range(count)], None, attributes
    )
    return index


def files(path="index"):
    return sorted(str(entry.relative_to(path)) for entry in Path(path).rglob("*"))


def add(index, rng, count=1, **arguments):
    return index.add(rng.normal(size=(count, DIM)), ["new"] * count, **arguments)


def check_kept(index, path, rng):
    """Each change is in the folder when the call returns."""
    add(index, rng, ids=["fits"])
    assert content(Index.load(path)) == content(index)
    index.remove(["fits"])
    assert content(Index.load(path)) == content(index)


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Disk:
    """Counts the steps in which an index changes the disk, and interrupts one of them."""

    def __init__(self, patch, interrupt=lambda: None, steps=("fsync", "mkdir", "replace")):
        self.interrupt, self.steps, self.stop_at = interrupt, 0, 0
        for name in steps:
            patch.setattr(os, name, self._counted(getattr(os, name)))
        for module in (folder, journal):
            patch.setattr(module, "open", self._open, raising=False)

    def step(self):
        self.steps += 1
        if self.steps == self.stop_at:
            self.interrupt()

    def stop(self, at):
        self.steps, self.stop_at = 0, at

    @property
    def stopped(self):
        return 0 < self.stop_at <= self.steps

    def _counted(self, function):
        def counted(*args, **kwargs):
            self.step()
            return function(*args, **kwargs)

        return counted

    def _open(self, path, mode="r", **arguments):
        if mode[0] in "wx":
            self.step()
        file = open(path, mode, **arguments)
        return file if "r" in mode else File(file, self)


class File:
    """A file in which an interrupted write leaves the first half."""

    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def write(self, data):
        half = len(data) // 2
        written = self._file.write(data[:half])
        self._file.flush()
        self._disk.step()
        return written + self._file.write(data[half:])

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch, full)


def interrupted(call, disk):
    """Run `call` once for each of its steps, which fails; yield after each, and end when it runs."""
    for step in itertools.count(1):
        disk.stop(at=step)
        with warnings.catch_warnings():
            # A card that cannot be written is a warning: the index is saved.
            warnings.filterwarnings("ignore", "The index is saved", UserWarning)
            try:
                call()
                failed = False
            except OSError as error:
                assert error.errno == errno.ENOSPC
                failed = True
        stopped = disk.stopped
        disk.stop(at=0)
        if not stopped:
            assert not failed and step > 2
            return
        yield failed


class TestFullDisk:
    def test_a_first_save_leaves_nothing(self, rng, disk):
        index = filled(rng)
        outcomes = []
        for failed in interrupted(lambda: index.save("index"), disk):
            outcomes.append(failed)
            if not Path("index/manifest.json").exists():
                assert failed and files() in ([], ["lock"])
            else:
                assert content(Index.load("index")) == content(index)
            shutil.rmtree("index", ignore_errors=True)
        assert outcomes.count(True) > 20

    @pytest.mark.parametrize("kept", [False, True])
    def test_a_save_leaves_the_old_state_and_its_files(self, rng, disk, kept):
        index = filled(rng)
        add(index, rng, ids=["late"])
        (index.keep if kept else index.save)("index")
        old, before = content(index), files()
        outcomes = []
        index.replace(rng.normal(size=(1, DIM)), ["other"], ["late"])
        new = content(index)
        for failed in interrupted(lambda: index.save("index"), disk):
            assert content(index) == new
            found = content(Index.load("index"))
            if kept:
                check_kept(index, "index", rng)
            if failed and files() == before:
                assert found == (new if kept else old)
                outcomes.append("old")
                continue
            # The new state is there: only the card failed, or the flush of the folder. Then a
            # power failure could still bring the old manifest back, so that its files stay.
            assert found == new and (not failed or set(before) < set(files()))
            outcomes.append("flush" if failed else "card")
            index.save("index")
            old, before = content(index), files()
            index.replace(rng.normal(size=(1, DIM)), ["other"], ["late"])
            new = content(index)
        assert content(Index.load("index")) == new
        assert outcomes.count("old") > 15 and outcomes.count("flush") == 1
        assert len(list(Path("index").glob("data-*"))) == 1
        index.close()

    def test_a_change_that_does_not_fit_is_undone(self, rng, disk):
        index = filled(rng)
        index.keep("index")
        vectors = rng.normal(size=(1, DIM))
        for call in (
            lambda: index.add(vectors, ["new"], ["late"]),
            lambda: index.replace(vectors + 1, ["other"], ["late"]),
            lambda: index.remove(["late"]),
        ):
            before, size = content(index), sum(p.stat().st_size for p in Path("index").iterdir())
            for failed in interrupted(call, disk):
                assert failed
                assert content(index) == before == content(Index.load("index"))
                assert size == sum(p.stat().st_size for p in Path("index").iterdir())
            assert content(Index.load("index")) == content(index) != before
        index.close()

    def test_a_folder_that_is_full_leaves_the_other_kept(self, rng, disk):
        index = filled(rng)
        index.keep("here")
        for failed in interrupted(lambda: index.keep("index"), disk):
            where = "here" if index._journal.folder.name == "here" else "index"
            assert where == "here" or not failed or len(list(Path("index").glob("data-*"))) == 1
            check_kept(index, where, rng)
            if where == "index":
                index.keep("here")
        check_kept(index, "index", rng)
        index.close()

    def test_what_a_kill_left_makes_room(self, rng, disk):
        index = filled(rng)
        index.save("index")
        left = [Path("index", f"{kind}-{'0' * 32}") for kind in ("data", "journal")]
        left[0].mkdir()
        (left[0] / "vectors.npy").write_bytes(b"x" * 999)
        left[1].write_bytes(b"x" * 999)
        Index.load("index")
        assert left[0].exists(), "another process could be writing it"
        disk.stop(at=2)
        with pytest.raises(OSError, match="No space"):
            index.save("index")
        assert not any(path.exists() for path in left)
        # While another index holds the folder, its unfinished files stay.
        other = Index.load("index")
        other.keep("index")
        left[0].mkdir()
        with pytest.raises(ValueError, match="keeps or saves"):
            index.save("index")
        assert left[0].exists()
        other.close()

    def test_a_damaged_manifest_removes_nothing(self, rng, disk):
        index = filled(rng)
        index.save("index")
        before = files()
        good = Path("index/manifest.json").read_bytes()
        Path("index/manifest.json").write_bytes(b"damaged")
        for step in (2, 9):
            disk.stop(at=step)
            with pytest.raises(OSError, match="No space"):
                index.save("index")
        assert set(before) <= set(files())
        Path("index/manifest.json").write_bytes(good)
        assert content(Index.load("index")) == content(index)

    def test_a_small_disk(self, rng):
        Path("disk").mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", "disk"]
        if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root")
        try:
            index = filled(rng, 1000)
            index.keep("disk/index")
            before = files("disk/index")
            for calls in range(4):
                if calls == 2:
                    # One copy fits, a second one next to it does not.
                    add(index, rng, 3000)
                wanted = content(index)
                with pytest.raises(OSError, match="No space"):
                    add(index, rng, 9000) if calls < 2 else index.save("disk/index")
                assert content(index) == wanted == content(Index.load("disk/index"))
                assert files("disk/index") == before
                add(index, rng)
            assert content(Index.load("disk/index")) == content(index)
            index.close()
        finally:
            subprocess.run(["umount", "-l", "disk"], check=True)
