"""TFRecord files whose records can be read in any order."""

import array
import collections.abc
import glob
import json
import numbers
import os
import struct

import numpy as np

from keras_metric._validation import as_array, as_path
from keras_metric.data.records.example import feature

# Of a record: its length as 8 bytes, a checksum of those, the bytes, a checksum of these.
_HEAD, _FOOT = 12, 4
_BUFFER = 2**20
# Files that stay open; systems allow a process about a thousand.
_OPEN = 256


def tfrecord_items(paths, label="label", index=None):
    r"""Return `(items, labels)` of TFRecord files, without reading them into memory.

    Where each record begins is noted, 16 bytes a record, and its label; nothing else stays in
    memory. `items` is a sequence that reads a record when it is asked for it, in any order and from
    any thread: give it to `BalancedBatches` with `load=ImageLoader(..., feature="image")`, or with
    a function of your own that begins with `parse_example`. It works on every backend, and without
    TensorFlow.

    The files are read once from end to end for that. With `index` the outcome is kept in a file,
    and the next run begins at once.

    Args:
        paths: path of a file, a list of paths, or a pattern such as `"train-*.tfrecord"` or
            `"shards/*/train.tfrecord"`, whose files are taken in the order of their names. Not
            compressed: no record of a compressed file can be reached without all before it.
        label: name of the feature that holds the label, an integer, a float or a string; or a
            function from the bytes of a record to its label; or None for no labels.
        index: path of a file (`.npz`) that keeps the outcome, or None. It is made anew where a
            file has another size or time than when it was written, or `label` another name, or
            it is damaged. A function is called again for each record. An existing file of
            another kind raises and is kept.

    Returns:
        `items`, a sequence of bytes; `labels`, a NumPy array `(records,)`, or None.

    Raises:
        ValueError: no file is there, a file is compressed, cut off or no TFRecord file, a
            record has no such label, or labels are of several types.

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
    files = _found(paths)
    # Functions have no name to tell them apart by: of theirs, the places alone are kept.
    named = None if callable(label) else label
    stamp = _stamp(files, named)
    kept = None if index is None else _kept(_checked_index(index, files), stamp, files, named)
    if kept is not None:
        records, labels = TFRecords(files, *kept[:3]), kept[3]
        if callable(label):
            labels = _as_labels([label(record) for record in records], paths)
        return records, labels
    parts = [_scanned(number, path, label) for number, path in enumerate(files)]
    of_file, starts, sizes = (np.concatenate([part[i] for part in parts]) for i in range(3))
    labels = None
    if not len(starts):
        raise ValueError(f"The files must hold records. Received: {len(files)} empty files.")
    if label is not None:
        labels = _joined([part[3] for part in parts], files)
    if index is not None:
        _keep(index, stamp, of_file, starts, sizes, None if callable(label) else labels)
    return TFRecords(files, of_file, starts, sizes), labels


class TFRecords(collections.abc.Sequence):
    """The records of several files: `records[i]` reads one, as bytes."""

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
        file, start, size = (
            int(part[number]) for part in (self._of_file, self._starts, self._sizes)
        )
        record = self._read(file, start, size)
        if len(record) != size:
            raise ValueError(
                f"Record {number} must be {size} bytes. Received {len(record)}: "
                f"{self._files[file]!r} has changed since it was read."
            )
        return record

    def _read(self, file, start, size):
        if not hasattr(os, "pread") or len(self._files) > _OPEN:
            with open(self._files[file], "rb") as stream:
                stream.seek(start)
                return stream.read(size)
        handle = self._open.get(file)
        if handle is None:
            # Two threads may both open it; the one that comes second closes again.
            mine = open(self._files[file], "rb")  # noqa: SIM115
            handle = self._open.setdefault(file, mine)
            if handle is not mine:
                mine.close()
        # From a place of its own, so that threads do not move each other's.
        return os.pread(handle.fileno(), size, start)

    def __getstate__(self):
        return {**vars(self), "_open": {}}

    def __del__(self):
        for handle in vars(self).get("_open", {}).values():
            handle.close()


def _found(paths):
    if isinstance(paths, (str, os.PathLike)):
        paths = str(as_path("paths", paths))
        if os.path.isfile(paths):
            return [paths]
        files = sorted(filter(os.path.isfile, glob.glob(paths, recursive=True)))
    elif isinstance(paths, bytes) or not isinstance(paths, collections.abc.Iterable):
        raise TypeError(
            "`paths` must be a path, a list of paths, or a pattern. Received: paths of type "
            f"{type(paths).__name__}"
        )
    else:
        files = [str(as_path("paths", path)) for path in paths]
    missing = [path for path in files if not os.path.isfile(path)]
    if not files or missing:
        raise ValueError(
            "`paths` must name TFRecord files: a path, a list of paths, or a pattern. Received: "
            f"{'no file ' + repr(missing[0]) if missing else 'paths=' + repr(paths)}"
        )
    return files


def _scanned(number, path, label):
    """Number of the file, start, size and label of each record of a file."""
    # Lists of Python's integers would take five times as much.
    starts, sizes, labels = array.array("q"), array.array("i"), []
    end = os.path.getsize(path)
    place = 0
    with open(path, "rb", buffering=_BUFFER) as stream:
        while place < end:
            head = stream.read(_HEAD)
            size = struct.unpack("<Q", head[:8])[0] if len(head) == _HEAD else end
            if place + _HEAD + size + _FOOT > end:
                raise _cut(path, place, head)
            if size >= 2**31:
                raise ValueError(
                    "A record must be below 2 GiB, the limit of protocol buffers. Received: "
                    f"{size:,} bytes at byte {place} of {path!r}"
                )
            starts.append(place + _HEAD)
            sizes.append(size)
            if label is None:
                stream.seek(size + _FOOT, os.SEEK_CUR)
            else:
                record = stream.read(size)
                stream.read(_FOOT)
                labels.append(_label(record, label, path, len(labels)))
            place += _HEAD + size + _FOOT
    of_file = np.full(len(starts), number, "int32")
    labels = _as_labels(labels, path)
    return of_file, np.array(starts, "int64"), np.array(sizes, "int32"), labels


def _label(record, label, path, number):
    if callable(label):
        return label(record)
    try:
        values = feature(record, label)
    except ValueError as error:
        raise ValueError(f"Record {number} of {path!r}: {error}") from error
    if len(values) != 1:
        raise ValueError(
            f"The feature {label!r} must hold one label. Received: {len(values)} values in record "
            f"{number} of {path!r}. Pass a function of the record's bytes as `label`."
        )
    value = values[0]
    if not isinstance(value, bytes):
        return value.item()
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(
            f"The feature {label!r} must hold a string in UTF-8. Received: {value[:80]!r} in "
            f"record {number} of {path!r}. Pass a function of the record's bytes as `label`."
        ) from None


def _as_labels(labels, path):
    """Return the labels of records as an array; raise where NumPy would convert some of them."""
    kinds = {kind: _kind(kind) for kind in map(type, labels)}
    if len(set(kinds.values())) > 1 and {"string", "integer"} & set(kinds.values()):
        wanted = kinds[type(labels[0])]
        odd = next(i for i, one in enumerate(labels) if kinds[type(one)] != wanted)
        raise ValueError(
            f"The labels must be of one type. Received: {labels[0]!r} in record 0 and "
            f"{labels[odd]!r} in record {odd} of {path!r}. Pass a function of the record's bytes "
            "as `label` that converts them."
        )
    labels = as_array("labels", labels)
    if labels.ndim != 1:
        raise ValueError(
            "`label` must return one label for each record. Received: labels of shape "
            f"{labels.shape} for the records of {path!r}"
        )
    return labels


def _kind(kind):
    for name, types in (("string", str), ("integer", numbers.Integral), ("float", numbers.Real)):
        if issubclass(kind, types):
            return name
    return kind.__name__


def _joined(parts, files):
    """Return the labels of all files as one array."""
    parts = {file: part for file, part in zip(files, parts) if len(part)}
    kinds = {part.dtype.kind: file for file, part in parts.items()}
    if len(kinds) > 1:
        one, other, *_ = kinds.values()
        raise ValueError(
            "The labels must be of one type in all files. Received: labels of dtype "
            f"{parts[one].dtype} in {one!r} and {parts[other].dtype} in {other!r}. Pass a function "
            "of the record's bytes as `label` that converts them."
        )
    return np.concatenate(list(parts.values()))


def _cut(path, place, head):
    if place:
        what = f"a record at byte {place} that goes beyond the end. Was the file cut off?"
    elif head[:2] == b"\x1f\x8b":
        what = "a file compressed by gzip. Unpack it: gunzip."
    else:
        what = f"one that begins with {head[:8]!r}."
    return ValueError(f"{path!r} must be an uncompressed TFRecord file. Received: {what}")


def _stamp(files, label):
    """What an index must agree with."""
    states = [(os.path.getsize(path), os.stat(path).st_mtime_ns) for path in files]
    return json.dumps({"files": files, "states": states, "label": label})


def _checked_index(index, files):
    """Return the path of the index; raise if writing it would fail or replace another file."""
    path = as_path("index", index)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            "`index` must be the path of a file, in a folder that exists. Received: "
            f"index={str(path)!r}"
        )
    if path.exists() and (any(path.samefile(file) for file in files) or _is_other(path)):
        raise ValueError(
            "`index` must be a new file, or one that tfrecord_items wrote. Received: "
            f"index={str(path)!r}, a file of another kind. Remove it, or choose another name."
        )
    return path


def _is_other(path):
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
            return "stamp" not in kept
    except Exception:  # A damaged index fails in many ways; it is written again.
        return path.suffix != ".npz" and path.stat().st_size > 0


def _kept(index, stamp, files, label):
    """Content of the index file; None if it is missing, damaged, or of other files."""
    try:
        with open(index, "rb") as file, np.load(file, allow_pickle=False) as kept:
            if str(kept["stamp"]) != stamp:
                return None
            arrays = [kept[name] for name in ("of_file", "starts", "sizes")]
            labels = None if label is None else kept["labels"]
        of_file, starts, sizes = arrays
        ends = np.array([os.path.getsize(path) for path in files])[of_file] - _FOOT
        sound = of_file.ndim == 1 and of_file.min() >= 0 and sizes.min() >= 0
        sound = sound and of_file.shape == starts.shape == sizes.shape
        sound = sound and starts.min() >= _HEAD and (starts + sizes <= ends).all()
        sound = sound and all(array.dtype.kind == "i" for array in arrays)
        sound = sound and (labels is None or labels.shape == starts.shape)
    # A ZIP cut off, another kind of file, an array of objects: each fails in its own way.
    except Exception:
        return None
    return [*arrays, labels] if sound else None


def _keep(index, stamp, of_file, starts, sizes, labels):
    arrays = {"of_file": of_file, "starts": starts, "sizes": sizes, "stamp": np.array(stamp)}
    if labels is not None:
        arrays["labels"] = labels
    # Whole or not at all, whatever ends this process.
    beside = f"{index}.{os.getpid()}.part"
    with open(beside, "wb") as file:
        np.savez(file, **arrays)
    os.replace(beside, index)
