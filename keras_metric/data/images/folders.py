"""Folders of images, one folder a class."""

import os
import warnings

import keras
import numpy as np
import PIL.Image

from keras_metric._validation import as_path, check_choice, check_count, check_flag
from keras_metric.data.images.image_check import (
    empty_text,
    progress_bar,
    reason,
    unreadable_images,
    unreadable_text,
)
from keras_metric.data.images.jpegs import decoded_jpegs, jpegs_at_once
from keras_metric.data.images.read_image import MODES, read_image
from keras_metric.data.records.example import feature as feature_of

_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_ON_ERROR = ("raise", "skip")
_INTERPOLATIONS = ("bicubic", "bilinear", "box", "hamming", "lanczos", "nearest")


def image_paths(path, on_error="raise"):
    """Return `(paths, labels, class_names)` of a folder that has one folder for each class.

    No image is decoded: give the paths to `BalancedBatches` with `load=ImageLoader(...)`, and a
    data set larger than memory is read batch by batch.

    Classes are the folders, numbered in the order of their names; images are found at any depth
    below, in the order of their paths. Names that begin with a dot, and files that are no images
    by their ending, are passed over. The order does not depend on the machine.

    Args:
        path: folder that holds the folders of the classes.
        on_error: `"raise"` (default) raises if folders of classes have no images, and opens no
            file. `"skip"` leaves such folders out, and the images that cannot be read; one warning
            gives their number and names. It reads the header and the end of each file, some 4,000
            files a second from a local disk, and decodes only files whose format marks no end
            (all but JPEG, PNG and WebP) or whose end is missing. It finds truncated files, and
            files of another type. It does not find damage in the middle of a file.

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
    classes, empty = _classes(path, on_error)
    if on_error == "skip":
        paths = flattened(classes)[0]
        classes = _without(classes, unreadable_images(paths), empty)
    return *flattened(classes), list(classes)


def _classes(path, on_error):
    """Return the images by class, and the folders of classes that have none."""
    check_choice("on_error", on_error, _ON_ERROR)
    root = as_path("path", path)
    if not root.is_dir():
        raise ValueError(f"`path` must be a folder. Received: path={str(path)!r}")
    classes = images_by_class(root)
    if not classes:
        raise ValueError(
            "`path` must hold one folder for each class. Received: "
            f"path={str(path)!r} without folders"
        )
    empty = [root / name for name, found in classes.items() if not found]
    if empty and on_error == "raise":
        raise ValueError(
            f"Every folder of a class in `path` must hold images ({', '.join(_EXTENSIONS)}). "
            f'Received: {empty_text(empty)}. Remove or fill them, or pass on_error="skip".'
        )
    return {name: found for name, found in classes.items() if found}, empty


def _without(classes, failures, empty):
    """Return the images by class without those in `failures`; warn of what is left out."""
    total = sum(map(len, classes.values()))
    parts = [unreadable_text(failures, total)] if failures else []
    parts += [empty_text(empty)] if empty else []
    if parts:
        warnings.warn(f"Left out: {'; '.join(parts)}.", stacklevel=3)
    kept = {name: [p for p in found if p not in failures] for name, found in classes.items()}
    kept = {name: found for name, found in kept.items() if found}
    if not kept:
        raise ValueError("`path` must hold images that can be read. Received: none.")
    return kept


def images_by_class(root):
    """Return a dict from the name of each class folder in `root` to the paths of its images."""
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    return {folder.name: list(_images_below(folder)) for folder in folders}


def loose_images(root):
    """Return the paths of the images in `root` that are in no folder of a class."""
    return [str(path) for path in sorted(root.iterdir()) if _is_image(path.name) and path.is_file()]


def flattened(classes):
    """Return `(paths, labels)` of a dict from class names to paths."""
    labels = np.repeat(np.arange(len(classes), dtype="int32"), [*map(len, classes.values())])
    return [path for found in classes.values() for path in found], labels


def image_folder(
    path,
    image_size,
    color_mode="rgb",
    interpolation="bilinear",
    keep_aspect_ratio=False,
    on_error="raise",
):
    """Read a folder that has one folder for each class into memory.

    For data sets that fit: a million pixels of colour take 3 MB. Otherwise `image_paths` with
    `ImageLoader`.

    Args:
        path: folder that holds the folders of the classes; see `image_paths` for the rules.
        image_size: pair of integers, height and width in pixels of the result.
        color_mode: `"rgb"` (default), `"grayscale"` or `"rgba"`.
        interpolation: `"bilinear"` (default), `"nearest"`, `"bicubic"`, `"lanczos"`, `"box"` or
            `"hamming"`.
        keep_aspect_ratio: True cuts the middle out instead of stretching.
        on_error: `"raise"` (default) raises if folders of classes have no images, or else after
            reading if images cannot be read, and names them all. `"skip"` leaves both out, with
            one warning.

    Returns:
        `images`, uint8 `(images, height, width, channels)` in 0 to 255, or channels first where
        `keras.config.image_data_format()` says so; `labels`, int32; `class_names`, a list.

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
    classes, empty = _classes(path, on_error)
    paths, labels = flattened(classes)
    images, failures = read_images(loader, paths, progress=False)
    if on_error == "skip":
        classes = _without(classes, failures, empty)
        labels = flattened(classes)[1]
    elif failures:
        raise _unreadable(failures, len(paths))
    return images, labels, list(classes)


def read_images(loader, paths, progress=None):
    """Return an array of the readable images, and a dict from each other path to the reason."""
    images, failures, count = None, {}, 0
    for path in progress_bar(paths, "reading", progress):
        try:
            image = loader(path)
        except ValueError as error:
            failures[path] = reason(error)
            continue
        if images is None:
            # Filled in place: a list joined at the end would need the memory twice.
            images = np.empty((len(paths), *image.shape), image.dtype)
        images[count] = image
        count += 1
    return None if images is None else images[:count], failures


def _unreadable(failures, total):
    return ValueError(
        f"Could not read every image: {unreadable_text(failures, total)}. Remove or replace them, "
        'or pass on_error="skip".'
    )


class ImageLoader:
    """A function from the path of an image to a uint8 array, for `load=`.

    The EXIF orientation is applied, so that photos of phones are upright. 16 bits a channel become
    8; 32-bit images are refused. The first image of an animation is read. Alpha is dropped, unless
    the mode is `"rgba"`. docs/building-data.md lists every kind of file.

    Args:
        image_size: pair of integers, height and width in pixels of the result.
        color_mode: `"rgb"` (default), `"grayscale"` or `"rgba"`.
        interpolation: `"bilinear"` (default), `"nearest"`, `"bicubic"`, `"lanczos"`, `"box"` or
            `"hamming"`.
        keep_aspect_ratio: True cuts the middle out instead of stretching.
        feature: None (default) for paths. For the records of `tfrecord_items`, the name of the
            feature that holds the bytes of an image file, such as "image".
        formats: None (default) for every format that Pillow reads, or a list such as
            `["PNG", "JPEG"]`, for files from untrusted sources.
        max_pixels: largest number of pixels in a file, compared before anything is decoded. None
            (default) leaves it to Pillow, which raises above 179 million.

    Call arguments:
        path: path of one image file; or its bytes, or with `feature` a record that holds them.

    Returns:
        uint8 array `(height, width, channels)` in 0 to 255 (channels first where
        `keras.config.image_data_format()` says so).

    Raises:
        TypeError: an argument of another type.
        ValueError: an unknown name; when called, a file that cannot be read as an image, which
            the message names. A batch needs each of its items: for batches leave unreadable files
            out before training, by `image_paths(path, on_error="skip")`. `read` reads a whole list
            and leaves them out by `on_error="skip"`.

    Example:
    >>> import pathlib, tempfile
    >>> import keras, numpy as np
    >>> from keras_metric.data import ImageLoader
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "owl.png"
    >>> keras.utils.save_img(path, np.zeros((12, 9, 3)))
    >>> ImageLoader((6, 4))(path).shape
    (6, 4, 3)
    """

    def __init__(
        self,
        image_size,
        color_mode="rgb",
        interpolation="bilinear",
        keep_aspect_ratio=False,
        feature=None,
        formats=None,
        max_pixels=None,
    ):
        if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
            raise ValueError(
                f"`image_size` must be (height, width). Received: image_size={image_size!r}"
            )
        for side in image_size:
            check_count("image_size", side)
        check_choice("color_mode", color_mode, ("rgb", "grayscale", "rgba"))
        check_choice("interpolation", interpolation, _INTERPOLATIONS)
        check_flag("keep_aspect_ratio", keep_aspect_ratio)
        if feature is not None and not isinstance(feature, str):
            raise TypeError(f"`feature` must be a name or None. Received: feature={feature!r}")
        self.image_size = tuple(image_size)
        self.color_mode = color_mode
        self.interpolation = interpolation
        self.keep_aspect_ratio = keep_aspect_ratio
        if formats is not None and not (
            isinstance(formats, (list, tuple)) and all(isinstance(name, str) for name in formats)
        ):
            raise TypeError(
                '`formats` must be None or a list of names of formats, such as ["PNG", "JPEG"]. '
                f"Received: formats={formats!r}"
            )
        if formats is not None:
            PIL.Image.init()
            for name in formats or [""]:
                check_choice("formats", name.upper(), PIL.Image.OPEN)
        if max_pixels is not None:
            check_count("max_pixels", max_pixels)
        self.feature = feature
        self.formats = formats
        self.max_pixels = max_pixels

    def __call__(self, path):
        file = path
        if isinstance(path, bytes):
            file = self._image_of(path)
        elif self.feature is not None:
            raise TypeError(
                f"With feature={self.feature!r} images come from the records of tfrecord_items, as "
                f"bytes. Received: {path!r}"
            )
        image = read_image(
            file,
            self.color_mode,
            self.image_size,
            PIL.Image.Resampling[self.interpolation.upper()],
            crop=self.keep_aspect_ratio,
            formats=self.formats,
            most=self.max_pixels,
        )
        return keras.utils.img_to_array(image, dtype="uint8")

    def read(self, paths, on_error="raise", progress=None):
        """Read many images into one array.

        Args:
            paths: list of paths of image files.
            on_error: `"raise"` (default) reads all files and then raises if some are unreadable,
                and names them all. `"skip"` leaves them out, with one warning that names them.
            progress: bar on the standard error: None (default) on a terminal after two seconds,
                True always, False never.

        Returns:
            `(images, rows)`: uint8 array of the images that were read, and the int64 index in
            `paths` of each, such as for `labels[rows]`.

        Raises:
            ValueError: images cannot be read; with `"skip"`, none can.
        """
        check_choice("on_error", on_error, _ON_ERROR)
        paths = list(paths)
        images, failures = read_images(self, paths, progress)
        if failures and (on_error == "raise" or images is None):
            raise _unreadable(failures, len(paths))
        if failures:
            warnings.warn(f"Left out: {unreadable_text(failures, len(paths))}.", stacklevel=2)
        if images is None:
            raise ValueError("`paths` must hold at least one path. Received: none.")
        return images, np.flatnonzero([path not in failures for path in paths])

    def quickly(self, records):
        """What calls would return for many records, if they can be decoded at once.

        The batches of this package ask it first. On TensorFlow the JPEGs that have the right size
        and colours already are decoded several at once and outside of Python's lock; the pixels
        are the same.

        Args:
            records: iterable of records, which stays unread where nothing can be decoded at once.

        Returns:
            list of arrays, with None for each record that only a call can tell; or None.
        """
        # A subclass may do more in its call.
        plain = type(self).__call__ is ImageLoader.__call__
        limited = self.formats is not None or self.max_pixels is not None
        if self.feature is None or not plain or limited or not jpegs_at_once():
            return None
        form = (*self.image_size, len(MODES[self.color_mode]))
        images = decoded_jpegs([self._image_of(record) for record in records], form)
        if keras.config.image_data_format() == "channels_first":
            return [None if image is None else image.transpose(2, 0, 1) for image in images]
        return images

    def _image_of(self, record):
        if self.feature is None:
            return record
        values = feature_of(record, self.feature)
        if len(values) != 1 or not isinstance(values[0], bytes):
            raise ValueError(
                f"The feature {self.feature!r} must hold the bytes of one image file. Received: "
                f"{len(values)} values of type {type(values).__name__}."
            )
        return values[0]


def _images_below(folder):
    """Yield the paths of the images in a folder, then of those in its folders."""
    seen, waiting = set(), [str(folder)]
    while waiting:
        where = waiting.pop()
        try:
            state = os.stat(where)
            # A link may lead back up, and each image counts once.
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(where) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            raise ValueError(
                f"Could not read the folder {where!r}: {error.strerror}. Make it readable, or move "
                "it away."
            ) from error
        inner = {entry for entry in entries if _is_folder(entry)}
        for entry in entries:
            # A link that leads nowhere is a missing image. A pipe would block its reader.
            if _is_image(entry.name) and entry not in inner and _is_file(entry):
                yield entry.path
        inner = [entry.path for entry in entries if entry in inner and entry.name[0] != "."]
        waiting += reversed(inner)


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry):
    return entry.is_symlink() or entry.is_file()


def _is_image(name):
    return name.lower().endswith(_EXTENSIONS) and not name.startswith(".")
