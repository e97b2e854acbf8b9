"""A fair lock: a writer excludes readers only while it applies its change."""

import contextlib
import threading


class ReadWriteLock:
    """Allows many readers and one writer; only the part inside `exclusive` excludes readers.

    Writers run in the order in which they arrive. A reader that arrives while a writer is
    exclusive, or waits to be, waits for this writer only: it is admitted before the next one.

    Not reentrant: a nested reader could wait for a writer that waits for the outer reader.
    """

    def __init__(self):
        self._changed = threading.Condition()
        # One entry for each writer; the first one runs.
        self._writers = []
        # True while the running writer is exclusive or waits to be.
        self._closed = False
        self._readers = 0
        # Number of readers that wait for the end of the current phase.
        self._waiting = 0
        # Number of exclusive parts that have ended.
        self._phase = 0

    @contextlib.contextmanager
    def read(self):
        """Read concurrently with other readers; no change is applied meanwhile."""
        with self._changed:
            self._enter()
        try:
            yield
        finally:
            with self._changed:
                self._leave()

    @contextlib.contextmanager
    def write(self):
        """Be the only writer, concurrently with readers, to check and log a change."""
        ticket = object()
        with self._changed:
            self._writers.append(ticket)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._writers[0] is ticket)
            yield
        finally:
            with self._changed:
                self._writers.remove(ticket)
                self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self):
        """Exclude readers, inside `write`, to apply a change.

        An interrupt during the wait is raised after the change, which may be on the disk already.
        """
        interrupt, free = None, False
        while not free:
            try:
                with self._changed:
                    self._closed = True
                    free = self._changed.wait_for(lambda: not self._readers)
            except BaseException as error:
                interrupt = error
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._phase += 1
                # Admit the waiting readers here; otherwise the next writer could precede them.
                self._readers += self._waiting
                self._waiting = 0
                self._changed.notify_all()
        if interrupt is not None:
            raise interrupt

    def _enter(self):
        if not self._closed:
            self._readers += 1
            return
        phase = self._phase
        self._waiting += 1
        try:
            self._changed.wait_for(lambda: self._phase > phase)
        except BaseException:
            if self._phase > phase:
                self._leave()
            else:
                self._waiting -= 1
            raise

    def _leave(self):
        self._readers -= 1
        if not self._readers:
            self._changed.notify_all()
