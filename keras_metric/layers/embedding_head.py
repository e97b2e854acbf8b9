"""EmbeddingHead: from what a backbone gives to one vector an item."""

import inspect

import keras
from keras import ops

from keras_metric import distances
from keras_metric._checks import check_choice, check_count, check_flag, check_one_input
from keras_metric._export import export

POOLING = ("average", "max")


@export
class EmbeddingHead(keras.layers.Layer):
    """Pools a map or a sequence, maps it linearly to the embedding, scales it to length 1.

    The models put it behind every backbone. Use it alone to build an encoder by hand: as the
    last layer of a functional model or a `keras.Sequential`.

        z = W * pool(x) + b,   embedding = z / |z|   (a zero vector stays zero)

    A matrix `(batch, features)` is taken as it is; a sequence `(batch, steps, features)` is
    pooled over the steps that its mask keeps; a map of rank 4 or 5 is pooled over its positions.

    Args:
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128: in the
            metric-learning literature the usual size, beyond which recall hardly grows.
        normalize: True (default) scales each vector to length 1, which the default margins of
            the losses assume. False for losses that use the length.
        pooling: "average" (default), "max", a Keras layer that pools to `(batch, features)`,
            or None for a backbone that pools by itself.
        data_format: "channels_last" or "channels_first", where a map has its features. Default
            None: `keras.config.image_data_format()`.
        dtype: default None: float32, or the global policy if that is float64. Squares of
            float16 features overflow beyond 256, so a head in half precision is no saving;
            lengths are taken in float32 even there.
        name: name of the layer.

    Call arguments:
        inputs: tensor of shape `(batch, features)`, `(batch, steps, features)`, or a map.
        mask: boolean `(batch, steps)`, for a sequence. Keras hands it over by itself.

    Returns:
        Tensor of shape `(batch, embedding_dim)`, or `(batch, features)` without a linear layer.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for a number or name out of range, or inputs that are no matrix, sequence
            or map.

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
        # Length of the output; without a linear layer the first input tells.
        self.width = embedding_dim
        # The mask ends here: one vector an item has no steps.
        self.supports_masking = True
        self.linear = None
        if embedding_dim is not None:
            self.linear = keras.layers.Dense(embedding_dim, dtype=self.dtype_policy, name="linear")

    def build(self, input_shape):
        check_one_input(input_shape)
        pools = isinstance(self.pooling, keras.layers.Layer) and len(input_shape) > 2
        # One that comes out of a file, or from another model, has its weights already.
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
                "The backbone must give one vector (batch, features), one sequence "
                "(batch, steps, features) or one map for each item. Received: "
                f"inputs of features.shape={shape}. End it before a layer that reduces "
                "to one number."
            )
        if rank == 2:
            return shape
        if self.pooling is None:
            raise ValueError(
                "`pooling=None` needs a backbone that gives (batch, features). Received: "
                f"features.shape={shape}. Choose pooling='average' or 'max', or end the backbone "
                "with a layer that pools or flattens."
            )
        if isinstance(self.pooling, keras.layers.Layer):
            pooled = tuple(self.pooling.compute_output_shape(shape))
            if len(pooled) != 2:
                raise ValueError(
                    "The layer `pooling` must give (batch, features). Received: "
                    f"pooling={self.pooling.name!r}, which makes {pooled} of {shape}."
                )
            return pooled
        return (shape[0], shape[1] if self._features_first(rank) else shape[-1])

    def _pooling_takes_mask(self):
        return "mask" in inspect.signature(self.pooling.call).parameters

    def _features_first(self, rank):
        return rank > 3 and self.data_format == "channels_first"

    def _pool(self, x, mask):
        rank = len(x.shape)
        if rank == 2:
            return x
        if isinstance(self.pooling, keras.layers.Layer):
            if rank == 3 and mask is not None and self._pooling_takes_mask():
                return self.pooling(x, mask=mask)
            return self.pooling(x)
        if rank == 3 and mask is not None:
            return self._pool_kept_steps(x, ops.expand_dims(mask, -1))
        axes = tuple(range(2, rank) if self._features_first(rank) else range(1, rank - 1))
        return ops.mean(x, axis=axes) if self.pooling == "average" else ops.max(x, axis=axes)

    def _pool_kept_steps(self, x, keep):
        # `where`, not a product: what stands behind the mask may be infinite or NaN.
        if self.pooling == "average":
            count = ops.sum(ops.cast(keep, x.dtype), axis=1)
            return ops.sum(ops.where(keep, x, 0), axis=1) / ops.maximum(count, 1)
        lowest = ops.max(ops.where(keep, x, float("-inf")), axis=1)
        # An item without any step left becomes a zero vector.
        return ops.where(ops.any(keep, axis=1), lowest, 0)


def check_head(embedding_dim, normalize, pooling):
    """Raise unless these arguments make an EmbeddingHead."""
    if embedding_dim is not None:
        check_count("embedding_dim", embedding_dim)
    check_flag("normalize", normalize)
    known = pooling is None or isinstance(pooling, keras.layers.Layer)
    if not known and (not isinstance(pooling, str) or pooling not in POOLING):
        raise ValueError(
            f"`pooling` must be one of {list(POOLING)}, a Keras layer, or None. "
            f"Received: pooling={pooling!r}"
        )
