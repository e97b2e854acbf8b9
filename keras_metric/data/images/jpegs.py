"""JPEGs decoded a batch at a time, outside of Python's lock, where TensorFlow is the backend."""

import functools
import os

import keras

from keras_metric.data.images.read_image import is_turned

# A forked process must not touch the threads of TensorFlow that its parent has started.
_PROCESS = os.getpid()


def jpegs_at_once():
    """Whether there is something to decode many JPEGs by at once."""
    return keras.backend.backend() == "tensorflow" and os.getpid() == _PROCESS


def decoded_jpegs(contents, form):
    """The images among `contents` that need nothing but decoding; None for each other one.

    The pixels are those of Pillow: both decode by libjpeg-turbo with exact integers. Only where
    there are `jpegs_at_once`.

    Args:
        contents: list of bytes, each a whole file of any kind.
        form: (height, width, channels) that an image must have as it is in the file.

    Returns:
        list of uint8 arrays `(height, width, channels)` and None.
    """
    found = [None] * len(contents)
    fits = [i for i, content in enumerate(contents) if jpeg_form(content) == form]
    if not fits:
        return found
    import tensorflow as tf

    try:
        images = _decoder(form)(tf.constant([contents[i] for i in fits])).numpy()
    # A damaged one among them: whoever reads them one by one says which.
    except tf.errors.InvalidArgumentError:
        return found
    for i, image in zip(fits, images, strict=True):
        found[i] = image
    return found


@functools.lru_cache
def _decoder(form):
    import tensorflow as tf

    def decoded(content):
        image = tf.io.decode_jpeg(content, form[2], dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(image, form)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode(contents):
        with tf.device("/cpu:0"):
            return tf.map_fn(decoded, contents, fn_output_signature=tf.uint8)

    return decode


def jpeg_form(content):
    """(height, width, channels) as the header of a JPEG says.

    None for what is no JPEG of 8 bits, and for an image that its EXIF data turn.
    """
    if content[:2] != b"\xff\xd8":
        return None
    place, end = 2, len(content) - 9
    # Segments: FF, a kind, the length of the rest, which counts itself.
    while place < end and content[place] == 0xFF:
        kind = content[place + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            head = content[place + 4 : place + 10]
            form = (head[1] << 8 | head[2], head[3] << 8 | head[4], head[5])
            return form if head[0] == 8 else None
        length = content[place + 2] << 8 | content[place + 3]
        if kind == 0xE1 and is_turned(content[place + 4 : place + 2 + length]):
            return None
        place += 2 + length
    return None
