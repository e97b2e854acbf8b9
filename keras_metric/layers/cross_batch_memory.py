"""CrossBatchMemory: a queue of the embeddings of past batches, used by losses."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_count
from keras_metric.pairwise.class_pairs import Remembered


@export
class CrossBatchMemory(keras.layers.Layer):
    """A queue of embeddings of past batches: thousands of negatives for a small batch.

    Use it where device memory limits the batch to too few negatives: a batch of 32 is compared with
    8,192 items for the cost of one matrix product. Pass it to a loss that `EmbeddingModel` trains:

        model.compile("adam", losses.ContrastiveLoss(memory=layers.CrossBatchMemory(8192)))

    The loss compares each item of the batch with all other items of the queue, which contains the
    batch itself and the batches before it. Gradients flow through the batch only. The model updates
    the queue during training only, and saves it with its position, so that a loaded model continues
    where the saved one stopped.

    Past embeddings come from slightly older weights of the encoder. They drift slowly after the
    first phase of training; exclude that phase by `warmup`.

    Args:
        size: number of items in the queue, at least 1 and at least a batch; of a larger batch the
            last `size` items are kept. The queue takes size * (embedding_dim + 1) * 4 bytes, a loss
            O(batch * size).
        warmup: number of training steps without past batches, at least 0. Default 0; 1,000 in the
            paper.
        name: name of the layer.

    Raises:
        ValueError: for a number out of its range.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric
    >>> memory = keras_metric.layers.CrossBatchMemory(64)
    >>> model = keras_metric.EmbeddingModel(keras.layers.Dense(8), embedding_dim=4)
    >>> model.compile("sgd", keras_metric.losses.ContrastiveLoss(memory=memory))
    >>> x, y = np.random.default_rng(0).normal(size=(48, 5)), np.arange(48) % 6
    >>> history = model.fit(x, y, batch_size=16, epochs=1, verbose=0)
    >>> memory.count
    48

    Reference:
        Wang, Zhang, Huang and Scott, "Cross-Batch Memory for Embedding Learning", 2020,
        https://arxiv.org/abs/1912.06798
    """

    def __init__(self, size, warmup=0, name=None, **kwargs):
        # The precision of the losses: the queue is a small part of a model's memory.
        wide = distances.dtype_of_weights()
        super().__init__(**{"dtype": wide, "name": name, "trainable": False, **kwargs})
        check_count("size", size)
        check_count("warmup", warmup, at_least=0)
        self.size = size
        self.warmup = warmup

    @property
    def count(self):
        """Number of items in the queue."""
        return int(self.filled.numpy()) if self.built else 0

    def build(self, input_shape):
        def state(name, shape, dtype):
            # Replicas gather the same global batch, so each keeps the same queue.
            settings = {"trainable": False, "aggregation": "only_first_replica", "name": name}
            return self.add_weight(shape, "zeros", dtype=dtype, **settings)

        self.embeddings = state("embeddings", (self.size, input_shape[-1]), self.variable_dtype)
        # JAX has no 64-bit integers by default.
        wide = "int32" if keras.backend.backend() == "jax" else "int64"
        self.labels = state("labels", (self.size,), wide)
        self.position = state("position", (), "int32")
        self.filled = state("filled", (), "int32")
        self.steps = state("steps", (), "int32")

    def extended(self, labels, embeddings):
        """Return the queue with a batch added, as references of a loss, and its new state.

        Args:
            labels: class ids `(batch,)`.
            embeddings: `(batch, dim)`.

        Returns:
            `(embeddings, Remembered)` of the queue with the batch in it, with gradients to the
            batch; and a list of (variable, value), the new state of the queue.
        """
        batch = ops.shape(embeddings)[0]
        number = ops.arange(batch, dtype="int32")
        # If the batch is larger than the queue, its last items are kept.
        kept = number >= batch - self.size
        slot = ops.mod(self.position + number, self.size)
        own = ops.where(kept, slot, -1)
        # The other items are written to an extra row after the queue, which is removed again.
        target = ops.where(kept, slot, self.size)[:, None]

        def put(old, new):
            longer = ops.pad(old, [(0, 1), *[(0, 0)] * (len(old.shape) - 1)])
            return ops.scatter_update(longer, target, ops.cast(new, old.dtype))[: self.size]

        old = ops.cast(ops.convert_to_tensor(self.embeddings), embeddings.dtype)
        queue = put(ops.stop_gradient(old), embeddings)
        ids = put(ops.convert_to_tensor(self.labels), labels)
        filled = ops.minimum(self.filled + batch, self.size)
        held = ops.arange(self.size, dtype="int32") < filled
        if self.warmup:
            in_batch = put(ops.zeros((self.size,), dtype="int32"), ops.ones_like(number)) > 0
            is_warm = self.steps >= self.warmup
            held = ops.logical_and(held, ops.logical_or(is_warm, in_batch))
        state = [
            (self.embeddings, queue),
            (self.labels, ids),
            (self.position, ops.mod(self.position + batch, self.size)),
            (self.filled, filled),
            # Stops at `warmup`, so that it cannot overflow.
            (self.steps, ops.minimum(self.steps + 1, self.warmup)),
        ]
        return (queue, Remembered(ids, held, own)), state

    def get_config(self):
        return {**super().get_config(), "size": self.size, "warmup": self.warmup}
