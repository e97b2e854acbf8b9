"""Gathering a batch over the replicas of `tf.distribute`, and several processes.

Under `tf.distribute` each replica gets a part of the batch, while the loss of an item depends on
the items of all replicas. Under `keras.distribution` (JAX) losses get the whole batch, and the
compiler distributes it.
"""

import keras
from keras import ops


class Replicas:
    """The running replica, and its communication with the other replicas of the batch.

    Replicas may have unequal parts of a batch, as in the last batch of an epoch, or none. All of
    them must call the same methods in the same order; otherwise they wait for each other forever.
    """

    def __init__(self, context):
        self._context = context

    @property
    def number(self):
        """How many replicas there are."""
        return self._context.num_replicas_in_sync

    def gather(self, rows):
        """The rows of all replicas, one replica after the other: `(batch of all, ...)`.

        Differentiable: the rows of a replica get the sum of their gradients on all replicas.
        """
        import tensorflow as tf

        rows = tf.identity(ops.convert_to_tensor(rows))
        shape = rows.shape[1:]
        if not rows.device:
            # `all_gather` requires a device. In a graph of several workers with one device each,
            # tensors have none by default.
            with tf.device(self._context.strategy.extended.worker_devices[0]):
                rows = tf.identity(rows)
        gathered = self._context.all_gather(rows, axis=0)
        # `all_gather` drops the static shape, which has the number of branches and the embedding
        # length.
        gathered.set_shape([None, *shape])
        return gathered

    def total(self, value):
        """Sum of `value` over all replicas, the same shape on each."""
        return self._context.all_reduce("SUM", ops.convert_to_tensor(value))

    def positions(self, rows):
        """Positions of this replica's `rows` among those of all replicas, `(rows,)`."""
        mine = ops.shape(rows)[0]
        sizes = self.gather(ops.reshape(ops.cast(mine, "int32"), (1,)))
        before = ops.cast(ops.arange(self.number), "int32") < self._context.replica_id_in_sync_group
        start = ops.sum(ops.where(before, sizes, 0))
        return ops.arange(mine, dtype="int32") + start


def current():
    """The `Replicas` of a computation, or None if it has the whole batch."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return Replicas(context)


def ids_of_trial(labels):
    """`labels`; as integers while Keras builds a distributed model.

    For that Keras averages a batch over the replicas, also the labels, which makes them floats.
    """
    if keras.backend.backend() != "tensorflow" or not ops.is_tensor(labels):
        return labels
    import tensorflow as tf

    trial = tf.distribute.in_cross_replica_context() and not tf.executing_eagerly()
    return ops.cast(labels, "int32") if trial and labels.dtype.is_floating else labels


def _workers(model):
    """The strategy of several processes that `model` was made in, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    strategy = getattr(model, "distribute_strategy", None)
    return strategy if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) else None


def several_workers(model):
    """Whether several processes train `model` together under tf.distribute."""
    return _workers(model) is not None


def is_chief(model):
    """Whether this process is the chief, the first of those that train `model` together."""
    strategy = _workers(model)
    if strategy is None:
        return True
    task = strategy.cluster_resolver
    return task.task_type == "chief" or (task.task_type == "worker" and not task.task_id)


def predict(model, x, batch_size):
    """`model.predict` as a NumPy array, by this process only.

    If several workers train the model, Keras's `predict` waits until all of them call it.
    """
    if not several_workers(model):
        return model.predict(x, batch_size=batch_size, verbose=0)
    rows = len(keras.tree.flatten(x)[0])
    parts = [
        model(keras.tree.map_structure(lambda part, i=i: part[i : i + batch_size], x))
        for i in range(0, rows, batch_size)
    ]
    return ops.convert_to_numpy(ops.concatenate(parts, axis=0))
