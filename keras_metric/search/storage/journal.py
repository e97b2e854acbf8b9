"""The journal: every change since the last save, on the disk before the call returns."""

import contextlib
import json
import os
import struct
import zlib

import numpy as np

from keras_metric._validation import shown
from keras_metric.search.attributes import as_table, rows_of
from keras_metric.search.ids import as_names, check_distinct
from keras_metric.search.stores.vectors import as_vectors

# Length of the JSON part, length of the vectors, checksum of both, checksum of this header.
_HEADER = struct.Struct("<IQII")
# Bytes of the smallest block that a disk writes.
_BLOCK = 512


class Journal:
    """A file of changes, each flushed to the disk as it is appended."""

    def __init__(self, path):
        self._path = path
        # Unbuffered: what was written is the operating system's, whatever becomes of us.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._broken = False

    def append(self, change, ids, vectors, labels, table):
        """Write one change; on an error nothing of it stays."""
        if self._file.closed:
            raise ValueError("This index was closed. Load it again from its folder.")
        if self._broken:
            raise OSError("The journal could not be repaired after an error. Save the index anew.")
        end = self._file.seek(0, os.SEEK_END)
        try:
            data = memoryview(_encode(change, ids, vectors, labels, table))
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
            if not is_at(self._file, self._path):
                raise FileNotFoundError(
                    f"The journal {str(self._path)!r} was deleted, moved or replaced. Nothing "
                    "was changed. `keep` the index again: it writes every item."
                )
        except BaseException:
            self._broken = True
            self._file.truncate(end)
            self._broken = False
            raise

    def close(self):
        # Every change is on the disk already, so an error here loses none.
        with contextlib.suppress(OSError):
            self._file.close()


def is_at(file, path):
    """Whether an open file is the one that `path` names now."""
    try:
        return not file.closed and os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def read_journal(path, dim):
    """Yield where each change of a journal stands, and `(change, ids, vectors, labels, table)`.

    A last change that is incomplete, or whose last blocks a power failure left as zeros, was never
    answered for, and is left out.
    """
    with open(path, "rb") as file:
        data = file.read()
    place = 0
    while len(data) - place >= _HEADER.size:
        header = data[place : place + _HEADER.size]
        text_size, vector_size, checksum, own = _HEADER.unpack(header)
        if zlib.crc32(header[:-4]) != own:
            if _ends_in_zeros(data, place, place + _HEADER.size):
                return
            raise _damaged(path, place)
        body = data[place + _HEADER.size : place + _HEADER.size + text_size + vector_size]
        if len(body) < text_size + vector_size:
            return
        if zlib.crc32(body) != checksum:
            if _ends_in_zeros(data, place, place + _HEADER.size + len(body)):
                return
            raise _damaged(path, place)
        with damage_named(path, place):
            change, ids, labels, attributes = json.loads(body[:text_size])
            vectors = np.frombuffer(body[text_size:], "<f4").reshape(-1, dim)
            table = None if attributes is None else as_table(attributes, len(ids))
        yield place, (change, ids, vectors, labels, table)
        place += _HEADER.size + len(body)


def _ends_in_zeros(data, start, end):
    """Whether zeros follow to the end, from `start` or from a block that begins before `end`.

    After a power failure a file can have its new length before its new blocks.
    """
    zeros = len(data.rstrip(b"\0"))
    return zeros <= start or start < -(-zeros // _BLOCK) * _BLOCK < min(end, len(data))


@contextlib.contextmanager
def damage_named(path, place):
    """Turn whatever a change raises into an error that names the journal and the place."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError) as error:
        raise _damaged(path, place) from error
    except (TypeError, ValueError) as error:
        raise _damaged(path, place) from error


def check_change(index, change):
    """Raise unless a change is one that `Index` wrote: it may come from a stranger."""
    kind, ids, vectors, labels, table = change
    if kind not in ("add", "replace", "remove") or not isinstance(ids, list):
        raise ValueError(f"A change is add, replace or remove. Received: {shown(kind)}")
    ids = as_names("ids", ids)
    check_distinct(ids)
    known = len(index._store.known(ids))
    if known != (0 if kind == "add" else len(ids)):
        raise ValueError(f"The ids of {kind!r} do not fit the index.")
    if kind != "remove":
        as_vectors("vectors", vectors, index.dim)
        as_names("labels", labels, len(vectors))
        if len(ids) != len(vectors) or table is None:
            raise ValueError("A change has an id and attributes for each vector.")
        index._store.check_attributes(table)


def _encode(change, ids, vectors, labels, table):
    attributes = None if table is None else rows_of(table, len(ids))
    text = json.dumps([change, ids, labels, attributes]).encode()
    numbers = b"" if vectors is None else np.asarray(vectors, "<f4").tobytes()
    sizes = struct.pack("<IQI", len(text), len(numbers), zlib.crc32(numbers, zlib.crc32(text)))
    return b"".join([sizes, struct.pack("<I", zlib.crc32(sizes)), text, numbers])


def _damaged(path, place):
    return ValueError(
        f"The journal {str(path)!r} is damaged at byte {place}. Restore the folder from a copy; "
        "nothing was changed."
    )
