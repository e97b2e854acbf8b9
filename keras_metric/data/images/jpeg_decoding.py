"""Parallel JPEG decoding by TensorFlow, without holding Python's lock.

Used where TensorFlow is the backend: batches of JPEGs come about 1.7 times as fast as Pillow
decodes in one thread (benchmarks/results/data.md).
"""

import functools
import os

import keras

from keras_metric.data.images.read_image import has_orientation

# A forked process must not use the TensorFlow threads of its parent.
_PROCESS = os.getpid()


def can_decode_jpegs():
    """Whether `decode_jpegs` can be used in this process."""
    return keras.backend.backend() == "tensorflow" and os.getpid() == _PROCESS


def decode_jpegs(contents, shape):
    """Decode the JPEGs of the shape (height, width, channels); return None for every other file.

    The pixels are those of Pillow: both decode by libjpeg-turbo with exact integers. Requires
    `can_decode_jpegs()`.
    """
    decoded = [None] * len(contents)
    fits = [i for i, content in enumerate(contents) if jpeg_shape(content) == shape]
    if not fits:
        return decoded
    import tensorflow as tf

    try:
        images = _decoder(shape)(tf.constant([contents[i] for i in fits])).numpy()
    # One of them is damaged. The caller reads each file separately and names that one.
    except tf.errors.InvalidArgumentError:
        return decoded
    for i, image in zip(fits, images, strict=True):
        decoded[i] = image
    return decoded


@functools.lru_cache
def _decoder(shape):
    import tensorflow as tf

    def decode_one(content):
        image = tf.io.decode_jpeg(content, shape[2], dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(image, shape)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode(contents):
        with tf.device("/cpu:0"):
            return tf.map_fn(decode_one, contents, fn_output_signature=tf.uint8)

    return decode


def jpeg_shape(content):
    """Return (height, width, channels) from the header of a JPEG.

    None for files that are not 8-bit JPEGs, and for images whose EXIF data specify a rotation.
    """
    if content[:2] != b"\xff\xd8":
        return None
    position, end = 2, len(content) - 9
    # A segment is FF, a kind, the length of the rest including itself, and the rest.
    while position < end and content[position] == 0xFF:
        kind = content[position + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            head = content[position + 4 : position + 10]
            shape = (head[1] << 8 | head[2], head[3] << 8 | head[4], head[5])
            return shape if head[0] == 8 else None
        length = content[position + 2] << 8 | content[position + 3]
        if kind == 0xE1 and has_orientation(content[position + 4 : position + 2 + length]):
            return None
        position += 2 + length
    return None
