"""Threads that search, add and save concurrently: their order, and that none starves."""

import os
import sys
import threading
import time

import numpy as np
import pytest

from keras_metric.search import Index
from keras_metric.search.read_write_lock import ReadWriteLock

# Seconds after which a blocked test fails.
LONGEST = 60
DIM = 8


class Threads:
    """Threads that a test starts and joins; their errors fail the test."""

    def __init__(self):
        self._all, self._errors = [], []

    def start(self, function, *arguments):
        thread = threading.Thread(target=self._run, args=(function, *arguments), daemon=True)
        self._all.append(thread)
        thread.start()
        return thread

    def start_and_block(self, function, *arguments):
        """Start a thread and return when it waits for a lock."""
        thread = self.start(function, *arguments)
        end = time.monotonic() + LONGEST
        while not waits(thread):
            assert thread.is_alive() and time.monotonic() < end, self._errors
            time.sleep(0.001)
        return thread

    def join(self):
        for thread in self._all:
            thread.join(LONGEST)
            assert not thread.is_alive(), "a thread hangs"
        assert not self._errors

    def _run(self, function, *arguments):
        try:
            function(*arguments)
        except BaseException as error:
            self._errors.append(error)


def waits(thread):
    """Whether a thread is inside `Condition.wait_for`."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None:
        if frame.f_code.co_name == "wait_for":
            return True
        frame = frame.f_back
    return False


@pytest.fixture
def threads():
    return Threads()


def blocked(function, started, gate):
    """A wrapper of a function: each call first sets `started` and waits for `gate`."""

    def call(*arguments):
        started.set()
        assert gate.wait(LONGEST)
        return function(*arguments)

    return call


def item(index, key):
    index.add(np.ones((1, DIM)), ["l"], [key])


def test_waiting_readers_precede_the_next_writer(threads, monkeypatch):
    index, order = Index(DIM), []
    started, gate = threading.Event(), threading.Event()
    search, add = index._store.search, blocked(index._store.add, started, gate)

    def recorded_add(ids, *rest):
        add(ids, *rest)
        order.append(ids[0])

    def recorded_search(*arguments):
        order.append("search")
        return search(*arguments)

    monkeypatch.setattr(index._store, "add", recorded_add)
    monkeypatch.setattr(index._store, "search", recorded_search)
    threads.start(item, index, "a")
    assert started.wait(LONGEST)
    threads.start_and_block(item, index, "b")
    for _ in range(2):
        threads.start_and_block(index.search, np.ones((1, DIM)))
    for key in ("c", "d"):
        threads.start_and_block(item, index, key)
    gate.set()
    threads.join()
    assert order == ["a", "search", "search", "b", "c", "d"]


@pytest.mark.parametrize("method", ["add", "save", "keep"])
def test_searches_run_and_changes_wait_during_a_flush(threads, monkeypatch, tmp_path, method):
    index = Index(DIM)
    index.keep(tmp_path / "index")
    item(index, "a")
    started, gate, found = threading.Event(), threading.Event(), []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", blocked(os.fsync, started, gate))
        if method == "add":
            threads.start(item, index, "b")
        else:
            threads.start(getattr(index, method), tmp_path / "index")
        assert started.wait(LONGEST)
        threads.start_and_block(item, index, "c")
        reader = threads.start(lambda: found.extend(index.search(np.ones((1, DIM)))[0]))
        reader.join(LONGEST)
        gate.set()
        threads.join()
    # A change is found only after it has been flushed.
    assert [match.id for match in found] == ["a"]
    ids = ["a", "b", "c"] if method == "add" else ["a", "c"]
    assert index.ids() == ids
    index.close()
    # The new journal contains the item that was added during a save.
    assert Index.load(tmp_path / "index").ids() == ids


def test_neither_searches_nor_additions_starve(threads, tmp_path):
    """Two threads that add continuously must not block searches for seconds."""
    index, stop, added = Index(DIM), threading.Event(), [0, 0]
    searches, end = 0, time.monotonic() + LONGEST
    index.add(np.random.default_rng(0).normal(size=(3000, DIM)), [0] * 3000)
    index.keep(tmp_path / "index")

    def add(number):
        while not stop.is_set() and time.monotonic() < end:
            index.add(np.ones((1, DIM)), ["new"])
            added[number] += 1

    for number in range(2):
        threads.start(add, number)
    while time.monotonic() < end and (searches < 300 or min(added) < 5):
        index.search(np.ones((1, DIM)), k=1)
        searches += 1
    stop.set()
    threads.join()
    index.close()
    assert searches >= 300 and min(added) >= 5


@pytest.mark.usefixtures("frequent_switches")
def test_readers_read_complete_changes(threads):
    """With frequent thread switches, no reader reads a pair of which one half has changed."""
    lock, pair, pairs = ReadWriteLock(), [0, 0], []

    def write():
        for _ in range(200):
            with lock.write():
                before = pair[0]
                with lock.exclusive():
                    pair[0] += 1
                    time.sleep(0)
                    pair[1] = before + 1

    def read():
        for _ in range(200):
            with lock.read():
                first = pair[0]
                time.sleep(0)
                pairs.append((first, pair[1]))

    for _ in range(4):
        threads.start(write)
        threads.start(read)
    threads.join()
    assert pair == [800, 800]
    assert len(pairs) == 800 and all(first == second for first, second in pairs)


def test_readers_get_items_of_one_state(threads, rng):
    """Label and attribute depend on the vector, so that an inconsistent read is detected."""
    index, stop = Index(2, metric="euclidean"), threading.Event()
    points = rng.integers(-50, 50, (300, 2)).astype("float32")

    def enrol(rows, ids, method):
        x = points[rows]
        names = [f"{a:.0f},{b:.0f}" for a, b in x]
        method(x, names, ids, [{"first": float(a)} for a in x[:, 0]])

    def vector_of(found):
        x = np.array([float(part) for part in found.label.split(",")])
        assert found.attributes["first"] == x[0]
        return x

    def read(seed):
        dice = np.random.default_rng(seed)
        while not stop.is_set():
            query = dice.integers(-50, 50, (1, 2)).astype("float64")
            where = {"first": (-20, 20)} if dice.random() < 0.5 else None
            for match in index.search(query, k=7, where=where)[0]:
                assert abs(np.linalg.norm(query - vector_of(match)) - match.distance) < 1e-6
            index.identify(query, "centroid", threshold=3)
            for item in index:
                assert (item.embedding == vector_of(item)).all()

    enrolled, writes = list(range(100)), 0
    enrol(range(100), enrolled, index.add)
    for seed in range(4):
        threads.start(read, seed)
    end = time.perf_counter() + 2
    while time.perf_counter() < end:
        ids = [1000 + 3 * writes + n for n in range(3)]
        enrol(rng.integers(300, size=3), ids, index.add)
        enrol(rng.integers(300, size=2), enrolled[:2], index.replace)
        index.remove([enrolled.pop(int(rng.integers(len(enrolled)))) for _ in range(3)])
        enrolled += ids
        writes += 1
    stop.set()
    threads.join()
    assert writes > 20 and sorted(index.ids()) == sorted(enrolled)


@pytest.mark.parametrize("admitted", [False, True])
@pytest.mark.parametrize("side", ["read", "write"])
def test_an_interrupted_wait_leaves_the_lock_usable(threads, monkeypatch, side, admitted):
    lock, order = ReadWriteLock(), []
    started, gate = threading.Event(), threading.Event()

    def write(key):
        with lock.write(), lock.exclusive():
            started.set()
            assert gate.wait(LONGEST)
            order.append(key)

    def wait_for(condition):
        if admitted:
            gate.set()
            assert real(condition)
        raise KeyboardInterrupt

    threads.start(write, "a")
    assert started.wait(LONGEST)
    real = lock._changed.wait_for
    monkeypatch.setattr(lock._changed, "wait_for", wait_for)
    with pytest.raises(KeyboardInterrupt), getattr(lock, side)():
        order.append("never")
    monkeypatch.setattr(lock._changed, "wait_for", real)
    gate.set()
    threads.start(write, "b")
    threads.join()
    assert order == ["a", "b"]


def test_an_interrupt_is_raised_after_a_change_on_the_disk(monkeypatch, tmp_path):
    index = Index(DIM)
    index.keep(tmp_path / "index")
    events, append = [], index._kept.append
    real = index._lock._changed.wait_for

    def wait_for(condition):
        if events == ["written"]:
            events.append("interrupted")
            raise KeyboardInterrupt
        return real(condition)

    def recorded(*change):
        append(*change)
        events.append("written")

    monkeypatch.setattr(index._kept, "append", recorded)
    monkeypatch.setattr(index._lock._changed, "wait_for", wait_for)
    with pytest.raises(KeyboardInterrupt):
        item(index, "a")
    assert events == ["written", "interrupted"]
    assert "a" in index
    item(index, "b")
    index.close()
    assert Index.load(tmp_path / "index").ids() == ["a", "b"]
