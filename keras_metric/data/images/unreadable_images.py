"""Search for unreadable image files, and the text that reports them."""

import os

import PIL.Image

from keras_metric._block_loops import with_progress
from keras_metric.data.images.read_image import check_bits

_PADDING = b"\0\r\n "  # some programs write these after the end of an image


def unreadable_images(paths, progress=None):
    """Return a dict from each path that is not a readable image to the reason.

    Reads the header and the last bytes of each file. A JPEG, PNG or WebP file with a valid header
    and a valid end counts as complete; every other file is decoded. This finds files of another
    type, empty files and truncated files. It does not find damage in the middle of a file with a
    valid end; `ImageLoader` raises when it decodes such a file.
    """
    found = {}
    for path in with_progress(paths, len(paths), "checking", progress):
        try:
            _check(path)
        # Pillow also raises SyntaxError and DecompressionBombError.
        except Exception as error:
            found[path] = reason(error)
    return found


def reason(error):
    """Return the cause of a failed read in a few words, without the path."""
    cause = error.__cause__ or error
    if isinstance(cause, PIL.UnidentifiedImageError):
        return "not an image"
    if not isinstance(cause, (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError)):
        return "damaged"
    return getattr(cause, "strerror", None) or str(cause).partition(". Received")[0]


def describe_faults(failures, total, empty_folders=(), most=10):
    """Return a clause on unreadable images and class folders without images; "" if there are none.

    It names the first `most` of each kind, and gives their total numbers.
    """

    def listed(names):
        rest = f" and {len(names) - most:,} more" if len(names) > most else ""
        return ", ".join(names[:most]) + rest

    parts = []
    if failures:
        named = listed([f"{str(path)!r} ({why})" for path, why in failures.items()])
        parts.append(f"{len(failures):,} of {total:,} images cannot be read: {named}")
    if empty_folders:
        noun = "class folder has" if len(empty_folders) == 1 else "class folders have"
        named = listed([repr(str(folder)) for folder in empty_folders])
        parts.append(f"{len(empty_folders):,} {noun} no images: {named}")
    return "; ".join(parts)


def _check(path):
    with open(path, "rb") as file, PIL.Image.open(file) as image:
        check_bits(image)
        if not _has_valid_end(file, image.format):
            image.load()


def _has_valid_end(file, form):
    size = os.fstat(file.fileno()).st_size
    if form == "WEBP":
        file.seek(4)
        return size >= 8 + int.from_bytes(file.read(4), "little")
    file.seek(max(0, size - 1024))
    end = file.read().rstrip(_PADDING)
    if form == "PNG":
        return end.endswith(b"IEND\xaeB`\x82")
    # The compressed data of a JPEG cannot contain this marker.
    return form == "JPEG" and end.endswith(b"\xff\xd9")
