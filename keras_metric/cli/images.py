"""Images of a folder as arrays, and the size and colour that suit most of them."""

import numpy as np
from PIL import Image
from tqdm import tqdm

from keras_metric import data
from keras_metric.cli.messages import UserError

_MEMORY = 4 * 2**30  # bytes of images that are held at once


def read_images(paths, size, color):
    """All images as one uint8 array."""
    loader = data.ImageLoader((size, size), color)
    needed = len(paths) * size * size * (1 if color == "grayscale" else 3)
    if needed > _MEMORY:
        raise UserError(
            f"{len(paths):,} images of {size} x {size} take {needed / 2**30:.1f} GB: "
            "train with a lower --image-size, give fewer images at once, or read them batch by "
            "batch in Python: data.BalancedBatches(paths, load=ImageLoader)."
        )
    # A bar where somebody watches; unreadable files show here, before any training.
    bar = tqdm(paths, desc="reading", unit=" images", disable=None, leave=False)
    return np.stack([loader(path) for path in bar])


def usual_size(paths, most):
    """The middle one of the shorter sides of some images, 24 to `most` pixels."""
    sides = []
    for path in paths[:: max(1, len(paths) // 20)]:
        with _opened(path) as image:
            sides.append(min(image.size))
    return int(np.clip(np.median(sides), 24, most))


def usual_color(paths):
    """`"rgb"` if some of the images have colour, else `"grayscale"`."""
    for path in paths[:: max(1, len(paths) // 20)]:
        with _opened(path) as image:
            if image.mode not in ("1", "L", "LA"):
                return "rgb"
    return "grayscale"


def _opened(path):
    try:
        return Image.open(path)
    except Exception as error:  # Pillow raises more than OSError, as for a huge image.
        raise UserError(f"Could not read the image {path!r}: {error}") from error
