"""Random access to the records of TFRecord files."""

import array
import collections.abc
import glob
import json
import numbers
import os
import struct

import numpy as np

from keras_metric._validation import as_array, as_path
from keras_metric.data.records.tf_example import feature_values

# A record is stored as its length in 8 bytes, a checksum of 4 bytes, the data, and a checksum.
_HEADER_BYTES, _FOOTER_BYTES = 12, 4
_READ_BUFFER_BYTES = 2**20
# Operating systems limit a process to about a thousand open files.
_MAX_OPEN_FILES = 256


def tfrecord_items(paths, label="label", index=None):
    r"""Return `(items, labels)` of TFRecord files without reading the records into memory.

    `items` is a sequence that reads one record from disk when it is indexed, in any order and from
    any thread. Pass it to `BalancedBatches` with `load=ImageLoader(..., feature="image")`, or with
    your own function that calls `parse_example`. It works on every backend, and without TensorFlow.

    The first call reads the files once from end to end. It keeps the offset and size of each record
    (16 bytes a record) and its label in memory. With `index` it also stores them in a file, and the
    next call starts immediately.

    Args:
        paths: path of a file, a list of paths, or a pattern such as `"train-*.tfrecord"` or
            `"shards/*/train.tfrecord"`, whose files are sorted by name. The files must not be
            compressed: compressed files have no random access.
        label: name of the feature that holds the label, an integer, a float or a string; or a
            function from the bytes of a record to its label; or None for no labels.
        index: path of a file (`.npz`) that stores the offsets and labels, or None. The file is
            written again if the size or time of a TFRecord file or the name in `label` has
            changed, or if it is damaged. If `label` is a function, it is called again for each
            record. An existing file of another kind is kept and raises.

    Returns:
        `items`, a sequence of bytes; `labels`, a NumPy array `(records,)`, or None.

    Raises:
        ValueError: no file is found; a file is compressed, truncated or not a TFRecord file; a
            record has no such label; or labels have several types.

    Example:
    >>> import numpy as np
    >>> import pathlib, struct, tempfile
    >>> from keras_metric.data import parse_example, tfrecord_items
    >>> example = b"\n\x0f\n\r\n\x04kind\x12\x05\x1a\x03\n\x01\x07"
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "one.tfrecord"
    >>> record = struct.pack("<Q", len(example)) + b"sums" + example + b"sums"
    >>> count = path.write_bytes(3 * record)
    >>> items, labels = tfrecord_items(path, label="kind")
    >>> len(items), labels, parse_example(items[2])
    (3, array([7, 7, 7]), {'kind': array([7])})
    """
    if label is not None and not isinstance(label, str) and not callable(label):
        raise TypeError(
            "`label` must be the name of a feature, a function of a record's bytes, or None. "
            f"Received: label={label!r}"
        )
    files = _find_files(paths)
    # The labels of a function are not stored: two functions cannot be compared.
    name = None if callable(label) else label
    states = [(os.path.getsize(path), os.stat(path).st_mtime_ns) for path in files]
    # Compared with the one of an index file.
    stamp = json.dumps({"files": files, "states": states, "label": name})
    stored = None
    if index is not None:
        stored = _read_index(_checked_index(index, files), stamp, files, name)
    if stored:
        records, labels = TFRecords(files, *stored[:3]), stored[3]
        if callable(label):
            labels = [label(record) for record in records]
            kinds = {_kind(value): f"{value!r} in record {i}" for i, value in enumerate(labels)}
            labels = _join_labels([as_array("labels", labels)], kinds)
        return records, labels
    kinds = {}
    parts = [_scan(number, path, label, kinds) for number, path in enumerate(files)]
    of_file, starts, sizes = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if not len(starts):
        raise ValueError(f"The files must hold records. Received: {len(files)} empty files.")
    labels = None if label is None else _join_labels([part[3] for part in parts], kinds)
    if index is not None:
        _write_index(index, stamp, of_file, starts, sizes, None if callable(label) else labels)
    return TFRecords(files, of_file, starts, sizes), labels


class TFRecords(collections.abc.Sequence):
    """Sequence of the records of several files: `records[i]` reads one, as bytes."""

    def __init__(self, files, of_file, starts, sizes):
        self._files, self._of_file, self._starts, self._sizes = files, of_file, starts, sizes
        self._open = {}

    def __len__(self):
        return len(self._starts)

    def __getitem__(self, number):
        if not isinstance(number, (int, np.integer)):
            raise TypeError(f"Records are read one by one. Received: records[{number!r}]")
        if not -len(self) <= number < len(self):
            raise IndexError(f"There are {len(self)} records. Received: records[{number}]")
        of_file, start, size = self._of_file[number], self._starts[number], self._sizes[number]
        record = self._read(int(of_file), int(start), int(size))
        if len(record) != size:
            raise ValueError(
                f"Record {number} must be {size} bytes. Received {len(record)}: "
                f"{self._files[of_file]!r} has changed since it was indexed."
            )
        return record

    def _read(self, file, start, size):
        if not hasattr(os, "pread") or len(self._files) > _MAX_OPEN_FILES:
            with open(self._files[file], "rb") as stream:
                stream.seek(start)
                return stream.read(size)
        handle = self._open.get(file)
        if handle is None:
            # Two threads may open the same file; the second one closes its handle again.
            new = open(self._files[file], "rb")  # noqa: SIM115
            handle = self._open.setdefault(file, new)
            if handle is not new:
                new.close()
        # pread does not use the position of the file, which all threads share.
        return os.pread(handle.fileno(), size, start)

    def __getstate__(self):
        return {**vars(self), "_open": {}}

    def __del__(self):
        for handle in vars(self).get("_open", {}).values():
            handle.close()


def _find_files(paths):
    if isinstance(paths, (str, os.PathLike)):
        paths = str(as_path("paths", paths))
        files = [paths] if os.path.isfile(paths) else sorted(glob.glob(paths, recursive=True))
        files = list(filter(os.path.isfile, files))
    elif isinstance(paths, bytes) or not isinstance(paths, collections.abc.Iterable):
        kind = type(paths).__name__
        raise TypeError(f"`paths` must be a path, a list of paths, or a pattern. Received: {kind}")
    else:
        files = [str(as_path("paths", path)) for path in paths]
    missing = [path for path in files if not os.path.isfile(path)]
    if not files or missing:
        raise ValueError(
            "`paths` must name TFRecord files: a path, a list of paths, or a pattern. Received: "
            f"{'no file ' + repr(missing[0]) if missing else 'paths=' + repr(paths)}"
        )
    return files


def _scan(number, path, label, kinds):
    """Return the file number, start, size and label of each record of a file.

    Adds to `kinds` a text on the first label of each kind.
    """
    # A list of Python integers would take five times the memory.
    starts, sizes, labels = array.array("q"), array.array("i"), []
    end = os.path.getsize(path)
    position = 0
    with open(path, "rb", buffering=_READ_BUFFER_BYTES) as stream:
        while position < end:
            header = stream.read(_HEADER_BYTES)
            size = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER_BYTES else end
            if position + _HEADER_BYTES + size + _FOOTER_BYTES > end:
                raise _not_tfrecord(path, position, header)
            if size >= 2**31:
                raise ValueError(
                    "A record must be below 2 GiB, the limit of protocol buffers. Received: "
                    f"{size:,} bytes at byte {position} of {path!r}"
                )
            starts.append(position + _HEADER_BYTES)
            sizes.append(size)
            if label is None:
                stream.seek(size + _FOOTER_BYTES, os.SEEK_CUR)
            else:
                record = stream.read(size)
                stream.read(_FOOTER_BYTES)
                value = _read_label(record, label, path, len(labels))
                if _kind(value) not in kinds:
                    kinds[_kind(value)] = f"{value!r} in record {len(labels)} of {path!r}"
                labels.append(value)
            position += _HEADER_BYTES + size + _FOOTER_BYTES
    of_file = np.full(len(starts), number, "int32")
    labels = as_array("labels", labels)
    return of_file, np.array(starts, "int64"), np.array(sizes, "int32"), labels


def _read_label(record, label, path, number):
    if callable(label):
        return label(record)
    try:
        values = feature_values(record, label)
    except ValueError as error:
        raise ValueError(f"Record {number} of {path!r}: {error}") from error
    if len(values) != 1:
        what = f"hold one label. Received: {len(values)} values"
    elif not isinstance(values[0], bytes):
        return values[0].item()
    else:
        try:
            return values[0].decode()
        except UnicodeDecodeError:
            what = f"hold a string in UTF-8. Received: {values[0][:80]!r}"
    raise ValueError(
        f"The feature {label!r} must {what} in record {number} of {path!r}. Pass a function of the "
        "record's bytes as `label`."
    )


def _kind(label):
    for name, types in (("string", str), ("integer", numbers.Integral), ("float", numbers.Real)):
        if isinstance(label, types):
            return name
    return type(label).__name__


def _join_labels(parts, kinds):
    """Return the labels of all files as one array; raise where NumPy would convert some of them."""
    if len(kinds) > 1 and {"string", "integer"} & set(kinds):
        one, other, *_ = kinds.values()
        raise ValueError(
            f"The labels must be of one type. Received: {one} and {other}. Pass a function of the "
            "record's bytes as `label` that converts them."
        )
    labels = np.concatenate([part for part in parts if len(part)])
    if labels.ndim != 1:
        shape = labels.shape
        raise ValueError(f"`label` must return one label for each record. Received: {shape}")
    return labels


def _not_tfrecord(path, position, header):
    if position:
        what = f"a record at byte {position} that ends after the end of the file. Is it truncated?"
    elif header[:2] == b"\x1f\x8b":
        what = "a file compressed by gzip. Decompress it with gunzip."
    else:
        what = f"a file that begins with {header[:8]!r}."
    return ValueError(f"{path!r} must be an uncompressed TFRecord file. Received: {what}")


def _checked_index(index, files):
    """Return the path of the index; raise if writing it would fail or replace another file."""
    path = as_path("index", index)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"`index` must be a file in a folder that exists. Received: {str(path)!r}")
    if path.exists() and (any(path.samefile(file) for file in files) or _is_other_file(path)):
        raise ValueError(
            "`index` must be a new file, or one that tfrecord_items wrote. Received: "
            f"index={str(path)!r}, a file of another kind. Remove it, or choose another name."
        )
    return path


def _is_other_file(path):
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return "stamp" not in stored
    except Exception:  # np.load raises many types for a damaged index, which is written again.
        return path.suffix != ".npz" and path.stat().st_size > 0


def _read_index(index, stamp, files, label):
    """Return the arrays of an index file; None if it is missing, damaged, or of other files."""
    try:
        with open(index, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["stamp"]) != stamp:
                return None
            of_file, starts, sizes = (stored[name] for name in ("of_file", "starts", "sizes"))
            labels = None if label is None else stored["labels"]
        ends = np.array([os.path.getsize(path) for path in files])[of_file] - _FOOTER_BYTES
        valid = (
            of_file.ndim == 1
            and of_file.shape == starts.shape == sizes.shape
            and all(part.dtype.kind == "i" and part.min() >= 0 for part in (of_file, starts, sizes))
            and starts.min() >= _HEADER_BYTES
            and (starts + sizes <= ends).all()
            and (labels is None or labels.shape == starts.shape)
        )
    except Exception:  # np.load raises many types for a damaged file.
        return None
    return (of_file, starts, sizes, labels) if valid else None


def _write_index(index, stamp, of_file, starts, sizes, labels):
    arrays = {"of_file": of_file, "starts": starts, "sizes": sizes, "stamp": np.array(stamp)}
    if labels is not None:
        arrays["labels"] = labels
    # A process that ends here leaves the earlier index as it was.
    part = f"{index}.{os.getpid()}.part"
    with open(part, "wb") as file:
        np.savez(file, **arrays)
    os.replace(part, index)
