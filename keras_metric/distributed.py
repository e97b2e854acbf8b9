"""Replicas: one batch on several devices, and what a loss on one of them has to know of the rest.

Under `tf.distribute` every replica sees its own share of the batch and nothing else, while the loss
of an item depends on all the others. Under `keras.distribution` (JAX) there is one batch, which the
compiler spreads, and nothing to do here.
"""

import keras
from keras import ops


class Replicas:
    """The replica that runs now, among those it shares a batch with.

    Replicas may have unequal shares, as in the last batch of an epoch, also none at all. All of
    them must ask for the same things in the same order, or they wait for each other for ever.
    """

    def __init__(self, context):
        self._context = context

    @property
    def number(self):
        """How many replicas there are."""
        return self._context.num_replicas_in_sync

    def gather(self, rows):
        """The rows of all replicas, one replica after the other: `(batch of all, ...)`.

        Differentiable: what a replica put in gets the sum of the gradients that all replicas have
        for it.
        """
        import tensorflow as tf

        rows = tf.identity(ops.convert_to_tensor(rows))
        known = rows.shape[1:]
        if not rows.device:
            # In a graph of several workers with one device each no tensor has one until it is
            # given it, and the gathering asks for it.
            with tf.device(self._context.strategy.extended.worker_devices[0]):
                rows = tf.identity(rows)
        gathered = self._context.all_gather(rows, axis=0)
        # `all_gather` drops the static shape; the losses read the number of branches and the
        # embedding length from it.
        gathered.set_shape([None, *known])
        return gathered

    def total(self, value):
        """Sum of `value` over all replicas, the same shape on each."""
        return self._context.all_reduce("SUM", ops.convert_to_tensor(value))

    def places(self, rows):
        """Where this replica's `rows` stand among those of all: numbers `(rows,)`."""
        mine = ops.shape(rows)[0]
        sizes = self.gather(ops.reshape(ops.cast(mine, "int32"), (1,)))
        before = ops.cast(ops.arange(self.number), "int32") < self._context.replica_id_in_sync_group
        start = ops.sum(ops.where(before, sizes, 0))
        return ops.arange(mine, dtype="int32") + start


def current():
    """The `Replicas` around a computation, or None where it has the whole batch."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return Replicas(context)


def ids_of_trial(labels):
    """`labels`; as integers where Keras tries a model before it distributes it.

    Keras averages a batch over the replicas for that, the labels too, which makes them floats.
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
    """Whether this process speaks for all that train `model` together; the first of them does."""
    strategy = _workers(model)
    if strategy is None:
        return True
    task = strategy.cluster_resolver
    return task.task_type == "chief" or (task.task_type == "worker" and not task.task_id)


def predict(model, x, batch_size):
    """`model.predict` as a NumPy array; where several workers train, by this one alone.

    There `predict` itself waits until all of them take part.
    """
    if not several_workers(model):
        return model.predict(x, batch_size=batch_size, verbose=0)
    rows = len(keras.tree.flatten(x)[0])
    parts = [
        model(keras.tree.map_structure(lambda part, i=i: part[i : i + batch_size], x))
        for i in range(0, rows, batch_size)
    ]
    return ops.convert_to_numpy(ops.concatenate(parts, axis=0))
