"""GeneralizedMeanPooling: between the average and the maximum of a map, where it is learned."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_number, check_one_input
from keras_metric.layers.position_masks import position_mask
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE

_SMALLEST_POWER = 1e-3


@export
class GeneralizedMeanPooling(keras.layers.Layer):
    """Pools a map or a sequence by a power mean, GeM: the usual pooling of image retrieval.

    Reach for it in place of average pooling where the thing to recognise fills a part of the
    image. For each feature, over the positions of the map,

        y = ( mean of max(x, epsilon)**p )**(1 / p)

    p = 1 is the average, p towards infinity the maximum. One p serves all features, and is trained
    with the network. Features below epsilon count as epsilon, so put it behind a ReLU.

    Args:
        p: the power at the start, above 0. Default 3, as in the paper.
        epsilon: least value of a feature, above 0. Default 1e-6, as in the paper.
        data_format: "channels_last" or "channels_first", where a map has its features. Default
            None: `keras.config.image_data_format()`. A sequence has them last.
        trainable: True (default) learns p; False keeps it.
        dtype: dtype policy of the layer. The mean is taken in float32 at least.
        name: name of the layer.

    Call arguments:
        inputs: a map of rank 4 or 5, or a sequence `(batch, steps, features)`.
        mask: boolean or integer `(batch, steps)`, for a sequence: the steps that count. For a
            map, any leading part of (batch, positions).

    Returns:
        Tensor `(batch, features)`. A sequence without any step that counts gives zeros.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for a number out of range, or inputs that are no map or sequence.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> from keras_metric.layers import GeneralizedMeanPooling
    >>> maps = np.array([1.0, 2.0, 3.0, 4.0], "float32").reshape(1, 2, 2, 1)
    >>> pooling = GeneralizedMeanPooling(p=3.0, data_format="channels_last")
    >>> round(float(keras.ops.convert_to_numpy(pooling(maps))[0, 0]), 3)
    2.924

    Reference:
        Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
        2018, https://arxiv.org/abs/1711.02512
    """

    def __init__(
        self,
        p=3.0,
        epsilon=1e-6,
        data_format=None,
        trainable=True,
        dtype=None,
        name=None,
        **kwargs,
    ):
        super().__init__(trainable=trainable, dtype=dtype, name=name, **kwargs)
        check_number("p", p, above=0)
        check_number("epsilon", epsilon, above=0)
        if data_format is None:
            data_format = keras.config.image_data_format()
        check_choice("data_format", data_format, ("channels_first", "channels_last"))
        self.p = p
        self.epsilon = epsilon
        self.data_format = data_format
        # The mask ends here: one vector an item has no steps.
        self.supports_masking = True

    def build(self, input_shape):
        check_one_input(input_shape)
        self._axes(len(input_shape))
        self.power = self.add_weight(
            name="power",
            shape=(),
            initializer=keras.initializers.Constant(self.p),
            # At 0 the mean has no value, and below it is another one.
            constraint=lambda power: ops.maximum(power, _SMALLEST_POWER),
        )

    def call(self, inputs, mask=None):
        axes = self._axes(len(inputs.shape))
        wide = distances.at_least_float32(self.compute_dtype)
        x, power = ops.cast(inputs, wide), ops.cast(self.power, wide)
        keep = position_mask(mask, x, self._features_first(len(inputs.shape)))
        if keep is None:
            keep = ops.ones_like(x, dtype="bool")
        # What stands behind the mask may be infinite or NaN.
        x = ops.maximum(ops.where(keep, x, 1), self.epsilon)
        # In logarithms, so that no power leaves the range of a float.
        logs = ops.where(keep, power * ops.log(x), -MASKED_DISTANCE)
        count = ops.sum(ops.cast(keep, wide), axis=axes)
        mean = ops.logsumexp(logs, axis=axes) - ops.log(ops.maximum(count, 1))
        mean = ops.where(count > 0, mean, 0)
        return ops.cast(ops.where(count > 0, ops.exp(mean / power), 0), self.compute_dtype)

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        check_one_input(input_shape)
        self._axes(len(input_shape))
        first = self._features_first(len(input_shape))
        return (input_shape[0], input_shape[1] if first else input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "p": self.p,
            "epsilon": self.epsilon,
            "data_format": self.data_format,
        }

    def _axes(self, rank):
        if rank not in (3, 4, 5):
            raise ValueError(
                "Expected a sequence (batch, steps, features) or a map of rank 4 or 5. "
                f"Received: inputs of rank {rank}"
            )
        return tuple(range(2, rank) if self._features_first(rank) else range(1, rank - 1))

    def _features_first(self, rank):
        return rank > 3 and self.data_format == "channels_first"
