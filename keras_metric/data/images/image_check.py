"""A check for image files that cannot be read, which decodes only the doubtful ones."""

import os

import PIL.Image
from tqdm import tqdm

from keras_metric.data.images.read_image import check_bits

_PADDING = b"\0\r\n "  # some programs write these after the end of an image


def unreadable_images(paths, progress=None):
    """Return a dict from each path that is not a readable image to the reason.

    Reads the header and the last bytes of each file. A JPEG, PNG or WebP file with a valid header
    and its end in place counts as complete; every other file is decoded. This finds files of
    another type, empty files and truncated files. It does not find damage in the middle of a file
    that has its end; `ImageLoader` raises on such a file when it decodes it.
    """
    found = {}
    for path in progress_bar(paths, "checking", progress):
        try:
            _check(path)
        # Pillow raises a SyntaxError for one kind of damage, an error of its own for a huge image.
        except Exception as error:
            found[path] = reason(error)
    return found


def reason(error):
    """The cause of a failed read in a few words, without the path."""
    cause = error.__cause__ or error
    if isinstance(cause, PIL.UnidentifiedImageError):
        return "not an image"
    if not isinstance(cause, (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError)):
        return "damaged"
    return getattr(cause, "strerror", None) or str(cause).partition(". Received")[0]


def unreadable_text(failures, total, most=10):
    """A sentence part that names the first `most` unreadable images and their total number."""
    named = [f"{str(path)!r} ({why})" for path, why in list(failures.items())[:most]]
    rest = f" and {len(failures) - most:,} more" if len(failures) > most else ""
    return f"{len(failures):,} of {total:,} images cannot be read: {', '.join(named)}{rest}"


def empty_text(folders, most=10):
    """A sentence part that names the first `most` class folders without images and their number."""
    named = ", ".join(repr(str(folder)) for folder in folders[:most])
    rest = f" and {len(folders) - most:,} more" if len(folders) > most else ""
    noun = "class folder has" if len(folders) == 1 else "class folders have"
    return f"{len(folders):,} {noun} no images: {named}{rest}"


def progress_bar(paths, what, progress=None):
    """`paths` under a bar on stderr: None shows it on terminals after two seconds."""
    disable = None if progress is None else not progress
    return tqdm(
        paths, desc=what, unit=" images", delay=0 if progress else 2, disable=disable, leave=False
    )


def _check(path):
    with open(path, "rb") as file, PIL.Image.open(file) as image:
        check_bits(image)
        if not _has_its_end(file, image.format):
            image.load()


def _has_its_end(file, form):
    size = os.fstat(file.fileno()).st_size
    if form == "WEBP":
        file.seek(4)
        return size >= 8 + int.from_bytes(file.read(4), "little")
    file.seek(max(0, size - 1024))
    end = file.read().rstrip(_PADDING)
    if form == "PNG":
        return end.endswith(b"IEND\xaeB`\x82")
    # Compressed data of a JPEG cannot hold this marker.
    return form == "JPEG" and end.endswith(b"\xff\xd9")
