"""Image data sets in folders, one folder for each class."""

import os
import warnings

import numpy as np

from keras_metric._validation import as_path, check_choice
from keras_metric.data.images.image_loader import (
    ON_ERROR,
    ImageLoader,
    check_all_read,
    read_images,
)
from keras_metric.data.images.unreadable_images import describe_faults, unreadable_images

_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def image_paths(path, on_error="raise"):
    """Return `(paths, labels, class_names)` of a folder that has one folder for each class.

    No image is decoded: pass the paths to `BalancedBatches` with `load=ImageLoader(...)`, which
    reads a data set larger than memory batch by batch.

    Classes are the folders, numbered in the order of their names. Images are found at any depth, in
    the order of their paths. Names that begin with a dot, and files without an image extension, are
    ignored. The order is the same on every machine.

    Args:
        path: folder that contains the folders of the classes.
        on_error: `"raise"` (default) raises if class folders have no images, and opens no file.
            `"skip"` omits such folders and unreadable images; one warning gives their number and
            names. It reads the header and the end of each file, some 4,000 files a second from a
            local disk, and decodes only files without an end marker (all formats but JPEG, PNG and
            WebP) or whose end is missing. It finds truncated files and files of another type. It
            does not find damage in the middle of a file.

    Returns:
        `paths`, a list of strings; `labels`, int32 `(images,)`; `class_names`, a list of strings
        with `class_names[label]` the name of the folder.

    Raises:
        ValueError: the folder is missing, has no folders, or some of them have no images; with
            `"skip"`, no image is left.

    Example:
    >>> import pathlib, tempfile
    >>> import keras, numpy as np
    >>> from keras_metric.data import BalancedBatches, ImageLoader, image_paths
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("owl", "hen"):
    ...     (root / name).mkdir()
    ...     for i in range(2):
    ...         keras.utils.save_img(root / name / f"{i}.png", np.zeros((8, 8, 3)))
    >>> paths, labels, class_names = image_paths(root)
    >>> len(paths), labels.tolist(), class_names
    (4, [0, 0, 1, 1], ['hen', 'owl'])
    >>> batches = BalancedBatches(paths, labels, 2, 2, seed=0, load=ImageLoader((8, 8)))
    >>> batches[0][0].shape
    (4, 8, 8, 3)
    """
    classes, empty = _find_classes(path, on_error)
    if on_error == "skip":
        paths = flatten_classes(classes)[0]
        classes = _omit(classes, unreadable_images(paths), empty)
    return *flatten_classes(classes), list(classes)


def image_folder(
    path,
    image_size,
    color_mode="rgb",
    interpolation="bilinear",
    keep_aspect_ratio=False,
    on_error="raise",
):
    """Read a folder that has one folder for each class into memory.

    A million RGB pixels take 3 MB. For data sets larger than memory use `image_paths` with
    `ImageLoader`.

    Args:
        path: folder that contains the folders of the classes; see `image_paths` for the rules.
        image_size: pair of integers, height and width in pixels of the result.
        color_mode: as in `ImageLoader`.
        interpolation: as in `ImageLoader`.
        keep_aspect_ratio: as in `ImageLoader`.
        on_error: `"raise"` (default) raises if class folders have no images; then reads all images
            and raises an error that names the unreadable ones. `"skip"` omits both, with one
            warning.

    Returns:
        `images`, uint8 `(images, height, width, channels)` in 0 to 255, or channels first as in
        `keras.config.image_data_format()`; `labels`, int32; `class_names`, a list.

    Raises:
        ValueError: a folder is missing or empty, or images cannot be read.

    Example:
    >>> import pathlib, tempfile
    >>> import keras, numpy as np
    >>> from keras_metric.data import image_folder
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("owl", "hen"):
    ...     (root / name).mkdir()
    ...     keras.utils.save_img(root / name / "1.png", np.zeros((12, 9, 3)))
    >>> images, labels, class_names = image_folder(root, (8, 8), color_mode="grayscale")
    >>> images.shape, images.dtype, labels.tolist(), class_names
    ((2, 8, 8, 1), dtype('uint8'), [0, 1], ['hen', 'owl'])
    """
    loader = ImageLoader(image_size, color_mode, interpolation, keep_aspect_ratio)
    classes, empty = _find_classes(path, on_error)
    paths, labels = flatten_classes(classes)
    images, failures = read_images(loader, paths, progress=False)
    if on_error == "skip":
        classes = _omit(classes, failures, empty)
        labels = flatten_classes(classes)[1]
    else:
        check_all_read(failures, len(paths))
    return images, labels, list(classes)


def images_by_class(root):
    """Return a dict from the name of each class folder in `root` to the paths of its images."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    return {folder.name: list(_images_below(folder)) for folder in folders}


def images_without_class(root):
    """Return the paths of the images directly in `root`, which are in no class folder."""
    return [str(path) for path in sorted(root.iterdir()) if _is_image(path.name) and path.is_file()]


def flatten_classes(classes):
    """Return `(paths, labels)` of a dict from class names to paths."""
    labels = np.repeat(np.arange(len(classes), dtype="int32"), [*map(len, classes.values())])
    return [path for found in classes.values() for path in found], labels


def _find_classes(path, on_error):
    """Return the images by class, and the class folders without images."""
    check_choice("on_error", on_error, ON_ERROR)
    root = as_path("path", path)
    if not root.is_dir():
        raise ValueError(f"`path` must be a folder. Received: path={str(path)!r}")
    classes = images_by_class(root)
    if not classes:
        received = f"path={str(path)!r} without folders"
        raise ValueError(f"`path` must contain one folder for each class. Received: {received}")
    empty = [root / name for name, found in classes.items() if not found]
    if empty and on_error == "raise":
        raise ValueError(
            f"Every class folder in `path` must contain images ({', '.join(_EXTENSIONS)}). "
            f"Received: {describe_faults({}, 0, empty)}. Remove or fill them, or pass "
            'on_error="skip".'
        )
    return {name: found for name, found in classes.items() if found}, empty


def _omit(classes, failures, empty):
    """Return the images by class without those in `failures`, and warn of the omissions."""
    faults = describe_faults(failures, sum(map(len, classes.values())), empty)
    if faults:
        warnings.warn(f"Left out: {faults}.", stacklevel=3)
    kept = {name: [p for p in found if p not in failures] for name, found in classes.items()}
    kept = {name: found for name, found in kept.items() if found}
    if not kept:
        raise ValueError("`path` must contain readable images. Received: none.")
    return kept


def _images_below(folder):
    """Yield the paths of the images in a folder, then of those in its folders."""
    visited, waiting = set(), [str(folder)]
    while waiting:
        current = waiting.pop()
        try:
            state = os.stat(current)
            # A link may point to a parent folder; each folder is read once.
            if (state.st_dev, state.st_ino) in visited:
                continue
            visited.add((state.st_dev, state.st_ino))
            with os.scandir(current) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            raise ValueError(
                f"Could not read the folder {current!r}: {error.strerror}. Make it readable, or "
                "move it away."
            ) from error
        inner = {entry for entry in entries if _is_folder(entry)}
        for entry in entries:
            # A broken link counts as a missing image. Reading a pipe would block.
            is_file = entry.is_symlink() or entry.is_file()
            if _is_image(entry.name) and entry not in inner and is_file:
                yield entry.path
        inner = [entry.path for entry in entries if entry in inner and entry.name[0] != "."]
        waiting += reversed(inner)


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(name):
    return name.lower().endswith(_EXTENSIONS) and not name.startswith(".")
