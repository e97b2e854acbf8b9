"""ImageSet, and the functions with which the readers parse lists and check images."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from keras_metric._validation import as_path

_LARGEST = np.iinfo("int32").max


class ImageSet(NamedTuple):
    """One part of a data set, such as its query images.

    `paths`: list of strings. `labels`: int32 (images,), with the same numbers in all parts of a
    data set. `groups`: int32 (images,), the camera of each image, or None.
    """

    paths: list
    labels: np.ndarray
    groups: np.ndarray | None = None


def image_set(folder, names, labels, groups=None):
    """Return an `ImageSet` of the files `names` in `folder`; raise if one is missing."""
    for name in names:
        # A list from an untrusted source must not name files outside the folder.
        parts = pathlib.PurePosixPath(str(name).replace("\\", "/"))
        outside = parts.is_absolute() or ".." in parts.parts or "\0" in name
        if outside or not parts.parts or ":" in parts.parts[0]:
            raise ValueError(f"A list must name files in its own folder. Received: {str(name)!r}")
    paths = [os.path.join(folder, *name.split("/")) for name in names]
    missing = next((path for path in paths if not os.path.isfile(path)), None)
    if missing is not None:
        raise ValueError(
            f"Every image in the list of the data set must exist. Received: no file {missing!r}. "
            "Unpack the images next to the lists."
        )
    groups = None if groups is None else _int32("groups", groups)
    return ImageSet(paths, _int32("labels", labels), groups)


def split_images(folder, names, labels, first_test_class):
    """Return "train", images of classes below `first_test_class`, and "test", the others."""
    names, labels = np.array(names), np.array(labels)
    parts = {"train": labels < first_test_class, "test": labels >= first_test_class}
    return {part: image_set(folder, names[rows], labels[rows]) for part, rows in parts.items()}


def _int32(what, values):
    for value in (min(values), max(values)) if len(values) else ():
        if not 0 <= value <= _LARGEST:
            raise ValueError(
                f"The {what} read from a data set must be from 0 to {_LARGEST}. Received: {value}. "
                "Unpack its lists again."
            )
    return np.asarray(values, "int32")


def find_folder(root, name, marker):
    """Return the folder that contains `marker`: `root` itself or `root/name`."""
    root = as_path("root", root)
    for folder in (root, root / name):
        if (folder / marker).exists():
            return folder
    raise ValueError(
        f"`root` must be the unpacked folder {name}, which contains {marker}, or its parent "
        f"folder. Received: root={str(root)!r}"
    )


def read_lines(path):
    """Return `(number, words)` of each line of a list that is not empty."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} must be a text file in UTF-8. Received: {error}") from None
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.split()) for number, line in lines if line.strip()]


def read_rows(path, columns, integers=(), skip=0):
    """Return the lines of a list after the first `skip`, each as a list of `columns` words.

    The words at the indices `integers` are converted.
    """
    rows = []
    for number, row in read_lines(path):
        if number <= skip:
            continue
        if len(row) != columns:
            raise ValueError(
                f"Every line of {str(path)!r} must have {columns} words. Received: {row!r} as line "
                f"{number}."
            )
        for index in integers:
            row[index] = as_integer(row[index], path, number)
        rows.append(row)
    check_images(rows, path)
    return rows


def check_images(found, path):
    """Raise if a list or a folder has no images."""
    if not found:
        raise ValueError(f"{str(path)!r} must have images. Received: none. Unpack it again.")


def as_integer(word, path, number):
    """Return a word of line `number` of a list as an integer, or raise."""
    try:
        return int(word)
    except ValueError:
        raise ValueError(
            f"Line {number} of {str(path)!r} must have an integer there. Received: {word[:80]!r}"
        ) from None
