"""The journal: a file of the changes since the last save, each flushed before the call returns."""

import contextlib
import json
import os
import struct
import zlib

import numpy as np

from keras_metric._validation import shown
from keras_metric.search.index_inputs import as_names, as_table, as_vectors, check_distinct, rows_of
from keras_metric.search.storage.manifest import damaged

# Length of the JSON part, length of the vectors, checksum of both, checksum of this header.
_HEADER = struct.Struct("<IQII")
# Bytes of the smallest block that a disk writes.
_BLOCK = 512
# What reading damaged data can raise.
_OF_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Journal:
    """A file of changes, each flushed to the disk when it is appended."""

    def __init__(self, path):
        self._path = path
        # Unbuffered, so that a kill of this process loses no written data.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._broken = False

    def append(self, change, ids, vectors, labels, table):
        """Write one change completely, or raise and leave the file as it was."""
        if self._file.closed:
            raise ValueError("This index was closed. Load it again from its folder.")
        if self._broken:
            raise OSError("The journal could not be repaired after an error. Save the index again.")
        end = self._file.seek(0, os.SEEK_END)
        try:
            data = memoryview(encode_change(change, ids, vectors, labels, table))
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
    """Whether `path` currently names this open file."""
    try:
        return not file.closed and os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def read_journal(path, dim):
    """Yield the position of each change and `(change, ids, vectors, labels, table)`.

    An incomplete last change is left out, and so is one whose last blocks a power failure left as
    zeros: its call has not returned.
    """
    with open(path, "rb") as file:
        data = file.read()
    start = 0
    while len(data) - start >= _HEADER.size:
        header = data[start : start + _HEADER.size]
        text_size, vector_size, checksum, header_checksum = _HEADER.unpack(header)
        end = start + _HEADER.size
        intact = zlib.crc32(header[:-4]) == header_checksum
        if intact:
            body = data[end : end + text_size + vector_size]
            end += text_size + vector_size
            if end > len(data):
                return
            intact = zlib.crc32(body) == checksum
        if not intact:
            if _ends_in_zeros(data, start, end):
                return
            raise _damaged(path, start)
        with reports_damage(path, start):
            change, ids, labels, attributes = json.loads(body[:text_size])
            vectors = np.frombuffer(body[text_size:], "<f4").reshape(-1, dim)
            table = None if attributes is None else as_table(attributes, len(ids))
        yield start, (change, ids, vectors, labels, table)
        start = end


@contextlib.contextmanager
def reports_damage(path, position):
    """Turn any exception of a damaged change into one that names the journal and the position."""
    try:
        yield
    except _OF_DAMAGE as error:
        raise _damaged(path, position) from error


def check_change(index, change):
    """Raise unless `Index` could have written a change: the journal may be untrusted input."""
    kind, ids, vectors, labels, table = change
    if kind not in ("add", "replace", "remove") or not isinstance(ids, list):
        raise ValueError(f"A change is add, replace or remove. Received: {shown(kind)}")
    check_distinct(as_names("ids", ids))
    if len(index._store.existing(ids)) != (0 if kind == "add" else len(ids)):
        raise ValueError(f"The ids of {kind!r} do not fit the index.")
    if kind != "remove":
        as_vectors("vectors", vectors, index.dim)
        as_names("labels", labels, len(vectors))
        if len(ids) != len(vectors) or table is None:
            raise ValueError("A change has an id and attributes for each vector.")
        index._store.check_attributes(table)


def encode_change(change, ids, vectors, labels, table):
    """The bytes of one change."""
    attributes = None if table is None else rows_of(table, len(ids))
    text = json.dumps([change, ids, labels, attributes]).encode()
    numbers = b"" if vectors is None else np.asarray(vectors, "<f4").tobytes()
    sizes = struct.pack("<IQI", len(text), len(numbers), zlib.crc32(numbers, zlib.crc32(text)))
    return b"".join([sizes, struct.pack("<I", zlib.crc32(sizes)), text, numbers])


def _ends_in_zeros(data, start, end):
    """Whether zeros follow to the end, from `start` or from a block that begins before `end`.

    After a power failure a file can have its new length before its new blocks.
    """
    zeros = len(data.rstrip(b"\0"))
    return zeros <= start or start < -(-zeros // _BLOCK) * _BLOCK < end


def _damaged(path, position):
    return damaged(f"The journal {str(path)!r} is damaged at byte {position}")
