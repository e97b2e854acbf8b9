"""Gathering a batch over the replicas of `tf.distribute` or the processes of `torch.distributed`.

In both cases each replica gets a part of the batch, while the loss of an item depends on the items
of all replicas. Under `keras.distribution` (JAX) losses get the whole batch, and the compiler
distributes it.
"""

import contextlib
import functools

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

    def part_of_loss(self, value, reduction):
        """What a replica returns of the loss `value` of the whole batch: the parts sum to it."""
        # Keras divides a mean by the number of replicas, but not a sum.
        return value / self.number if reduction == "sum" else value

    def part_of_count(self, number, gathered):
        """What a replica reports of a `number`, which the model adds over the replicas.

        `gathered`: whether `number` counts the items of all replicas.
        """
        return number / self.number if gathered else number

    def share_random_states(self, layers):
        """Do nothing: `tf.distribute` keeps the random states of the replicas equal."""

    def have_equal_weights(self, value):
        """True: the variables of `tf.distribute` are equal on all replicas."""
        return True


class Processes:
    """The process of `torch.distributed` that runs, and its communication with the others.

    Every process computes the loss of the whole batch. In the backward pass an item gets the sum
    of its gradients from all processes. DistributedDataParallel averages the gradients of the
    weights over the processes, which gives the gradient of one process with the whole batch.

    Processes may have unequal parts of a batch, or none. All of them must call the same methods in
    the same order; otherwise they wait for each other.
    """

    def __init__(self, rank, number):
        self.rank = rank
        self.number = number

    def gather(self, rows):
        """The rows of all processes, one process after the other: `(batch of all, ...)`.

        Differentiable: the rows of a process get the sum of their gradients from all processes.
        """
        rows = ops.convert_to_tensor(rows)
        sizes, differentiable = self._sizes(rows)
        if differentiable and not rows.requires_grad:
            # All processes must run the backward pass of the gathering, or some would wait.
            rows = rows.detach().requires_grad_()
        return _torch_gather().apply(rows, sizes, self.rank)

    def total(self, value):
        """Sum of `value` over all processes, the same shape on each; without gradient."""
        import torch

        value = ops.convert_to_tensor(value).detach().clone()
        torch.distributed.all_reduce(value)
        return value

    def positions(self, rows):
        """Positions of this process's `rows` among those of all processes, `(rows,)`."""
        sizes, _ = self._sizes(ops.convert_to_tensor(rows))
        return ops.arange(sizes[self.rank], dtype="int32") + sum(sizes[: self.rank])

    def part_of_loss(self, value, reduction):
        """What a process returns of the loss `value` of the whole batch: all of it."""
        return value

    def part_of_count(self, number, gathered):
        """What a process reports of a `number`: the sum over all processes.

        `gathered`: whether `number` counts the items of all processes.
        """
        return number if gathered else self.total(number)

    def share_random_states(self, layers):
        """Set the random states of `layers` to those of the first process."""
        for layer in layers:
            weights = {id(weight) for weight in layer.weights}
            self.share([state for state in layer.variables if id(state) not in weights])

    def have_equal_weights(self, value):
        """Whether the trainable weights that `value` depends on are equal in all processes."""
        import torch

        device = ops.convert_to_tensor(value).device
        # The difference between processes is compared with the size of the weights.
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for weight in _weights_of(value):
            weight = weight.detach().to(device, torch.float64)
            sums += torch.stack([weight.sum(), weight.abs().sum()])
        of_all = [torch.empty_like(sums) for _ in range(self.number)]
        torch.distributed.all_gather(of_all, sums)
        of_all = torch.stack(of_all)
        difference = (of_all - of_all[0]).abs().max()
        return not bool(difference > 1e-6 * of_all[:, 1].max())

    def average(self, gradients):
        """The means of a list of gradients over all processes; None stays None."""
        import torch

        present = [gradient for gradient in gradients if gradient is not None]
        means = []
        # One message for each dtype, not one for each gradient.
        for dtype in dict.fromkeys(gradient.dtype for gradient in present):
            same = [gradient for gradient in present if gradient.dtype == dtype]
            flat = torch.cat([gradient.detach().reshape(-1) for gradient in same])
            torch.distributed.all_reduce(flat)
            parts = (flat / self.number).split([gradient.numel() for gradient in same])
            means += [(old, part.view_as(old)) for old, part in zip(same, parts)]
        mean_of = {id(old): part for old, part in means}
        return [mean_of.get(id(gradient)) for gradient in gradients]

    def share(self, variables):
        """Set `variables` to their values in the first process."""
        import torch

        for variable in variables:
            value = variable.value.detach().clone()
            torch.distributed.broadcast(value, 0)
            variable.assign(value)

    def _sizes(self, rows):
        """The number of rows of each process, and whether any of them has a gradient.

        Raises if their shapes or dtypes differ.
        """
        import torch

        kinds = [str(dtype) for dtype in _torch_dtypes()]
        # The sum differs for most different shapes.
        items = [size * (i + 1) for i, size in enumerate(rows.shape[1:])]
        dtype = kinds.index(str(rows.dtype))
        mine = [len(rows), rows.requires_grad, dtype, rows.ndim, sum(items)]
        mine = torch.tensor(mine, dtype=torch.int64, device=rows.device)
        of_all = [torch.empty_like(mine) for _ in range(self.number)]
        torch.distributed.all_gather(of_all, mine)
        of_all = torch.stack(of_all).tolist()
        for rank, other in enumerate(of_all):
            if other[2:] != of_all[0][2:]:
                raise ValueError(
                    "All processes of torch.distributed must call the loss with labels, embeddings "
                    "and weights of the same dtype and shape, except for the number of rows. "
                    f"Received: a {kinds[of_all[0][2]]} of rank {of_all[0][3]} in process 0, and "
                    f"a {kinds[other[2]]} of rank {other[3]} in process {rank}; in process "
                    f"{self.rank} the shape is {tuple(rows.shape)}."
                )
        return [numbers[0] for numbers in of_all], any(numbers[1] for numbers in of_all)


@functools.cache
def _torch_dtypes():
    import torch

    dtypes = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    return sorted(dtypes, key=str)


@functools.cache
def _torch_gather():
    """The class of the gathering, made here because other backends do not import torch."""
    import torch

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(context, rows, sizes, rank):
            context.start = sum(sizes[:rank])
            context.rows = sizes[rank]
            padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
            padded[: sizes[rank]] = rows
            of_all = [torch.empty_like(padded) for _ in sizes]
            torch.distributed.all_gather(of_all, padded)
            return torch.cat([part[:size] for part, size in zip(of_all, sizes)])

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context, gradient):
            gradient = gradient.contiguous().clone()
            torch.distributed.all_reduce(gradient)
            return gradient[context.start :][: context.rows], None, None

    return Gather


def _weights_of(value):
    """The trainable weights that the torch tensor `value` depends on, without sharded ones."""
    import torch

    nodes, found, weights = [value.grad_fn], set(), []
    while nodes:
        node = nodes.pop()
        if node is None or node in found:
            continue
        found.add(node)
        weight = getattr(node, "variable", None)
        # Processes hold different parts of a sharded weight.
        sharded = hasattr(weight, "device_mesh") or type(weight).__name__ == "FlatParameter"
        if isinstance(weight, torch.nn.Parameter) and not sharded:
            weights.append(weight)
        nodes.extend(following for following, _ in node.next_functions)
    return weights


def current():
    """The `Replicas` or `Processes` of a computation, or None if it has the whole batch."""
    backend = keras.backend.backend()
    if backend == "torch":
        return _processes()
    if backend != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return Replicas(context)


def _processes():
    """The `Processes` of a training step on torch, or None."""
    import torch

    distributed = torch.distributed
    # Without gradients the loss is no training step: often one process evaluates alone, and Keras
    # builds models on tensors without values.
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    if not torch.is_grad_enabled() or distributed.get_world_size() == 1:
        return None
    return Processes(distributed.get_rank(), distributed.get_world_size())


def ids_of_trial(labels):
    """`labels`; as integers while Keras builds a distributed model.

    For that Keras averages a batch over the replicas, also the labels, which makes them floats.
    """
    if keras.backend.backend() != "tensorflow" or not ops.is_tensor(labels):
        return labels
    import tensorflow as tf

    trial = tf.distribute.in_cross_replica_context() and not tf.executing_eagerly()
    return ops.cast(labels, "int32") if trial and labels.dtype.is_floating else labels


@contextlib.contextmanager
def averaged_gradients(model):
    """In the block, processes of torch.distributed train `model` on their averaged gradients.

    Keras's own training on torch applies the gradients of one process.
    """
    group = _processes() if keras.backend.backend() == "torch" else None
    if group is None:
        yield
        return
    optimizer, apply = model.optimizer, model.optimizer.apply

    def apply_averages(gradients, variables=None):
        return apply(group.average(gradients), variables)

    optimizer.apply = apply_averages
    try:
        yield
    finally:
        del optimizer.apply


def share_weights(model):
    """Set the weights of `model` and its optimizer to those of the first process on torch."""
    group = _processes() if keras.backend.backend() == "torch" else None
    if group is not None:
        group.share([*model.weights, *model.optimizer.variables])


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
