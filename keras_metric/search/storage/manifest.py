"""The manifest of a saved index: what it contains, and checks of it as untrusted input."""

import hashlib
import json
import re

from keras_metric._validation import shown
from keras_metric.search.results import OperatingPoint

FORMAT = "keras_metric index"
VERSION = 2
MANIFEST = "manifest.json"
# Names of settings in manifests of version 1, written by keras_metric 0.1.0.
_RENAMED_SETTINGS = {
    "links": "M",
    "build_effort": "ef_construction",
    "search_effort": "ef_search",
    "lists": "nlist",
    "probes": "nprobe",
    "codes": "m",
    "bits": "nbits",
}
# The names of files that a manifest may contain. They cannot lead out of the folder.
_DATA, _JOURNAL = re.compile(r"data-[0-9a-f]{32}"), re.compile(r"journal-[0-9a-f]{32}")
_FILE = re.compile(r"names\.json|[a-z0-9-]+\.npy")
# The entries of a manifest and their types.
_BODY = {
    "version": int,
    "dim": int,
    "metric": str,
    "store": str,
    "kind": str,
    "settings": dict,
    "description": str,
    "fingerprint": (str, type(None)),
    "operating_points": list,
    "address": dict,
    "data": str,
    "files": dict,
    "journal": (str, type(None)),
}


def describe(index):
    """The entries of a manifest that describe an index; the names of its files are not included."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "dim": index.dim,
        "metric": index.metric,
        "store": index.store,
        "kind": index.kind,
        "settings": index.settings,
        "description": index.description,
        "fingerprint": index.fingerprint,
        "operating_points": [list(point) for point in index.operating_points.values()],
        "items": len(index._store),
        "address": index._store.address(),
    }


def manifest_text(body):
    """The text of a manifest with the given entries."""
    return json.dumps({"checksum": _checksum(body), "body": body}, indent=1)


def read_manifest(path):
    """Return the checked entries of the manifest in the folder `path`, with current names."""
    try:
        text = not_a_link(path / MANIFEST).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"There is no index at {str(path)!r}: {MANIFEST} is missing. Received: path={path!r}"
        ) from None
    except UnicodeDecodeError:
        text = ""
    try:
        manifest = json.loads(text)
        body = manifest["body"]
        intact = manifest["checksum"] == _checksum(body) and body["format"] == FORMAT
        newer = type(body["version"]) is int and body["version"] > VERSION
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = newer = False
    if newer:
        raise ValueError(
            f"The index {str(path)!r} has version {shown(body['version'])} of the format; this "
            f"keras_metric reads up to {VERSION}. Install a newer one."
        )
    if not intact:
        raise damaged(f"{MANIFEST} of the index {str(path)!r} is damaged or was edited")
    _check_body(path, body)
    if body["version"] == 1:
        settings = body["settings"].items()
        body["settings"] = {_RENAMED_SETTINGS.get(name, name): value for name, value in settings}
    return body


def damaged(fault):
    """The error for a fault in the folder of an index."""
    return ValueError(f"{fault}. Restore the folder from a copy; nothing was changed.")


def not_a_link(path):
    """Return a path inside the folder; raise for a link, which could lead out of it."""
    if path.is_symlink():
        raise ValueError(
            f"The index has a link at {str(path)!r}, which leads out of its folder. If you trust "
            "the target, copy it there."
        )
    return path


def _check_body(path, body):
    """Raise unless every entry of a manifest is one that `save` writes."""
    for name, kind in _BODY.items():
        value = body.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _invalid(path, name, value)
    if not _DATA.fullmatch(body["data"]):
        raise _invalid(path, "data", body["data"])
    if body["journal"] is not None and not _JOURNAL.fullmatch(body["journal"]):
        raise _invalid(path, "journal", body["journal"])
    for name, entry in body["files"].items():
        if not _FILE.fullmatch(name) or not isinstance(entry, dict):
            raise _invalid(path, "files", name)
        if not {"bytes", "sha256"} <= set(entry):
            raise _invalid(path, f"files[{name!r}]", entry)
    if body["store"] == "faiss" and "names.json" not in body["files"]:
        raise _invalid(path, "files", sorted(body["files"]))
    for point in body["operating_points"]:
        valid = isinstance(point, list) and len(point) == len(OperatingPoint._fields)
        if not valid or not isinstance(point[0], str) or not all(map(_is_number, point[1:])):
            raise _invalid(path, "operating_points", point)
    address = body["address"]
    texts = all(isinstance(value, str) for value in address.values())
    if set(address) - {"uri", "collection"} or not texts:
        raise _invalid(path, "address", address)


def _is_number(value):
    """Whether a value is a number. JSON also has NaN, and integers that no float can represent."""
    if type(value) is float:
        return value == value
    return type(value) is int and abs(value) <= 2**53


def _invalid(path, part, value):
    return ValueError(
        f"{MANIFEST} of the index {str(path)!r} was not written by keras_metric: `{part:.200}` is "
        f"invalid. Received: {part:.200}={shown(value)}. Nothing was read."
    )


def _checksum(body):
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
