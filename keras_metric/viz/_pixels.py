"""Images of any layout and range as uint8 pixels."""

import keras
import numpy as np
from PIL import Image

from keras_metric._validation import as_array, is_numeric


def looks_like_images(value):
    """Return whether an array has the shape of images: `(n, h, w)` or `(n, h, w, 1 | 3 | 4)`."""
    shape, dtype = getattr(value, "shape", ()), str(getattr(value, "dtype", ""))
    if "float" not in dtype and "int" not in dtype:
        return False
    if len(shape) == 3:
        # Sequences of vectors have rank 3 as well, but are rarely this close to square.
        return min(shape[1:]) >= 8 and max(shape[1:]) <= 4 * min(shape[1:])
    channels = 1 if keras.config.image_data_format() == "channels_first" else -1
    return len(shape) == 4 and shape[channels] in (1, 3, 4)


def channels_last(images, name="images"):
    """Return images as an array `(n, h, w)` or `(n, h, w, 1 | 3 | 4)`, or raise."""
    images = as_array(name, images)
    if not is_numeric(images):
        raise ValueError(f"`{name}` must be numbers. Received: {name}.dtype={images.dtype}")
    if images.ndim == 4 and keras.config.image_data_format() == "channels_first":
        images = np.moveaxis(images, 1, -1)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3, 4)):
        raise ValueError(
            f"`{name}` must have shape (n, height, width) or (n, height, width, 1, 3 or 4). "
            f"Received: {name}.shape={images.shape}"
        )
    return images


def as_pixels(images, name="images", rows=None):
    """Return images as uint8 `(n, h, w)` if they are grey, else `(n, h, w, 3)`.

    uint8 is returned unchanged, and floats in 0 to 1 are scaled by 255; other values are stretched
    from the smallest to the largest finite value of all images. With `rows` only these images are
    converted, in the range of all.
    """
    images = channels_last(images, name)
    if images.ndim == 4:
        images = images[..., 0] if images.shape[-1] == 1 else images[..., :3]
    chosen = images if rows is None else images[np.asarray(rows, dtype="int64")]
    if images.dtype == np.uint8:
        return chosen
    finite = np.isfinite(images)
    low = float(np.min(images, where=finite, initial=np.inf))
    high = float(np.max(images, where=finite, initial=-np.inf))
    chosen = chosen.astype("float32")
    if low < 0.0 or high > 1.0:
        chosen = (chosen - low) / ((high - low) or 1.0)
    return (255.0 * np.nan_to_num(chosen, posinf=1.0).clip(0.0, 1.0) + 0.5).astype("uint8")


def resize_to_fit(pixels, side):
    """Return uint8 `pixels` shrunk to at most `side` pixels in height and width."""
    factor = min(1.0, side / max(pixels.shape[1:3]))
    height, width = (max(1, int(factor * size)) for size in pixels.shape[1:3])
    if pixels.shape[1:3] == (height, width):
        return pixels
    small = [
        Image.fromarray(image).resize((width, height), Image.Resampling.BOX) for image in pixels
    ]
    return np.stack([np.asarray(image) for image in small])
