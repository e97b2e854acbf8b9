"""Decoding of one image file: orientation, bit depth, colour and size."""

import io
import os

import numpy as np
import PIL.Image
import PIL.ImageOps

MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
ORIENTATION = 0x0112  # the EXIF tag


def read_image(file, color_mode, size=None, resample=None, crop=False, formats=None, most=None):
    """Return a Pillow image with 8 bits a channel, upright, with the given colours and size.

    All image decoding of the package uses these rules; those that users see are documented at
    `ImageLoader`. EXIF data that cannot be parsed are ignored. Of 16 bits a channel the lower 8 are
    dropped. Integers and floats of 32 bits have no fixed range and raise.

    `file` is a path or the bytes of a file, `size` (height, width) or None, `resample` a
    `PIL.Image.Resampling`. `crop` cuts out the middle instead of stretching. `most` is the largest
    number of pixels, compared before decoding. Every fault of the file is a ValueError.
    """
    if not isinstance(file, (bytes, str, os.PathLike)):
        raise TypeError(f"An image must be a path or bytes. Received: {type(file).__name__}")
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        with PIL.Image.open(source, formats=formats) as image:
            if most is not None and image.width * image.height > most:
                found = f"{image.width:,} x {image.height:,}"
                raise ValueError(f"it has {found} pixels; at most {most:,} are accepted")
            check_bits(image)
            image.load()
            image = _convert(_eight_bits(_upright(image), image.format), MODES[color_mode])
            if size is not None and image.size != (size[1], size[0]):
                box = _middle(image.size, size) if crop else None
                image = image.resize((size[1], size[0]), resample, box=box)
            return image
    except PIL.UnidentifiedImageError as error:
        # The text of Pillow shows the address of the buffer in memory.
        expected = "an image" if formats is None else " or ".join(formats)
        raise ValueError(f"Could not read the image {_name(file)}: it is not {expected}") from error
    # Pillow also raises SyntaxError and DecompressionBombError.
    except Exception as error:
        raise ValueError(f"Could not read the image {_name(file)}: {error}") from error


def has_orientation(metadata):
    """Whether the metadata of a JPEG (bytes) may contain an orientation that is not upright."""
    if b"tiff:Orientation" in metadata:  # XMP, which Pillow reads as well
        return True
    parsed = PIL.Image.Exif()
    try:
        parsed.load(metadata)
        return parsed.get(ORIENTATION, 1) != 1
    except Exception:  # Pillow raises many types for damaged EXIF data.
        return False


def _upright(image):
    try:
        turned = image.getexif().get(ORIENTATION, 1) != 1
    except Exception:  # Pillow raises many types for damaged EXIF data.
        return image
    return PIL.ImageOps.exif_transpose(image) if turned else image


def bits_of(mode, format):
    """Return the bits of a channel, 8, 16 or 32, from Pillow's mode and format."""
    # Pillow opens a PGM of 16 bits, and before version 11 a PNG of 16 bits, as 32-bit integers.
    if mode.startswith("I;16") or (mode == "I" and format in ("PNG", "PPM")):
        return 16
    return 32 if mode.startswith(("I", "F")) else 8


def check_bits(image):
    """Raise if an image has 32 bits a channel."""
    if bits_of(image.mode, image.format) == 32:
        raise ValueError(
            f"it has 32 bits a channel (Pillow's mode {image.mode!r}), whose range is unknown; "
            "scale it to 8 or 16 bits"
        )


def _eight_bits(image, format):
    if bits_of(image.mode, format) == 8:
        return image
    return PIL.Image.fromarray((np.asarray(image).astype("uint16") >> 8).astype("uint8"))


def _convert(image, mode):
    if image.mode == mode:
        return image
    if image.mode in ("P", "PA") and "transparency" in image.info:
        # Pillow warns when it drops the transparency of a palette.
        image = image.convert("RGBA")
    return image.convert(mode)


def _middle(image_size, size):
    """Return the box of the largest centred part with the aspect ratio of `size`."""
    width, height = image_size
    crop_height = min(height, width * size[0] // size[1])
    crop_width = min(width, height * size[1] // size[0])
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _name(file):
    return f"in {len(file):,} bytes" if isinstance(file, bytes) else repr(str(file))
