"""CrossBatchMemory: the embeddings of past batches, for losses to compare a batch with."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_count
from keras_metric.pairwise.class_pairs import Remembered


@export
class CrossBatchMemory(keras.layers.Layer):
    """A queue of embeddings of past batches: thousands of negatives for a small batch.

    Reach for it where the memory of the device ends before the batch has enough negatives: a batch
    of 32 is compared with 8,192 items, at the price of one matrix product. Give it to a loss that
    `EmbeddingModel` trains:

        model.compile("adam", losses.ContrastiveLoss(memory=layers.CrossBatchMemory(8192)))

    The loss compares each item of the batch with all of the queue, which holds the batch itself
    and, behind it, what came before; never an item with itself. Gradients flow through the batch,
    not through the past. The model fills the queue in training alone, and saves it with its
    position, so that a loaded model goes on where the saved one stopped.

    Past embeddings are of a slightly older encoder. They drift slowly once the first phase of
    training is over, which `warmup` waits for.

    Args:
        size: how many items the queue holds, at least 1 and not less than a batch; of a larger
            batch the last `size` items are kept. Memory is size * (embedding_dim + 1) * 4 bytes,
            and that of a loss O(batch * size).
        warmup: training steps for which past batches do not count yet, at least 0. Default 0;
            the paper takes 1,000.
        name: name of the layer.

    Raises:
        TypeError: for an argument of another type.
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
        # Vectors of the loss's own precision: the queue is a small part of a model's memory.
        wide = distances.dtype_of_weights()
        super().__init__(**{"dtype": wide, "name": name, "trainable": False, **kwargs})
        check_count("size", size)
        check_count("warmup", warmup, at_least=0)
        self.size = size
        self.warmup = warmup

    @property
    def count(self):
        """How many items the queue holds by now."""
        return int(self.filled.numpy()) if self.built else 0

    def build(self, input_shape):
        def state(name, shape, dtype):
            # Replicas see the same global batch, so each keeps the same queue.
            return self.add_weight(
                shape,
                "zeros",
                dtype=dtype,
                trainable=False,
                aggregation="only_first_replica",
                name=name,
            )

        self.embeddings = state("embeddings", (self.size, input_shape[-1]), self.variable_dtype)
        # Ids that only tensors can hold; JAX has none of 64 bits.
        wide = "int32" if keras.backend.backend() == "jax" else "int64"
        self.labels = state("labels", (self.size,), wide)
        self.position = state("position", (), "int32")
        self.filled = state("filled", (), "int32")
        self.steps = state("steps", (), "int32")

    def extended(self, labels, embeddings):
        """The queue with a batch put in, as references of a loss, and what to keep of it.

        Args:
            labels: class ids `(batch,)`.
            embeddings: `(batch, dim)`.

        Returns:
            `(embeddings, Remembered)` of the queue with the batch in it, through which gradients
            reach the batch; and a list of (variable, value), the queue's new state.
        """
        batch = ops.shape(embeddings)[0]
        number = ops.arange(batch, dtype="int32")
        # Of a batch larger than the queue the last items stay.
        kept = number >= batch - self.size
        slot = ops.mod(self.position + number, self.size)
        own = ops.where(kept, slot, -1)
        # What is not kept goes to a place behind the queue, which is cut off again.
        place = ops.where(kept, slot, self.size)[:, None]

        def put(old, new):
            longer = ops.pad(old, [(0, 1), *[(0, 0)] * (len(old.shape) - 1)])
            return ops.scatter_update(longer, place, ops.cast(new, old.dtype))[: self.size]

        old = ops.cast(ops.convert_to_tensor(self.embeddings), embeddings.dtype)
        queue = put(ops.stop_gradient(old), embeddings)
        ids = put(ops.convert_to_tensor(self.labels), labels)
        filled = ops.minimum(self.filled + batch, self.size)
        everywhere = ops.arange(self.size, dtype="int32")
        held = everywhere < filled
        if self.warmup:
            now = put(ops.zeros((self.size,), dtype="int32"), ops.ones_like(number))
            late = self.steps >= self.warmup
            held = ops.logical_and(held, ops.logical_or(late, now > 0))
        state = [
            (self.embeddings, queue),
            (self.labels, ids),
            (self.position, ops.mod(self.position + batch, self.size)),
            (self.filled, filled),
            # Counts no further than it is asked for.
            (self.steps, ops.minimum(self.steps + 1, self.warmup)),
        ]
        return (queue, Remembered(ids, held, own)), state

    def get_config(self):
        return {**super().get_config(), "size": self.size, "warmup": self.warmup}
