"""A lock that many readers share and one writer has alone."""

import contextlib
import threading


class ReadWriteLock:
    """Readers run beside each other; a writer waits for them, and new readers wait for it.

    Not reentrant: a reader that asks again could wait for a writer that waits for the reader.
    """

    def __init__(self):
        self._free = threading.Condition()
        self._readers = 0
        self._waiting = 0
        self._writing = False

    @contextlib.contextmanager
    def read(self):
        with self._free:
            self._free.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._free:
                self._readers -= 1
                self._free.notify_all()

    @contextlib.contextmanager
    def write(self):
        with self._free:
            self._waiting += 1
            try:
                self._free.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._waiting -= 1
                self._free.notify_all()
        try:
            yield
        finally:
            with self._free:
                self._writing = False
                self._free.notify_all()
