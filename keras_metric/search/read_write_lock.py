"""A fair lock: a writer excludes readers only to apply its change, and neither side starves."""

import contextlib
import threading


class ReadWriteLock:
    """Many readers and one writer at a time; only the part inside `alone` excludes readers.

    Writers run in the order in which they arrive. A reader that arrives while a writer is alone,
    or waits to be alone, waits for this writer only: it is admitted before the next writer.

    Not reentrant: a reader that enters again could wait for a writer that waits for the reader.
    """

    def __init__(self):
        self._changed = threading.Condition()
        # One entry for each writer; the first one runs.
        self._writers = []
        # True while the running writer is alone or waits to be alone.
        self._closed = False
        self._readers = 0
        # Readers that wait for the end of the phase with this number.
        self._waiting = 0
        self._phase = 0

    @contextlib.contextmanager
    def read(self):
        """Read next to other readers; nothing changes meanwhile."""
        with self._changed:
            self._enter()
        try:
            yield
        finally:
            with self._changed:
                self._leave()

    @contextlib.contextmanager
    def write(self):
        """Be the only writer, next to readers: check a change, and write it to the disk."""
        place = object()
        with self._changed:
            self._writers.append(place)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._writers[0] is place)
            yield
        finally:
            with self._changed:
                self._writers.remove(place)
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self):
        """Exclude readers, inside `write`, to apply a change.

        An interrupt during the wait is raised after the change: the disk may have the change.
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
                # Count the waiting readers here: a next writer could otherwise be faster.
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
