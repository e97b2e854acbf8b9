"""Random crops of each image, resized to one size."""

import math

import keras
from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_count, check_number, check_seed


@export
class RandomResizedCrop(keras.layers.Layer):
    """Crops a random part of each image and resizes it to one size.

    The crop of contrastive learning (SimCLR): position, size and aspect ratio are sampled for each
    image of the batch. `keras.layers.RandomCrop` crops the whole batch at one position and never
    scales.

    The crop has the area `a * height * width`, with `a` uniform in `scale`, an aspect ratio
    (width / height) `r` with log r uniform in the logarithm of `ratio`, and a uniform position. It
    is resized by bilinear interpolation, with antialiasing if it shrinks. Sides longer than the
    image are shortened to it. Without `training` the whole image is resized.

    Args:
        height: integer, height of the result in pixels.
        width: integer, width of the result in pixels.
        scale: pair of numbers in (0, 1], smallest and largest fraction of the area that is kept.
            The default, from 0.08, is that of SimCLR; use 0.4 or more for small images of one
            object.
        ratio: pair of positive numbers, smallest and largest aspect ratio.
        seed: integer or None, seed of the layer. `BalancedBatches` uses its own seed.
        **kwargs: keyword arguments of `keras.layers.Layer`.

    Call arguments:
        images: `(batch, height, width, channels)`, or channels first as in
            `keras.config.image_data_format()`.
        training: whether to crop; defaults to True.

    Returns:
        float32 images of `height` and `width`.

    Raises:
        ValueError: a pair is not two numbers in rising order and in range.

    Example:
    >>> import numpy as np
    >>> from keras_metric.data import RandomResizedCrop
    >>> images = np.ones((4, 32, 32, 3), "float32")
    >>> tuple(RandomResizedCrop(24, 24, scale=(0.4, 1.0))(images).shape)
    (4, 24, 24, 3)

    Reference:

    - Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning of Visual
      Representations, 2020, https://arxiv.org/abs/2002.05709
    """

    def __init__(self, height, width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), seed=None, **kwargs):
        super().__init__(**kwargs)
        check_count("height", height)
        check_count("width", width)
        _check_pair("scale", scale, at_most=1)
        _check_pair("ratio", ratio)
        check_seed("seed", seed)
        self.height = height
        self.width = width
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=True):
        if len(getattr(images, "shape", ())) != 4:
            raise ValueError(
                "`images` must have shape (batch, height, width, channels). Received: "
                f"images.shape={tuple(getattr(images, 'shape', ()))}. One image becomes a batch by "
                "image[None]."
            )
        images = ops.cast(images, "float32")
        first = keras.config.image_data_format() == "channels_first"
        if first:
            images = ops.transpose(images, (0, 2, 3, 1))
        rows, columns = images.shape[1], images.shape[2]
        tops, heights, lefts, widths = self._boxes(ops.shape(images)[0], rows, columns, training)
        down = _weights(tops, heights, rows, self.height)  # (batch, height, rows)
        across = _weights(lefts, widths, columns, self.width)  # (batch, width, columns)
        # Matrix products are fast on every backend; the speed of a gather varies.
        images = ops.einsum("bhr,brwc->bhwc", down, images)
        images = ops.einsum("bvw,bhwc->bhvc", across, images)
        return ops.transpose(images, (0, 3, 1, 2)) if first else images

    def _boxes(self, batch, rows, columns, training):
        if not training:
            zero = ops.zeros((batch,))
            return zero, zero + rows, zero, zero + columns

        def uniform(low, high):
            return keras.random.uniform((batch,), low, high, seed=self._generator)

        area = uniform(*self.scale) * (rows * columns)
        ratio = ops.exp(uniform(*(math.log(side) for side in self.ratio)))
        heights = ops.minimum(ops.sqrt(area / ratio), float(rows))
        widths = ops.minimum(ops.sqrt(area * ratio), float(columns))
        return (
            uniform(0.0, 1.0) * (rows - heights),
            heights,
            uniform(0.0, 1.0) * (columns - widths),
            widths,
        )

    def compute_output_shape(self, input_shape):
        if keras.config.image_data_format() == "channels_first":
            return (*input_shape[:2], self.height, self.width)
        return (input_shape[0], self.height, self.width, input_shape[3])

    def get_config(self):
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "scale": self.scale,
            "ratio": self.ratio,
            "seed": self.seed,
        }


def _weights(starts, lengths, source, target):
    """Return the weight of each source pixel in each target pixel, `(batch, target, source)`."""
    step = (lengths / target)[:, None]
    centres = starts[:, None] + (ops.arange(target, dtype="float32") + 0.5) * step - 0.5
    # A crop that shrinks averages over the pixels that it merges.
    support = ops.maximum(step, 1.0)[:, :, None]
    distance = ops.abs(centres[:, :, None] - ops.arange(source, dtype="float32"))
    weights = ops.maximum(1.0 - distance / support, 0.0)
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def _check_pair(name, pair, at_most=None):
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"`{name}` must be a pair of numbers. Received: {name}={pair!r}")
    for value in pair:
        check_number(name, value, above=0, at_most=at_most)
    if pair[0] > pair[1]:
        raise ValueError(f"`{name}` must be in rising order. Received: {name}={pair!r}")
