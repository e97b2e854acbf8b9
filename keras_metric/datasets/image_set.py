"""ImageSet: the images of one part of a published data set, and how its readers find them."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from keras_metric._validation import as_path

_LARGEST = np.iinfo("int32").max


class ImageSet(NamedTuple):
    """One part of a data set, such as its query images.

    `paths`: list of strings. `labels`: int32 (images,), numbered alike in all parts of a data set.
    `groups`: int32 (images,), the camera of each image, or None.
    """

    paths: list
    labels: np.ndarray
    groups: np.ndarray | None = None


def image_set(folder, names, labels, groups=None):
    """Return an `ImageSet` of the files `names` below `folder`, all of which must be there."""
    for name in names:
        # A list may come from a stranger; its names lead into the folder, nowhere else.
        parts = pathlib.PurePosixPath(str(name).replace("\\", "/"))
        away = parts.is_absolute() or ".." in parts.parts or "\0" in name
        if away or not parts.parts or ":" in parts.parts[0]:
            raise ValueError(
                f"The list of a data set names files below its own folder. Received: {str(name)!r}"
            )
    paths = [os.path.join(folder, *name.split("/")) for name in names]
    missing = next((path for path in paths if not os.path.isfile(path)), None)
    if missing is not None:
        raise ValueError(
            f"Every image of the data set's list must be there. Received: no file {missing!r}. "
            "Unpack the images beside the lists, as they come."
        )
    if groups is not None:
        groups = _int32("groups", groups)
    return ImageSet(paths, _int32("labels", labels), groups)


def _int32(what, values):
    """Return `values` as int32; a list with a number outside its range is damaged."""
    for value in (min(values), max(values)) if len(values) else ():
        if not 0 <= value <= _LARGEST:
            raise ValueError(
                f"The {what} read from a data set must be from 0 to {_LARGEST}. Received: {value}. "
                "Unpack its lists again."
            )
    return np.asarray(values, "int32")


def find_folder(root, name, marker):
    """Return the folder that holds `marker`: `root` itself or `root/name`."""
    root = as_path("root", root)
    for folder in (root, root / name):
        if (folder / marker).exists():
            return folder
    raise ValueError(
        f"`root` must be the unpacked folder {name}, which holds {marker}, or the folder above it. "
        f"Received: root={str(root)!r}"
    )


def lines_of(path):
    """Return `(number, words)` of each line of a list that is not empty."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} must be a text file in UTF-8. Received: {error}") from None
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.split()) for number, line in lines if line.strip()]


def rows_of(path, columns, integers=(), skip=0):
    """Return the lines of a list after the first `skip`, each as `columns` words.

    Those words whose places are among `integers` come as such.
    """
    rows = []
    for number, row in lines_of(path):
        if number <= skip:
            continue
        if len(row) != columns:
            raise ValueError(
                f"Every line of {str(path)!r} must have {columns} words. Received: {row!r} as line "
                f"{number}."
            )
        for place in integers:
            row[place] = as_integer(row[place], path, number)
        rows.append(row)
    check_images(rows, path)
    return rows


def check_images(found, path):
    """Raise if a list or a folder has no images."""
    if not found:
        raise ValueError(
            f"{str(path)!r} must have images. Received: none. Unpack the archive again."
        )


def as_integer(word, path, number):
    """Return a word of line `number` of a list as the integer that it must be."""
    try:
        return int(word)
    except ValueError:
        raise ValueError(
            f"Line {number} of {str(path)!r} must have an integer there. Received: {word[:80]!r}"
        ) from None
