"""The folder that an index is saved or kept in: its lock, and its current journal."""

import os
import weakref

try:
    import fcntl
except ImportError:
    fcntl = None

from keras_metric.search.storage.journal import is_at

_OPEN = weakref.WeakSet()


class KeptFolder:
    """A locked folder, and its current `Journal` if an index is kept there.

    The lock is held until `close` or until this process ends.
    """

    def __init__(self, path):
        self.path, self._journal, self._process = path.resolve(), None, os.getpid()
        # Whether the manifest that names the journal has been flushed to the disk.
        self._flushed = False
        self.lock = open(path / "lock", "ab")  # noqa: SIM115
        _OPEN.add(self)
        # Windows has no `flock`: there the user must ensure that one process writes.
        if fcntl is not None:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.lock.close()
                raise ValueError(
                    f"Another process, or another index of this one, keeps or saves {str(path)!r}. "
                    "Save to another folder, or use that index."
                ) from None

    def owns(self, path):
        """Whether `path` is this folder, and still the one that was locked."""
        if self.path != path.resolve():
            return False
        self._check_process()
        return is_at(self.lock, path / "lock")

    def switch_to(self, journal):
        """Append further changes to another `Journal`."""
        old, self._journal, self._flushed = self._journal, journal, False
        if old is not None:
            old.close()

    def append(self, *change):
        """Write a change to the journal; it is on the disk when this returns."""
        self._check_process()
        if not self._flushed:
            self.flush()
        self._journal.append(*change)

    def flush(self):
        """Flush the names of the files in the folder to the disk."""
        flush_folder(self.path)
        self._flushed = True

    def close(self):
        if self._journal is not None:
            self._journal.close()
        # A child that was just forked may still have a copy of the file, which would extend the
        # lock. Unlocking releases all copies. In the child itself, close the copy only.
        if fcntl is not None and not self.lock.closed and self._process == os.getpid():
            fcntl.flock(self.lock, fcntl.LOCK_UN)
        self.lock.close()

    def _check_process(self):
        if self._process != os.getpid():
            raise RuntimeError(
                f"The index in {str(self.path)!r} is kept by the process {self._process}; only "
                f"that process may change it. Received: a change by its fork {os.getpid()}. "
                "Nothing was changed. Pass the change to that process, or `keep` this copy in "
                "another folder."
            )


def flush_folder(path):
    """Flush the directory entries of a folder to the disk."""
    # Windows cannot open folders; there a rename is durable once it returns.
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _close_in_child():
    """Close locks and journals in a forked child: its copy of a lock would outlive the parent."""
    for opened in list(_OPEN):
        opened.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
