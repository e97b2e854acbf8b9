"""An index on the disk: a folder whose manifest is replaced by one rename.

    manifest.json        what the index is, and the size and SHA-256 of each file below
    card.md              the index card
    data-<32 hex>/       ids and names as JSON, arrays as .npy; no pickle
    journal-<32 hex>     changes since, if the index is kept
    lock                 held by the process that keeps the folder

Data go into a new folder, are flushed, and only then does the manifest point to them: whoever
reads, and whenever the writer dies, there is one complete index.
"""

import contextlib
import datetime
import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
import weakref
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:
    fcntl = None

from keras_metric._validation import as_path, shown
from keras_metric.search.fingerprint import check_fingerprint
from keras_metric.search.results import OperatingPoint
from keras_metric.search.storage.card import card
from keras_metric.search.storage.contents import check_contents, read_array, read_names
from keras_metric.search.storage.journal import (
    Journal,
    check_change,
    damage_named,
    is_at,
    read_journal,
)
from keras_metric.search.storage.manifest import MANIFEST, describe, inside, read_manifest, written

_OURS = re.compile(r"(data|journal)-[0-9a-f]{32}|manifest\.json(\.new)?|card\.md(\.new)?|lock")


def save(index, path):
    """Write the index; if it is kept in this very folder, begin a new journal."""
    path = as_path("path", path)
    _write(index, path, journal=index._journal is not None and index._journal.folder == _real(path))


def keep(index, path):
    """Write the index and journal every change from now on."""
    if index.store != "faiss":
        raise ValueError(
            "A Milvus store keeps every change itself. Received: keep() with store='milvus'. "
            "`save` writes the manifest."
        )
    _write(index, as_path("path", path), journal=True)


def load(cls, path, encoder, uri, token):
    """Read an index."""
    path = as_path("path", path)
    for attempt in range(3):
        body = read_manifest(path)
        try:
            return _read(cls, path, body, encoder, uri, token)
        except FileNotFoundError as error:
            # Somebody may have saved since: then the manifest names other files by now.
            if attempt < 2 and read_manifest(path) != body:
                continue
            raise ValueError(
                f"The index {str(path)!r} lacks a file: {error.filename!r}. Restore the folder "
                "from a copy; nothing was changed."
            ) from error
    raise ValueError(f"The index {str(path)!r} changes faster than it can be read. Try again.")


_OPEN = weakref.WeakSet()


class _FolderLock:
    """The lock of a folder, held until `close` or until this process ends."""

    def __init__(self, path):
        self.file, self._process = open(path / "lock", "ab"), os.getpid()  # noqa: SIM115
        _OPEN.add(self)
        # Windows has no such call: there the user has to see that one process writes.
        if fcntl is not None:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.file.close()
                raise ValueError(
                    f"Another process, or another index of this one, keeps or saves {str(path)!r}. "
                    "Save elsewhere, or through that one."
                ) from None

    def close(self):
        # A child that was forked a moment ago may still hold a copy of the file, which would
        # extend the lock: unlock it for all copies. A child itself closes its copy only.
        if fcntl is not None and not self.file.closed and self._process == os.getpid():
            fcntl.flock(self.file, fcntl.LOCK_UN)
        self.file.close()


class _KeptJournal:
    """The journal of the folder that an index is kept in, and the folder's lock."""

    def __init__(self, folder, lock):
        self.folder, self.lock, self._journal = folder, lock, None
        self.process = os.getpid()
        # Whether the disk has the manifest that names the journal.
        self.settled = False
        _OPEN.add(self)

    def owns(self, path):
        """Whether this journal is that of the folder `path`, which is still the one it locked."""
        if self.folder != _real(path):
            return False
        self._check_process()
        return is_at(self.lock.file, path / "lock")

    def go_on_in(self, journal):
        """Write into another `Journal` from now on."""
        old, self._journal, self.settled = self._journal, journal, False
        if old is not None:
            old.close()

    def append(self, *change):
        self._check_process()
        if not self.settled:
            self.settle()
        self._journal.append(*change)

    def settle(self):
        _flush_folder(self.folder)
        self.settled = True

    def close(self):
        if self._journal is not None:
            self._journal.close()
        self.lock.close()

    def _check_process(self):
        if self.process != os.getpid():
            raise RuntimeError(
                f"The index in {str(self.folder)!r} is kept by the process {self.process}; only "
                f"that process may change it. Received: a change by its fork {os.getpid()}. "
                "Nothing was changed. Pass the change to that process, or `keep` this copy in "
                "another folder."
            )


def _leave_to_parent():
    """Close locks and journals in a forked child: its copy of a lock would outlive the parent."""
    for opened in list(_OPEN):
        opened.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _write(index, path, journal):
    _check_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    before = index._journal
    kept = before if journal and before is not None and before.owns(path) else None
    lock = fresh = None
    if kept is None:
        # Whoever keeps this folder would go on writing into a journal that nobody reads.
        lock = _FolderLock(path)
    token, saved = uuid.uuid4().hex, datetime.datetime.now(datetime.UTC)
    data, log = path / f"data-{token}", path / f"journal-{token}"
    try:
        # The lock is ours: what the manifest does not name, a kill left, and it needs the space.
        _sweep(path, _named(path))
        data.mkdir()
        body = describe(index)
        body["saved"] = saved.isoformat(timespec="seconds")
        body["data"] = data.name
        body["files"] = _write_data(index, data) if index.store == "faiss" else {}
        body["journal"] = log.name if journal else None
        if journal:
            with open(log, "xb") as file:
                os.fsync(file.fileno())
            fresh = Journal(_real(log))
        text = written(body)
        _flush_folder(data)
        _flush_folder(path)
        _replace(path / MANIFEST, text)
        # From here on the manifest names the new journal: whatever fails now, changes go there.
        if journal:
            if kept is None:
                kept = _KeptJournal(_real(path), lock)
                lock = None
            kept.go_on_in(fresh)
            index._journal, fresh = kept, None
            if before is not None and before is not kept:
                before.close()
            kept.settle()
        else:
            _flush_folder(path)
        try:
            _replace(path / "card.md", card(index, body["saved"]))
        except (OSError, ValueError) as error:
            warnings.warn(f"The index is saved, its card.md is not: {error}", stacklevel=4)
        _sweep(path, {body["data"], body["journal"]})
    except BaseException:
        if fresh is not None:
            fresh.close()
        named = _named(path)
        if named is not None and data.name not in named:
            shutil.rmtree(data, ignore_errors=True)
            with contextlib.suppress(OSError):
                log.unlink()
        elif fresh is not None and kept is not None:
            # The manifest names the new journal already: a change in the earlier one would be lost.
            kept.close()
        raise
    finally:
        if lock is not None:
            lock.close()


def _check_address(uri):
    """Raise where a file leads to a server, or would make a data base, that nobody has named."""
    if isinstance(uri, str) and "://" not in uri and Path(uri).exists():
        return
    raise ValueError(
        "A manifest alone leads to no server, and makes no file of Milvus. Received: the address "
        f"{shown(uri)} in the manifest. If that is where the data are, pass it as uri=."
    )


def _write_data(index, folder):
    description, arrays = index._store.to_arrays()
    files = {}
    for name, array in arrays.items():
        with open(folder / f"{name}.npy", "xb") as file:
            # np.save does not report why a write failed, such as a full disk.
            array = np.ascontiguousarray(array)
            header = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(file, header)
            file.write(array.data)
            file.flush()
            os.fsync(file.fileno())
    with open(folder / "names.json", "x", encoding="ascii") as file:
        file.write(json.dumps(description))
        file.flush()
        os.fsync(file.fileno())
    for file in sorted(folder.iterdir()):
        files[file.name] = {"bytes": file.stat().st_size, "sha256": _digest(file)}
    return files


def _read(cls, path, body, encoder, uri, token):
    if encoder is not None:
        check_fingerprint(encoder, body["fingerprint"], body["dim"])
    if token is not None and uri is None and body["address"].get("uri") is not None:
        raise ValueError(
            "A `token` goes to an address that you name, never to one that a file names. Received: "
            f"token without `uri`; the manifest says {shown(body['address']['uri'])}. If that is "
            "your server, pass it as uri=."
        )
    if body["store"] == "milvus" and uri is None:
        _check_address(body["address"].get("uri"))
    try:
        index = cls(
            body["dim"],
            metric=body["metric"],
            store=body["store"],
            kind=body["kind"],
            settings=body["settings"],
            uri=uri or body["address"].get("uri"),
            token=token,
            **{name: value for name, value in body["address"].items() if name != "uri"},
            description=body["description"],
        )
    except TypeError as error:
        raise ValueError(f"{MANIFEST} of the index {str(path)!r}: {error}") from error
    index.fingerprint = body["fingerprint"]
    for values in body["operating_points"]:
        point = OperatingPoint(*values)
        index.operating_points[point.rule] = point
    if body["store"] != "faiss":
        return index
    arrays, names = {}, None
    folder = inside(path / body["data"])
    for name, wanted in body["files"].items():
        file = inside(folder / name)
        if file.stat().st_size != wanted["bytes"] or _digest(file) != wanted["sha256"]:
            raise ValueError(
                f"The file {str(file)!r} is damaged: {file.stat().st_size} bytes of "
                f"{wanted['bytes']}, or another checksum than the manifest says. Restore the "
                "folder from a copy; nothing was changed."
            )
        if file.suffix == ".npy":
            arrays[file.stem] = read_array(file)
        else:
            names = read_names(file)
    check_contents(folder, names, arrays, body["dim"])
    index._store.from_arrays(names, arrays)
    if body["journal"] is not None:
        file = inside(path / body["journal"])
        for place, change in read_journal(file, body["dim"]):
            with damage_named(file, place):
                check_change(index, change)
                index._apply(*change)
    return index


def _check_folder(path):
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"An index is saved as a folder, and there is a file. Received: path={str(path)!r}"
        )
    strange = (
        [p.name for p in path.iterdir() if not _OURS.fullmatch(p.name)] if path.exists() else []
    )
    if strange and not (path / MANIFEST).exists():
        raise ValueError(
            f"An index needs a folder of its own. Received: path={str(path)!r}, which holds "
            f"{sorted(strange)[:3]}"
        )


def _named(path):
    """The data and the journal that the manifest names; None if it is there and cannot be read."""
    try:
        if not (path / MANIFEST).exists():
            return set()
        body = read_manifest(path)
    except (OSError, ValueError):
        return None
    return {body["data"], body["journal"]}


def _sweep(path, wanted):
    """Remove the data and journals that are not `wanted`: earlier ones, and those of a kill."""
    if wanted is None:
        return
    for entry in path.iterdir():
        if entry.name in wanted or not _OURS.fullmatch(entry.name):
            continue
        if entry.name.startswith("data-"):
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name.startswith("journal-"):
            with contextlib.suppress(OSError):
                entry.unlink()


def _replace(path, text):
    """Write a file so that a reader sees the old or the new one."""
    new = path.with_name(path.name + ".new")
    try:
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def _flush_folder(path):
    # Windows cannot open folders; there a rename is durable once it returns.
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _real(path):
    return Path(path).resolve()
