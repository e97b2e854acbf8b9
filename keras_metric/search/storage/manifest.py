"""The manifest of an index on the disk: what it says, and whether it may be believed."""

import hashlib
import json
import re

from keras_metric._validation import shown
from keras_metric.search.results import OperatingPoint

FORMAT = "keras_metric index"
VERSION = 1
MANIFEST = "manifest.json"
# The names that a manifest may give: whoever wrote it, they lead nowhere but into the folder.
_DATA, _JOURNAL = re.compile(r"data-[0-9a-f]{32}"), re.compile(r"journal-[0-9a-f]{32}")
_FILE = re.compile(r"names\.json|[a-z0-9-]+\.npy")
# What a manifest says, and of what type.
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
    """What a manifest says of an index, apart from its files."""
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


def written(body):
    """The text of a manifest."""
    return json.dumps({"checksum": _checksum(body), "body": body}, indent=1)


def read_manifest(path):
    """The sound body of the manifest in the folder `path`, or an error."""
    try:
        text = inside(path / MANIFEST).read_text("utf-8")
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
            f"The index {str(path)!r} has the version {shown(body['version'])} of the format; this "
            f"keras_metric reads up to {VERSION}. Install a newer one."
        )
    if not intact:
        raise ValueError(
            f"{MANIFEST} of the index {str(path)!r} is damaged or was edited. Restore the folder "
            "from a copy; nothing was changed."
        )
    _check_body(path, body)
    return body


def _check_body(path, body):
    """Raise unless every part of a manifest is what `save` writes: it may come from a stranger."""
    for name, kind in _BODY.items():
        value = body.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _foreign(path, name, value)
    if not _DATA.fullmatch(body["data"]):
        raise _foreign(path, "data", body["data"])
    if body["journal"] is not None and not _JOURNAL.fullmatch(body["journal"]):
        raise _foreign(path, "journal", body["journal"])
    for name, entry in body["files"].items():
        if not _FILE.fullmatch(name) or not isinstance(entry, dict):
            raise _foreign(path, "files", name)
        if not {"bytes", "sha256"} <= set(entry):
            raise _foreign(path, f"files[{name!r}]", entry)
    if body["store"] == "faiss" and "names.json" not in body["files"]:
        raise _foreign(path, "files", sorted(body["files"]))
    for point in body["operating_points"]:
        sound = isinstance(point, list) and len(point) == len(OperatingPoint._fields)
        if not sound or not isinstance(point[0], str):
            raise _foreign(path, "operating_points", point)
        if not all(map(_is_number, point[1:])):
            raise _foreign(path, "operating_points", point)
    strange = set(body["address"]) - {"uri", "collection"}
    if strange or not all(isinstance(value, str) for value in body["address"].values()):
        raise _foreign(path, "address", body["address"])


def _is_number(value):
    """Whether a value is a number; JSON also has NaN, and integers that no float can hold."""
    if type(value) is float:
        return value == value
    return type(value) is int and abs(value) <= 2**53


def _foreign(path, part, value):
    return ValueError(
        f"{MANIFEST} of the index {str(path)!r} was not written by keras_metric: `{part:.200}` is "
        f"none of its own. Received: {part:.200}={shown(value)}. Nothing was read."
    )


def inside(path):
    """Return a path of the folder; a link would lead out of it."""
    if path.is_symlink():
        raise ValueError(
            f"The index has a link in the place of {str(path)!r}, which leads out of its folder. "
            "Copy what it points to, if you trust it."
        )
    return path


def _checksum(body):
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
