"""Folders of images, one folder a class."""

import os

import keras
import numpy as np
import PIL.Image

from keras_metric._checks import as_path, check_choice, check_count, check_flag
from keras_metric.data.example import feature as feature_of
from keras_metric.data.jpegs import decoded_jpegs, jpegs_at_once
from keras_metric.data.read_image import MODES, read_image

_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_INTERPOLATIONS = ("bicubic", "bilinear", "box", "hamming", "lanczos", "nearest")


def image_paths(path):
    """Return `(paths, labels, class_names)` of a folder that has one folder for each class.

    Nothing is read: give the paths to `BalancedBatches` with `load=ImageLoader(...)`, and a data
    set larger than memory is read batch by batch.

    Classes are the folders, numbered in the order of their names; images are found at any depth
    below, in the order of their paths. Names that begin with a dot, and files that are no images
    by their ending, are passed over. The order does not depend on the machine.

    Args:
        path: folder that holds the folders of the classes.

    Returns:
        `paths`, a list of strings; `labels`, int32 `(images,)`; `class_names`, a list of strings
        with `class_names[label]` the name of the folder.

    Raises:
        ValueError: the folder is missing, has no folders, or one of them has no images.

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
    root = as_path("path", path)
    if not root.is_dir():
        raise ValueError(f"`path` must be a folder. Received: path={str(path)!r}")
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise ValueError(
            "`path` must hold one folder for each class. Received: "
            f"path={str(path)!r} without folders"
        )
    paths, labels = [], []
    for label, folder in enumerate(folders):
        found = list(_images_below(folder))
        if not found:
            raise ValueError(
                "Every folder of a class in `path` must hold images "
                f"({', '.join(_EXTENSIONS)}). Received: none in {str(folder)!r}. Remove the "
                "folder, or fill it."
            )
        paths += found
        labels += [label] * len(found)
    return paths, np.array(labels, dtype="int32"), [folder.name for folder in folders]


def image_folder(
    path, image_size, color_mode="rgb", interpolation="bilinear", keep_aspect_ratio=False
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

    Returns:
        `images`, uint8 `(images, height, width, channels)` in 0 to 255, or channels first where
        `keras.config.image_data_format()` says so; `labels`, int32; `class_names`, a list.

    Raises:
        ValueError: a folder is missing or empty, or an image cannot be read (it is named).

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
    paths, labels, class_names = image_paths(path)
    # Filled in place: a list joined at the end would need the memory twice.
    images = np.empty((len(paths), *loader(paths[0]).shape), dtype="uint8")
    for row, image in enumerate(map(loader, paths)):
        images[row] = image
    return images, labels, class_names


class ImageLoader:
    """A function from the path of an image to a uint8 array, for `load=`.

    The EXIF orientation is applied, so that photos of phones are upright. 16 bits a channel become
    8; 32-bit images are refused. Of an animation the first image is read. Alpha is dropped, unless
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
            the message names.

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
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        # A link may lead back up, and each image counts once.
        real = os.path.realpath(where)
        # In place: it steers the walk.
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(_EXTENSIONS) and not name.startswith("."):
                yield os.path.join(where, name)
