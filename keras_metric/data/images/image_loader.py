"""ImageLoader: reads image files into uint8 arrays."""

import warnings

import keras
import numpy as np
import PIL.Image

from keras_metric._block_loops import with_progress
from keras_metric._validation import check_choice, check_count, check_flag
from keras_metric.data.images.jpeg_decoding import can_decode_jpegs, decode_jpegs
from keras_metric.data.images.read_image import MODES, read_image
from keras_metric.data.images.unreadable_images import describe_faults, reason
from keras_metric.data.records.tf_example import feature_values

ON_ERROR = ("raise", "skip")
_INTERPOLATIONS = ("bicubic", "bilinear", "box", "hamming", "lanczos", "nearest")


class ImageLoader:
    """A function from the path of an image to a uint8 array, for `load=`.

    The EXIF orientation is applied, so that photos of phones are upright. 16 bits a channel become
    8; 32-bit images raise. The first image of an animation is read. Alpha is dropped, unless the
    mode is `"rgba"`. docs/building-data.md lists every kind of file.

    Args:
        image_size: pair of integers, height and width in pixels of the result.
        color_mode: `"rgb"` (default), `"grayscale"` or `"rgba"`.
        interpolation: `"bilinear"` (default), `"nearest"`, `"bicubic"`, `"lanczos"`, `"box"` or
            `"hamming"`.
        keep_aspect_ratio: True crops the middle instead of stretching.
        feature: None (default) for paths. For the records of `tfrecord_items`, the name of the
            feature that holds the bytes of an image file, such as "image".
        formats: None (default) for every format that Pillow reads, or a list such as
            `["PNG", "JPEG"]`, for files from untrusted sources.
        max_pixels: largest number of pixels in a file, checked before decoding. None (default)
            for the limit of Pillow, which raises above 179 million.

    Call arguments:
        path: path of one image file; or its bytes, or with `feature` a record that contains them.

    Returns:
        uint8 array `(height, width, channels)` in 0 to 255, or channels first as in
        `keras.config.image_data_format()`.

    Raises:
        ValueError: an unknown name; when called, a file that cannot be read as an image, which
            the message names. A batch requires all of its items: omit unreadable files before
            training, by `image_paths(path, on_error="skip")`. `read(paths, on_error="skip")` omits
            them from a list.

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
            raise ValueError(f"`image_size` must be (height, width). Received: {image_size!r}")
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
            raise TypeError(f"`formats` must be None or a list of names. Received: {formats!r}")
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
            raise TypeError(f"With feature={self.feature!r} pass bytes. Received: {path!r}")
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
            on_error: `"raise"` (default) reads all files, then raises an error that names the
                unreadable ones. `"skip"` omits them, with one warning that names them.
            progress: progress bar on stderr: None (default) on a terminal after two seconds, True
                always, False never.

        Returns:
            `(images, rows)`: uint8 array of the images that were read, and the int64 index in
            `paths` of each, for example for `labels[rows]`.

        Raises:
            ValueError: images cannot be read; with `"skip"`, none can.
        """
        check_choice("on_error", on_error, ON_ERROR)
        paths = list(paths)
        images, failures = read_images(self, paths, progress)
        if on_error == "raise" or images is None:
            check_all_read(failures, len(paths))
        if failures:
            faults = describe_faults(failures, len(paths))
            warnings.warn(f"Left out: {faults}.", stacklevel=2)
        if images is None:
            raise ValueError("`paths` must hold at least one path. Received: none.")
        return images, np.flatnonzero([path not in failures for path in paths])

    def decode_batch(self, records):
        """Decode the JPEGs among many records together, which is faster than separate calls.

        `BalancedBatches` calls this method before it calls the loader. On TensorFlow it decodes
        JPEGs that have the right size and colours already, several at once and without Python's
        lock; the pixels are the same.

        Args:
            records: iterable of records; it is not read if the loader cannot decode together.

        Returns:
            list of arrays, with None for each record that needs a separate call; or None.
        """
        # A subclass may do more in its call.
        is_plain = type(self).__call__ is ImageLoader.__call__
        is_limited = self.formats is not None or self.max_pixels is not None
        if self.feature is None or not is_plain or is_limited or not can_decode_jpegs():
            return None
        shape = (*self.image_size, len(MODES[self.color_mode]))
        images = decode_jpegs([self._image_of(record) for record in records], shape)
        if keras.config.image_data_format() == "channels_first":
            return [None if image is None else image.transpose(2, 0, 1) for image in images]
        return images

    def _image_of(self, record):
        if self.feature is None:
            return record
        values = feature_values(record, self.feature)
        if len(values) != 1 or not isinstance(values[0], bytes):
            raise ValueError(
                f"The feature {self.feature!r} must hold the bytes of one image file. Received: "
                f"{len(values)} values of type {type(values).__name__}."
            )
        return values[0]


def read_images(loader, paths, progress=None):
    """Return an array of the readable images, and a dict from each other path to the reason."""
    images, failures, count = None, {}, 0
    for path in with_progress(paths, len(paths), "reading", progress):
        try:
            image = loader(path)
        except ValueError as error:
            failures[path] = reason(error)
            continue
        if images is None:
            # Filled in place: stacking a list at the end would need the memory twice.
            images = np.empty((len(paths), *image.shape), image.dtype)
        images[count] = image
        count += 1
    return None if images is None else images[:count], failures


def check_all_read(failures, total):
    """Raise an error that names the unreadable images, if there are any."""
    if failures:
        raise ValueError(
            f"Could not read every image: {describe_faults(failures, total)}. Remove or replace "
            'them, or pass on_error="skip".'
        )
