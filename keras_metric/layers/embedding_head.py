"""EmbeddingHead: pooling, a linear layer and L2 normalization of backbone features."""

import inspect

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_count, check_flag, check_one_input
from keras_metric.layers.position_masks import position_mask

POOLING = ("average", "max")


@export
class EmbeddingHead(keras.layers.Layer):
    """Pools backbone features, maps them linearly to the embedding, and scales it to length 1.

    The models add it to every backbone. Use it directly as the last layer of a functional model or
    a `keras.Sequential`.

        z = W * pool(x) + b,   embedding = z / |z|   (a zero vector stays zero)

    A matrix `(batch, features)` is not pooled, a sequence `(batch, steps, features)` is pooled over
    its unmasked steps, and a map of rank 4 or 5 over its positions. An item without unmasked steps
    is pooled to a zero vector.

    Args:
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128, the usual size
            in the literature; recall hardly increases beyond it.
        normalize: True (default) scales each vector to length 1, as the default margins of the
            losses assume. False for losses that use the length.
        pooling: "average" (default), "max", a Keras layer that pools to `(batch, features)`, or
            None for a backbone that pools. A layer receives the mask if its `call` has an argument
            `mask`.
        data_format: "channels_last" or "channels_first", the axis of the features of a map. Default
            None: `keras.config.image_data_format()`.
        dtype: default None: float32, or the global policy if that is float64. Squares of float16
            features overflow above 256; lengths are computed in float32 for any dtype.
        name: name of the layer.

    Call arguments:
        inputs: tensor of shape `(batch, features)`, `(batch, steps, features)`, or a map.
        mask: boolean or integer `(batch, steps)`, for a sequence; 0 marks padding. Keras passes
            the mask of layers such as `Embedding(mask_zero=True)` and `Masking` automatically. The
            models and `Encoder` pass the `padding_mask` or `attention_mask` of a pretrained text
            model; elsewhere call `EmbeddingHead()(sequence, mask=padding_mask)`.

    Returns:
        Tensor of shape `(batch, embedding_dim)`, or `(batch, features)` without a linear layer.

    Raises:
        ValueError: for a number or name out of range, or inputs of another rank than 2 to 5.

    Example:
    >>> import numpy as np
    >>> from keras_metric.layers import EmbeddingHead
    >>> head = EmbeddingHead(embedding_dim=None)
    >>> vectors = head(np.array([[3.0, 4.0], [0.0, 0.0]]))
    >>> np.asarray(vectors, "float64").round(3).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """

    def __init__(
        self,
        embedding_dim=128,
        normalize=True,
        pooling="average",
        data_format=None,
        dtype=None,
        name=None,
        **kwargs,
    ):
        if dtype is None and keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16"):
            dtype = "float32"
        super().__init__(dtype=dtype, name=name, **kwargs)
        check_head(embedding_dim, normalize, pooling)
        if data_format is None:
            data_format = keras.config.image_data_format()
        check_choice("data_format", data_format, ("channels_first", "channels_last"))
        self.embedding_dim = embedding_dim
        self.normalize = normalize
        self.pooling = pooling
        self.data_format = data_format
        # Length of the output; without a linear layer `build` sets it.
        self.width = embedding_dim
        # The output has no steps, and so no mask.
        self.supports_masking = True
        self.linear = None
        if embedding_dim is not None:
            self.linear = keras.layers.Dense(embedding_dim, dtype=self.dtype_policy, name="linear")

    def build(self, input_shape):
        check_one_input(input_shape)
        pools = isinstance(self.pooling, keras.layers.Layer) and len(input_shape) > 2
        # A layer that was loaded, or is part of another model, is built already.
        if pools and not self.pooling.built:
            self.pooling.build(input_shape)
        features = self._pooled_shape(tuple(input_shape))[-1]
        if self.linear is None:
            self.width = features
        else:
            self.linear.build((None, features))

    def call(self, inputs, mask=None):
        x = inputs
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
            x = ops.cast(x, self.compute_dtype)
        x = self._pool(x, mask)
        if self.linear is not None:
            x = self.linear(x)
        if self.normalize:
            wide = distances.at_least_float32(self.compute_dtype)
            x = distances.unit(ops.cast(x, wide))
        return x

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        batch, features = self._pooled_shape(tuple(input_shape))
        return (batch, self.embedding_dim or features)

    def get_config(self):
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "normalize": self.normalize,
            "pooling": keras.saving.serialize_keras_object(self.pooling),
            "data_format": self.data_format,
        }

    @classmethod
    def from_config(cls, config):
        pooling = keras.saving.deserialize_keras_object(config["pooling"])
        return super().from_config({**config, "pooling": pooling})

    def _pooled_shape(self, shape):
        rank = len(shape)
        if rank not in (2, 3, 4, 5):
            raise ValueError(
                "The backbone must return one vector (batch, features), one sequence "
                "(batch, steps, features) or one map for each item. Received: inputs of "
                f"features.shape={shape}. Remove the layer that reduces an item to one number."
            )
        if rank == 2:
            return shape
        if self.pooling is None:
            raise ValueError(
                "`pooling=None` needs a backbone that returns (batch, features). Received: "
                f"features.shape={shape}. Choose pooling='average' or 'max', or end the backbone "
                "with a layer that pools or flattens."
            )
        if isinstance(self.pooling, keras.layers.Layer):
            pooled = tuple(self.pooling.compute_output_shape(shape))
            if len(pooled) != 2:
                raise ValueError(
                    "The layer `pooling` must return (batch, features). Received: "
                    f"pooling={self.pooling.name!r}, which maps {shape} to {pooled}."
                )
            return pooled
        return (shape[0], shape[1] if self._features_first(rank) else shape[-1])

    @property
    def takes_mask(self):
        """Whether the pooling can exclude padding."""
        return (
            not isinstance(self.pooling, keras.layers.Layer)
            or isinstance(self.pooling, keras.layers.GlobalMaxPooling1D)
            or "mask" in inspect.signature(self.pooling.call).parameters
        )

    def _features_first(self, rank):
        return rank > 3 and self.data_format == "channels_first"

    def _pool(self, x, mask):
        rank = len(x.shape)
        if rank == 2:
            return x
        first = self._features_first(rank)
        if isinstance(self.pooling, keras.layers.Layer):
            return self._pool_by_layer(x, mask, first)
        axes = tuple(range(2, rank) if first else range(1, rank - 1))
        keep = position_mask(mask, x, first)
        if keep is not None:
            return self._pool_kept(x, keep, axes)
        return ops.mean(x, axis=axes) if self.pooling == "average" else ops.max(x, axis=axes)

    def _pool_by_layer(self, x, mask, first):
        keep = position_mask(mask, x, first) if self.takes_mask else None
        if keep is None:
            return self.pooling(x)
        mask = ops.cast(mask, "bool")
        some = ops.any(mask, axis=tuple(range(1, len(mask.shape))), keepdims=True)
        if isinstance(self.pooling, keras.layers.GlobalMaxPooling1D):
            # This layer has no argument `mask`.
            pooled = self.pooling(ops.where(keep, x, float("-inf")))
        else:
            # The average over no steps is 0/0: pool such an item over all steps, then set it to 0.
            pooled = self.pooling(x, mask=ops.logical_or(mask, ops.logical_not(some)))
        return ops.where(ops.reshape(some, (-1, 1)), pooled, 0)

    def _pool_kept(self, x, keep, axes):
        # `where` instead of a product, since masked values may be infinite or NaN.
        if self.pooling == "average":
            # A sum over many positions overflows in half precision.
            wide = ops.cast(x, distances.at_least_float32(x.dtype))
            count = ops.sum(ops.cast(keep, wide.dtype), axis=axes)
            mean = ops.sum(ops.where(keep, wide, 0), axis=axes) / ops.maximum(count, 1)
            return ops.cast(mean, x.dtype)
        highest = ops.max(ops.where(keep, x, float("-inf")), axis=axes)
        # An item without unmasked positions becomes a zero vector.
        return ops.where(ops.any(keep, axis=axes), highest, 0)


def check_head(embedding_dim, normalize, pooling):
    """Raise unless these arguments make an EmbeddingHead."""
    if embedding_dim is not None:
        check_count("embedding_dim", embedding_dim)
    check_flag("normalize", normalize)
    is_layer = pooling is None or isinstance(pooling, keras.layers.Layer)
    if not is_layer and (not isinstance(pooling, str) or pooling not in POOLING):
        raise ValueError(
            f"`pooling` must be one of {list(POOLING)}, a Keras layer, or None. "
            f"Received: pooling={pooling!r}"
        )
