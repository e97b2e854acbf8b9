"""Full disks, kills, forks, power failures and deleted folders leave a complete index."""

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
import traceback
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from expected_results import content

from keras_metric._validation import shown
from keras_metric.search import Index
from keras_metric.search.storage import index_folder, journal, kept_folder

DIM = 6


def filled(rng, count=5):
    index = Index(DIM, metric="euclidean")
    attributes = [{"age": n, "by": f"studio {n % 3}"} for n in range(count)]
    index.add(
        rng.normal(size=(count, DIM)), [f"label {n % 7}" for n in range(count)], None, attributes
    )
    return index


@pytest.fixture
def index(rng):
    """An index that is kept in the folder "index"."""
    index = filled(rng)
    index.keep("index")
    yield index
    index.close()


def files(path="index"):
    return sorted(str(entry.relative_to(path)) for entry in Path(path).rglob("*"))


def stored(path):
    return [entry for entry in Path(path).rglob("*") if entry.is_file()]


def add(index, rng, count=1, **arguments):
    return index.add(rng.normal(size=(count, DIM)), ["new"] * count, **arguments)


def check_kept(index, path, rng):
    """Check that each change is in the folder when its call returns."""
    add(index, rng, ids=["fits"])
    assert content(Index.load(path)) == content(index)
    index.remove(["fits"])
    assert content(Index.load(path)) == content(index)


def check_kept_again(rng):
    """Load the index in the folder "index" and check that it can be kept there."""
    index = Index.load("index")
    index.keep("index")
    check_kept(index, "index", rng)
    index.close()


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Disk:
    """Counts the calls by which an index changes the disk, and interrupts one of them."""

    def __init__(self, patch, interrupt=lambda: None, steps=("fsync", "mkdir", "replace")):
        self.interrupt, self.steps, self.stop_at = interrupt, 0, 0
        for name in steps:
            patch.setattr(os, name, self._counted(getattr(os, name)))
        for module in (index_folder, journal, kept_folder):
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
        file = open(path, mode, **arguments)  # noqa: SIM115
        return file if "r" in mode else File(file, self)


class File:
    """A file that an interrupted write leaves with the first half of the data."""

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
    """Run `call` once for each of its steps, let that step fail, and yield if the call failed."""
    for step in itertools.count(1):
        disk.stop(at=step)
        with warnings.catch_warnings():
            # A failed write of the card is a warning only.
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
    def test_a_failed_first_save_leaves_no_files(self, rng, disk):
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
    def test_a_failed_save_leaves_the_old_state(self, rng, disk, kept):
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
            # The new state is saved: only the card or the flush of the folder failed. In the second
            # case a power failure could restore the old manifest, so its files must remain.
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

    def test_a_failed_change_is_undone(self, rng, disk, index):
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

    def test_a_failed_keep_leaves_the_earlier_folder_kept(self, rng, disk):
        index = filled(rng)
        index.keep("here")
        for failed in interrupted(lambda: index.keep("index"), disk):
            where = "here" if index._kept.path.name == "here" else "index"
            assert where == "here" or not failed or len(list(Path("index").glob("data-*"))) == 1
            check_kept(index, where, rng)
            if where == "index":
                index.keep("here")
        check_kept(index, "index", rng)
        index.close()

    def test_files_left_by_a_kill_are_removed(self, rng, disk):
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
        # While another index keeps the folder, unfinished files are not removed.
        other = Index.load("index")
        other.keep("index")
        left[0].mkdir()
        with pytest.raises(ValueError, match="keeps or saves"):
            index.save("index")
        assert left[0].exists()
        other.close()

    def test_a_damaged_manifest_removes_no_files(self, rng, disk):
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
                    # The disk has space for one copy of the index, but not for two.
                    add(index, rng, 3000)
                expected = content(index)
                with pytest.raises(OSError, match="No space"):
                    add(index, rng, 9000) if calls < 2 else index.save("disk/index")
                assert content(index) == expected == content(Index.load("disk/index"))
                assert files("disk/index") == before
                add(index, rng)
            assert content(Index.load("disk/index")) == content(index)
            index.close()
        finally:
            subprocess.run(["umount", "-l", "disk"], check=True)


def forked(work):
    """Run `work` in a forked child and return its exit status; -9 if it was killed."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Every call by which an index changes the disk, and those that remove files.
STEPS = ("fsync", "mkdir", "replace", "unlink", "rmdir")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestKills:
    """A child process kills itself before, or in the middle of, one change of the disk."""

    def sweep(self, work, check):
        """Kill `work` at 60 of its steps, each time in a new folder."""
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, die, STEPS)
            shutil.copytree("start", "index")
            disk.stop(at=0)
            with open(os.devnull, "wb") as unread:
                work(unread.fileno())
            kills = np.unique(np.linspace(1, disk.steps, 60).astype(int))
            for step in kills.tolist():
                shutil.rmtree("index")
                shutil.copytree("start", "index")
                read, write = os.pipe()

                def killed(step=step, write=write):
                    disk.stop(at=step)
                    work(write)

                assert forked(killed) == -signal.SIGKILL
                os.close(write)
                with open(read, "rb") as written:
                    check(len(written.read()), content(Index.load("index")))
        return len(kills)

    def test_a_killed_save_leaves_the_old_or_the_new_state(self, rng):
        states, indexes = [], []
        for count in range(3, 8):
            indexes.append(filled(rng, count))
            states.append(content(indexes[-1]))
        indexes[0].save("start")
        outcomes = set()

        def work(written):
            for index in indexes[1:]:
                index.save("index")
                os.write(written, b".")

        def check(completed, found):
            assert found in states[completed : completed + 2]
            outcomes.add(states.index(found) - completed)
            # The next save removes the files left by the kill.
            indexes[0].save("index")
            assert {name.split("-")[0] for name in os.listdir("index")} <= {
                *("card.md", "data", "lock", "manifest.json")
            }
            assert len(list(Path("index").glob("data-*"))) == 1

        assert self.sweep(work, check) == 60
        assert outcomes == {0, 1}, "the kills should come before and after the rename"

    def test_a_kept_index_has_all_completed_changes(self, rng):
        vectors = rng.normal(size=(4, DIM))
        calls = [
            lambda index: index.keep("index"),
            lambda index: index.add(vectors, ["a", "b", "c", "a"], list("abcd"), [{"by": "é"}] * 4),
            lambda index: index.remove(labels=["a"]),
            lambda index: index.replace(vectors[:1], ["z"], ["b"]),
            lambda index: index.save("index"),
            lambda index: index.add(vectors[:2], ["e", "f"]),
            lambda index: index.remove([0, "c"]),
            lambda index: index.keep("index"),
            lambda index: index.enrol(vectors, "mean", "late"),
        ]
        model = filled(rng)
        model.save("start")
        states = [content(model)]
        for call in calls:
            if call not in (calls[0], calls[4], calls[7]):
                call(model)
            states.append(content(model))

        def work(written):
            index = Index.load("index")
            for call in calls:
                call(index)
                os.write(written, b".")
            index.close()

        outcomes = set()

        def check(completed, found):
            outcomes.add(completed)
            assert found in states[completed : completed + 2]

        assert self.sweep(work, check) == 60
        assert outcomes >= set(range(8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestForks:
    def test_a_child_can_read_but_not_change(self, rng, index):
        query = rng.normal(size=(30, DIM))
        expected = index.search(query, 3)

        def child():
            assert index.search(query, 3) == expected and len(index) == 5
            changes = [
                lambda: add(index, rng),
                lambda: index.replace(query[:1], ["x"], [0]),
                lambda: index.remove([0]),
                lambda: index.enrol(query, "mean"),
                lambda: index.save("index"),
                lambda: index.keep("index"),
            ]
            for change in changes:
                with pytest.raises(RuntimeError, match="kept by the process .* `keep` this copy"):
                    change()
            assert content(index) == content(Index.load("index"))
            # The child can write to other folders.
            index.save("copy")
            index.keep("elsewhere")
            add(index, rng, ids=["child"])
            assert content(Index.load("elsewhere")) == content(index)
            index.close()

        before = files()
        assert forked(child) == 0
        assert files() == before
        assert add(index, rng) == [5]
        assert content(Index.load("index")) == content(index)
        assert "child" in Index.load("elsewhere") and len(Index.load("copy")) == 5

    def test_a_child_can_close_its_copy(self, rng, index):
        assert forked(index.close) == 0
        other = filled(rng)
        with pytest.raises(ValueError, match="keeps or saves"):
            other.save("index")
        check_kept(index, "index", rng)

    def test_a_running_child_does_not_lock_the_folder(self, rng, index):
        # For example a worker that runs longer than the service.
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(write)
                os.read(read, 1)
            finally:
                os._exit(0)
        index.close()
        check_kept_again(rng)
        os.close(write)
        os.close(read)
        assert os.waitpid(pid, 0)[1] == 0

    def test_a_copy_of_the_lock_does_not_lock_the_folder(self, rng, index):
        # A child has such a copy immediately after a fork.
        copy = os.dup(index._kept.lock.fileno())
        index.close()
        check_kept_again(rng)
        os.close(copy)

    def test_a_child_of_many_threads_searches(self, rng):
        # The threads of FAISS exist in the parent only; the child must not wait for them.
        import faiss

        index = filled(rng, 3000)
        query = rng.normal(size=(200, DIM))
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(4)
        try:
            expected = index.search(query, 3)

            def child():
                signal.alarm(60)
                assert index.search(query, 3) == expected

            assert forked(child) == 0
            assert faiss.omp_get_max_threads() == 4
        finally:
            faiss.omp_set_num_threads(threads)


def spawn(index):
    multiprocessing.get_context("spawn").Process(target=len, args=(index,)).start()


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy, spawn])
@pytest.mark.parametrize("kept", [False, True])
def test_an_index_is_not_copied_to_another_process(rng, duplicate, kept):
    index = filled(rng)
    if kept:
        index.keep("index")
    with pytest.raises(TypeError, match=r"neither copied nor pickled.*Index\.load"):
        duplicate(index)
    index.close()


class TestFolder:
    def test_a_change_of_the_working_folder(self, rng, monkeypatch, index):
        path = Path("index").resolve()
        Path("below").mkdir()
        monkeypatch.chdir("below")
        check_kept(index, path, rng)

    @pytest.mark.parametrize("event", ["deleted", "moved", "replaced", "journal deleted"])
    def test_a_change_after_the_folder_was_removed(self, rng, event, index):
        add(index, rng)
        if event == "deleted":
            shutil.rmtree("index")
        elif event == "journal deleted":
            next(Path("index").glob("journal-*")).unlink()
        else:
            Path("index").rename("moved")
            if event == "replaced":
                shutil.copytree("moved", "index")
        before = content(index)
        for change in (
            lambda: add(index, rng),
            lambda: index.replace(np.ones((1, DIM)), ["x"], [0]),
            lambda: index.remove([0]),
        ):
            with pytest.raises(FileNotFoundError, match="deleted, moved or replaced.*`keep`"):
                change()
        assert content(index) == before
        if event in ("moved", "replaced"):
            assert content(Index.load("moved")) == before
        index.keep("index")
        check_kept(index, "index", rng)
        # The new folder is locked, and not the old one.
        with pytest.raises(ValueError, match="keeps or saves"):
            filled(rng).save("index")
        if event in ("moved", "replaced"):
            filled(rng).save("moved")

    def test_a_save_creates_the_folder_again(self, rng, index):
        shutil.rmtree("index")
        index.save("index")
        check_kept(index, "index", rng)

    def test_a_closed_index_needs_the_lock_to_save(self, rng):
        index, other = filled(rng), filled(rng)
        index.keep("index")
        index.close()
        other.keep("index")
        with pytest.raises(ValueError, match="keeps or saves"):
            index.save("index")
        other.close()


def test_after_an_interrupted_save_no_change_is_lost(rng, monkeypatch, index):
    replace = os.replace

    def interrupted_after(source, target):
        replace(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted_after)
        with pytest.raises(KeyboardInterrupt):
            index.save("index")
    with pytest.raises(ValueError, match="was closed"):
        add(index, rng)
    assert content(Index.load("index")) == content(index)
    index.keep("index")
    check_kept(index, "index", rng)


class TestPowerFailure:
    """After a power failure a file can have its new length without its new blocks: zeros."""

    def journal(self, rng, changes=4):
        """Keep an index with some changes; return the journal and the start of each change."""
        index = filled(rng)
        index.keep("index")
        path = next(Path("index").glob("journal-*"))
        starts = []
        for n in range(changes):
            starts.append(path.stat().st_size)
            add(index, rng, 60, ids=[f"{n}-{row}" for row in range(60)])
        index.close()
        return path, [*starts, path.stat().st_size]

    def loaded(self):
        return (len(Index.load("index")) - 5) / 60

    @pytest.mark.parametrize("zeros", [1, 19, 20, 511, 512, 4096, 100_000])
    def test_zeros_after_the_last_change(self, rng, zeros):
        path, _ = self.journal(rng)
        path.write_bytes(path.read_bytes() + bytes(zeros))
        assert self.loaded() == 4
        check_kept_again(rng)

    def test_zeros_in_place_of_the_last_blocks(self, rng):
        path, starts = self.journal(rng)
        data = path.read_bytes()
        blocks = [start for start in range(0, len(data), 512) if start > starts[3]]
        assert len(blocks) > 4
        for start in [starts[2], starts[3], *blocks]:
            path.write_bytes(data[:start] + bytes(len(data) - start))
            assert self.loaded() == (2 if start == starts[2] else 3)

    @pytest.mark.parametrize(("change", "zeros"), [(1, 0), (1, 5000), (3, 0)])
    def test_a_damaged_change_is_named(self, rng, change, zeros):
        path, starts = self.journal(rng)
        data = path.read_bytes() + bytes(zeros)
        start, end = starts[change : change + 2]
        for position in (start, start + 4, start + 18, start + 50, end - 1):
            altered = bytearray(data)
            altered[position] ^= 1
            path.write_bytes(altered)
            with pytest.raises(ValueError, match=f"damaged at byte {start}"):
                Index.load("index")


class TestRemovedData:
    NAME, NUMBER = "Secret Ann", 12345.5

    def reachable(self, index):
        """Every string and every array that can be reached from an index."""
        found, stack = {}, [vars(index)]
        while stack:
            thing = stack.pop()
            skipped = isinstance(thing, (type, types.ModuleType, types.FunctionType))
            if id(thing) not in found and not skipped:
                found[id(thing)] = thing
                stack += gc.get_referents(thing)
        return [thing for thing in found.values() if isinstance(thing, (str, np.ndarray))]

    def holds(self, index):
        """Whether the name or the number is anywhere in the index, spare capacity included."""
        return any(
            self.NAME in thing
            if isinstance(thing, str)
            else thing.dtype.kind == "f" and bool((thing == self.NUMBER).any())
            for thing in self.reachable(index)
        )

    def add_secret(self, index, label, ids, vectors):
        attributes = [{"by": f"{label} {key}", "age": self.NUMBER} for key in ids]
        index.add(vectors, [label] * len(ids), ids, attributes)

    @pytest.mark.parametrize("loaded", [False, True])
    @pytest.mark.parametrize("method", ["remove", "remove label", "remove all", "replace"])
    def test_nothing_of_a_removed_item_remains(self, rng, method, loaded):
        index = filled(rng)
        secret = np.full((2, DIM), self.NUMBER)
        self.add_secret(index, self.NAME, [f"{self.NAME} 1", f"{self.NAME} 2"], secret)
        self.add_secret(index, "Bob", ["between", "last"], rng.normal(size=(2, DIM)))
        if loaded:
            index.save("index")
            index = Index.load("index")
        index.identify(rng.normal(size=(1, DIM)), "centroid", threshold=1)
        index.replace(rng.normal(size=(2, DIM)), ["Bob"] * 2, ["between", "last"], [{}, {}])
        assert self.holds(index)
        if method == "replace":
            index.remove([f"{self.NAME} 1"])
            self.add_secret(index, "x", ["x"], rng.normal(size=(1, DIM)))
            index.replace(rng.normal(size=(1, DIM)), ["y"], ["x"])
            index.remove([f"{self.NAME} 2"])
        elif method == "remove":
            index.remove([f"{self.NAME} 2", f"{self.NAME} 1"])
        elif method == "remove label":
            index.remove(labels=[self.NAME])
        else:
            index.remove(index.ids())
        assert not self.holds(index)
        store = index._store
        arrays = [store.vectors, store.labels]
        arrays += [getattr(c, a) for c in store.columns._columns.values() for a in c.arrays]
        for array in arrays:
            assert len(array) == len(index) and not array._capacity[len(array) :].any()
        # The saved state is that of an index that never had the item.
        index.keep("kept")
        assert not any(self.NAME.encode() in path.read_bytes() for path in stored("kept"))
        again = Index.load("kept")
        assert content(again) == content(index)
        if len(index):
            query = rng.normal(size=(4, DIM))
            named = index.identify(query, "centroid", threshold=9)
            assert again.identify(query, "centroid", threshold=9) == named
            assert not again.search(query[:1], where={"by": ("Secret", "Secret Z")})[0]
            assert not index.search(query[:1], where={"by": ("Secret", "Secret Z")})[0]
        index.close()

    def test_approximate_copies_are_removed_when_the_structure_is_built_again(self, rng):
        index = Index(DIM, metric="euclidean", kind="short", settings={"dims": 3, "train_at": 10})
        index.add(rng.normal(size=(40, DIM)), [0] * 40)
        index.add(np.full((1, DIM), self.NUMBER), [self.NAME], [self.NAME])
        index.remove([self.NAME])
        assert not self.holds(index)
        index.remove(index.ids()[:21])
        index.save("index")
        number = np.float32(self.NUMBER).tobytes()
        assert not any(number in path.read_bytes() for path in stored("index"))

    def test_the_next_save_removes_the_data_from_the_journal(self, index):
        self.add_secret(index, self.NAME, [self.NAME], np.full((1, DIM), self.NUMBER))
        index.remove(labels=[self.NAME])
        assert any(self.NAME.encode() in path.read_bytes() for path in stored("index"))
        index.save("index")
        number = np.float32(self.NUMBER).tobytes()
        for path in stored("index"):
            assert self.NAME.encode() not in path.read_bytes()
            assert number not in path.read_bytes()

    @pytest.mark.parametrize("one_by_one", [False, True])
    def test_name_tables_shrink(self, rng, one_by_one):
        index = filled(rng)
        expected = content(index)
        index.identify(np.ones((1, DIM)), "centroid", threshold=1)
        count = 6000 if one_by_one else 60_000
        for turn in range(2):
            names = [f"{turn} {row}" for row in range(count)]
            ids = index.add(rng.normal(size=(count, DIM)), names, None, [{"by": n} for n in names])
            if one_by_one:
                for start in range(0, count, 100):
                    index.remove(ids[start : start + 100])
            else:
                index.remove(ids)
            tables = [index._store.label_names, index._store.columns._columns["by"].names]
            for table in tables:
                assert len(table.values) <= 2000 and len(table.code_of) <= 5
            assert content(index) == expected
        query = rng.normal(size=(9, DIM))
        index.save("index")
        found = Index.load("index").identify(query, "centroid", threshold=9)
        assert index.identify(query, "centroid", threshold=9) == found


LONG = "x" * 10**7
WHERE = [{LONG: 1}, {LONG: (2, 1)}, {"a": LONG, "b": LONG}, {"by": [LONG, 1]}, {"by": 10**5000}]
WHERE += [{"by": (LONG, "a")}, {"by": (LONG,)}, {"age": LONG}, LONG, {"by": LONG.encode()}]
ONE = np.ones((1, DIM))
MESSAGES = {
    f"where {n}": lambda i, where=where: i.search(ONE, 1, where) for n, where in enumerate(WHERE)
}
MESSAGES |= {
    "an unknown id": lambda i: i.get([LONG]),
    "an unknown huge id": lambda i: i.remove([10**5000]),
    "an unknown label": lambda i: i.remove(labels=[LONG]),
    "ids and labels": lambda i: i.remove([LONG], [LONG] * 10**6),
    "a duplicate id": lambda i: i.add(np.ones((2, DIM)), [0, 0], [LONG, LONG]),
    "an existing id": lambda i: [i.add(ONE, [0], [LONG]) for _ in range(2)],
    "ids of text": lambda i: i.get(LONG),
    "an id of bytes": lambda i: i.get([LONG.encode()]),
    "an id of a list": lambda i: i.get([[LONG] * 10**5]),
    "a label of bytes": lambda i: i.add(ONE, [LONG.encode()]),
    "attributes of text": lambda i: i.add(ONE, [0], None, [LONG]),
    "a long attribute of None": lambda i: i.add(ONE, [0], None, [{LONG: None}]),
    "an attribute of bytes": lambda i: i.add(ONE, [0], None, [{"a": LONG.encode()}]),
    "a name of bytes": lambda i: i.add(ONE, [0], None, [{LONG.encode(): 1}]),
    "two kinds": lambda i: i.add(np.ones((2, DIM)), [0, 0], None, [{LONG: 1}, {LONG: "x"}]),
    "another kind": lambda i: [i.add(ONE, [0], None, [{LONG: value}]) for value in (1, "x")],
    "stages": lambda i: i.staged_search(ONE, LONG, threshold=1),
    "a threshold": lambda i: i.identify(ONE, threshold=LONG),
    "a huge threshold": lambda i: i.identify(ONE, threshold=10**5000),
    "a rule": lambda i: i.identify(ONE, LONG),
    "k": lambda i: i.search(ONE, LONG),
    "a rate": lambda i: i.calibrate(false_accept_rate=LONG),
    "a huge rate": lambda i: i.calibrate(false_accept_rate=10**5000),
    "a tiny rate": lambda i: i.calibrate(false_accept_rate=5e-324),
    "a metric": lambda i: Index(DIM, LONG),
    "a dim": lambda i: Index(10**5000),
    "a description": lambda i: Index(DIM, description=LONG.encode()),
    "an encoder": lambda i: Index(encoder=LONG),
    "settings": lambda i: Index(DIM, kind="hnsw", settings=LONG),
    "a setting": lambda i: Index(DIM, kind="hnsw", settings={LONG: 1}),
    "a huge setting": lambda i: Index(DIM, kind="hnsw", settings={"M": 10**5000}),
    "a uri": lambda i: Index(DIM, uri=LONG),
    "no path to load": lambda i: Index.load(LONG),
    "no path to save": lambda i: i.save(LONG),
    "no path to keep": lambda i: i.keep(LONG),
    "a path of a number": lambda i: i.save(10**5000),
    "a path with a null": lambda i: i.save("\0" + LONG),
}


@pytest.mark.parametrize("call", MESSAGES)
def test_messages_shorten_the_received_value(rng, call):
    index = filled(rng)
    with pytest.raises((ValueError, TypeError)) as caught:
        MESSAGES[call](index)
    assert len(str(caught.value)) < 2500
    assert "integer string conversion" not in str(caught.value)


@pytest.mark.parametrize("value", ["a" * 99, 10**50, {"by": ("a", None)}, [0.5, "x", True]])
def test_short_values_are_complete(value):
    assert shown(value) == repr(value)
