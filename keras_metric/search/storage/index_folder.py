"""Save, keep and load an index: a folder whose manifest is replaced by one rename.

    manifest.json        the settings of the index, and the size and SHA-256 of each data file
    card.md              the index card
    data-<32 hex>/       ids and names as JSON, arrays as .npy; no pickle
    journal-<32 hex>     the changes since the save, if the index is kept
    lock                 held by the process that keeps the folder

Data are written to a new folder and flushed before the manifest names them. So the folder always
contains one complete index, for concurrent readers and after a kill of the writer.
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
from pathlib import Path

import numpy as np

from keras_metric._validation import as_path, shown
from keras_metric.search.fingerprint import check_fingerprint
from keras_metric.search.results import OperatingPoint
from keras_metric.search.storage.file_checks import check_data, read_array, read_names
from keras_metric.search.storage.index_card import index_card
from keras_metric.search.storage.journal import Journal, check_change, read_journal, reports_damage
from keras_metric.search.storage.kept_folder import KeptFolder, flush_folder
from keras_metric.search.storage.manifest import (
    MANIFEST,
    damaged,
    describe,
    manifest_text,
    not_a_link,
    read_manifest,
)

_OURS = re.compile(r"(data|journal)-[0-9a-f]{32}|manifest\.json(\.new)?|card\.md(\.new)?|lock")


def save(index, path):
    """Write the index; if it is kept in this folder, begin a new journal."""
    path = as_path("path", path)
    _write(index, path, journal=index._kept is not None and index._kept.path == path.resolve())


def keep(index, path):
    """Write the index, and append every later change to a journal."""
    if index.store != "faiss":
        raise ValueError("Milvus saves every change itself. Received: keep(). Call `save` instead.")
    _write(index, as_path("path", path), journal=True)


def load(cls, path, encoder, uri, token):
    """Read an index."""
    path = as_path("path", path)
    for attempt in range(3):
        body = read_manifest(path)
        try:
            return _read(cls, path, body, encoder, uri, token)
        except FileNotFoundError as error:
            # A concurrent save may have replaced the manifest and removed the files it named.
            if attempt < 2 and read_manifest(path) != body:
                continue
            raise damaged(f"The index {str(path)!r} lacks a file: {error.filename!r}") from error
    raise ValueError(f"The index {str(path)!r} changes faster than it can be read. Try again.")


def _write(index, path, journal):
    _check_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    before, fresh = index._kept, None
    is_own = journal and before is not None and before.owns(path)
    # Another index that keeps this folder would append to a journal that is never read.
    folder = before if is_own else KeptFolder(path)
    suffix, saved = uuid.uuid4().hex, datetime.datetime.now(datetime.UTC)
    data, log = path / f"data-{suffix}", path / f"journal-{suffix}"
    try:
        # Under the lock, files that the manifest does not name were left by a kill: free the space.
        _sweep(path, _named_files(path))
        data.mkdir()
        body = describe(index)
        body["saved"] = saved.isoformat(timespec="seconds")
        body["data"] = data.name
        body["files"] = _write_data(index, data) if index.store == "faiss" else {}
        body["journal"] = log.name if journal else None
        if journal:
            with open(log, "xb") as file:
                os.fsync(file.fileno())
            fresh = Journal(log.resolve())
        flush_folder(data)
        flush_folder(path)
        _replace(path / MANIFEST, manifest_text(body))
        # The manifest now names the new journal: changes go there even if a later step fails.
        if journal:
            folder.switch_to(fresh)
            index._kept, fresh = folder, None
            if before is not None and before is not folder:
                before.close()
            folder.flush()
        else:
            flush_folder(path)
        try:
            _replace(path / "card.md", index_card(index, body["saved"]))
        except (OSError, ValueError) as error:
            warnings.warn(f"The index is saved, its card.md is not: {error}", stacklevel=4)
        _sweep(path, {body["data"], body["journal"]})
    except BaseException:
        if fresh is not None:
            fresh.close()
        named = _named_files(path)
        if named is not None and data.name not in named:
            shutil.rmtree(data, ignore_errors=True)
            with contextlib.suppress(OSError):
                log.unlink()
        elif fresh is not None:
            # The manifest names the new journal: a change in the earlier one would be lost.
            folder.close()
        raise
    finally:
        if folder is not index._kept:
            folder.close()


def _write_data(index, folder):
    description, arrays = index._store.to_arrays()
    for name, array in arrays.items():
        with open(folder / f"{name}.npy", "xb") as file:
            # np.save does not report why a write failed, such as a full disk.
            array = np.ascontiguousarray(array)
            header = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(file, header)
            file.write(array.data)
            file.flush()
            os.fsync(file.fileno())
    _write_text(folder / "names.json", json.dumps(description), "x")
    return {
        file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)}
        for file in sorted(folder.iterdir())
    }


def _read(cls, path, body, encoder, uri, token):
    if encoder is not None:
        check_fingerprint(encoder, body["fingerprint"])
    saved_uri = body["address"].get("uri")
    if token is not None and uri is None and saved_uri is not None:
        raise ValueError(
            "A `token` is sent only to an address that the caller passes. Received: token without "
            f"`uri`; the manifest has uri={shown(saved_uri)}. If that is your server, pass it as "
            "uri=."
        )
    is_file = saved_uri is not None and "://" not in saved_uri and Path(saved_uri).exists()
    if body["store"] == "milvus" and uri is None and not is_file:
        raise ValueError(
            "A manifest does not connect to a server or create a Milvus file. Received: the "
            f"address {shown(saved_uri)} in the manifest. If the data are there, pass it as uri=."
        )
    try:
        index = cls(
            body["dim"],
            metric=body["metric"],
            store=body["store"],
            kind=body["kind"],
            settings=body["settings"],
            token=token,
            **{**body["address"], "uri": uri or saved_uri},
            description=body["description"],
        )
    except TypeError as error:
        raise ValueError(f"{MANIFEST} of the index {str(path)!r}: {error}") from error
    index.fingerprint = body["fingerprint"]
    for values in body["operating_points"]:
        point = OperatingPoint(*values)
        index.operating_points[point.rule] = point
    if body["store"] == "faiss":
        _read_data(index, path, body)
    return index


def _read_data(index, path, body):
    arrays, names = {}, None
    folder = not_a_link(path / body["data"])
    for name, entry in body["files"].items():
        file = not_a_link(folder / name)
        size = file.stat().st_size
        if size != entry["bytes"] or _digest(file) != entry["sha256"]:
            fault = f"{size} bytes of {entry['bytes']}, or another checksum than in the manifest"
            raise damaged(f"The file {str(file)!r} is damaged: {fault}")
        if file.suffix == ".npy":
            arrays[file.stem] = read_array(file)
        else:
            names = read_names(file)
    check_data(folder, names, arrays, body["dim"])
    index._store.from_arrays(names, arrays)
    if body["journal"] is not None:
        file = not_a_link(path / body["journal"])
        for position, change in read_journal(file, body["dim"]):
            with reports_damage(file, position):
                check_change(index, change)
                index._apply(*change)


def _check_folder(path):
    if path.exists() and not path.is_dir():
        raise ValueError(f"An index is a folder, not a file. Received: path={str(path)!r}")
    if not path.exists() or (path / MANIFEST).exists():
        return
    others = sorted(entry.name for entry in path.iterdir() if not _OURS.fullmatch(entry.name))
    if others:
        found = f"{str(path)!r} with {others[:3]}"
        raise ValueError(f"An index needs a folder of its own. Received: {found}")


def _named_files(path):
    """The data and the journal that the manifest names; None if the manifest is unreadable."""
    try:
        if not (path / MANIFEST).exists():
            return set()
        body = read_manifest(path)
    except (OSError, ValueError):
        return None
    return {body["data"], body["journal"]}


def _sweep(path, named):
    """Remove the data and journals that are not `named`: earlier ones, and those left by a kill."""
    if named is None:
        return
    for entry in path.iterdir():
        if entry.name in named or not _OURS.fullmatch(entry.name):
            continue
        if entry.name.startswith("data-"):
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name.startswith("journal-"):
            with contextlib.suppress(OSError):
                entry.unlink()


def _replace(path, text):
    """Replace a file atomically: a reader gets the old or the new one."""
    new = path.with_name(path.name + ".new")
    try:
        _write_text(new, text, "w")
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def _write_text(path, text, mode):
    with open(path, mode, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
