"""Chunks: a network on a batch that is too large for it, a part at a time, with the exact gradient.

The embeddings of a batch are small; what fills the memory is what the network keeps for the
gradient. So it runs twice: once without keeping anything, for the embeddings, and once more, chunk
by chunk, when the gradient of the loss by the embeddings is known (Gao et al., "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup", 2021,
https://arxiv.org/abs/2101.06983). Each chunk begins the second time from the state in which it
began the first time, so that dropout drops the same.
"""

import keras
from keras import ops

from keras_metric.pairwise.blockwise import incoming_gradient


def embed(network, inputs, size, training):
    """What `network(inputs, training=training)` gives, with `size` items in the network at a time.

    Chunks are as equal as they can be. The few places that are left in them are filled with the
    last item again. That changes no gradient, but is seen by a batch normalisation, whose
    statistics are those of a chunk anyway.

    Args:
        network: a built Keras model that gives `(batch, dim)`.
        inputs: tensor, or structure of tensors, `(batch, ...)`.
        size: the largest number of items in a chunk.
        training: whether to train: draw dropout, move averages.
    """
    if not network.variables:
        # Never called before, so without weights: a symbolic call makes them.
        network(keras.tree.map_structure(_symbol, inputs))
    batch = ops.shape(keras.tree.flatten(inputs)[0])[0]
    counted = isinstance(batch, int)
    if counted and batch <= size:
        return network(inputs, training=training)
    number = (batch + size - 1) // size
    number = number if counted else ops.maximum(number, 1)
    rows = (batch + number - 1) // number
    weights = [ops.convert_to_tensor(v) for v in network.trainable_variables]
    states = [ops.convert_to_tensor(v) for v in network.non_trainable_variables]
    still = [ops.stop_gradient(w) for w in weights]

    def items(chunk):
        place = ops.minimum(chunk * rows + ops.arange(rows, dtype="int32"), batch - 1)
        return keras.tree.map_structure(lambda x: ops.take(x, place, axis=0), inputs)

    def run(weights, states, chunk):
        return _pure(network, weights, states, items(chunk), training)

    # The first chunk tells which states change at all: frozen weights, too, are states to Keras,
    # and are not to be kept once for each chunk.
    first, after = run(still, states, 0)
    width = first.shape[-1]
    moving = [i for i, (old, new) in enumerate(zip(states, after)) if new is not old]

    def merged(moved):
        whole = list(states)
        for i, value in zip(moving, moved):
            whole[i] = value
        return whole

    def forward(moved, chunk):
        z, after = run(still, merged(moved), chunk)
        return [after[i] for i in moving], [*moved, z]

    before = [states[i] for i in moving]
    dtypes = [tensor.dtype for tensor in (*before, first)]
    if counted:
        moved, (*starts, z) = _loop(forward, [after[i] for i in moving], 1, number, dtypes)
        z = ops.concatenate([first, ops.reshape(z, (-1, width))], axis=0)
        starts = [ops.concatenate([old[None], new], axis=0) for old, new in zip(before, starts)]
    else:
        # There may be but one chunk, and an empty loop has no shape. What ran above is not used
        # any more, and drops out of the graph.
        moved, (*starts, z) = _loop(forward, before, 0, number, dtypes)
        z = ops.reshape(z, (-1, width))
    for i, value in zip(moving, moved):
        network.non_trainable_variables[i].assign(value)
    z = ops.stop_gradient(z)[:batch]
    if not (training and weights):
        return z

    @ops.custom_gradient
    def with_gradient(z, *weights):
        def grad(*args, upstream=None):
            slopes = ops.cast(incoming_gradient(args, upstream), z.dtype)
            room = ops.zeros((number * rows - batch, width), dtype=z.dtype)
            slopes = ops.concatenate([slopes, room], axis=0)
            slopes = ops.reshape(slopes, (number, rows, width))

            def backward(sums, chunk):
                state = merged([ops.take(start, chunk, axis=0) for start in starts])
                slope = ops.take(slopes, chunk, axis=0)
                parts = _pulled(lambda *w: run(w, state, chunk)[0], still, slope)
                return [a + ops.cast(b, a.dtype) for a, b in zip(sums, parts)], []

            sums, _ = _loop(backward, [ops.zeros_like(w) for w in still], 0, number)
            return (ops.zeros_like(z), *sums)

        return z, grad

    return with_gradient(z, *weights)


def _symbol(tensor):
    return keras.KerasTensor(tensor.shape, dtype=keras.backend.standardize_dtype(tensor.dtype))


def is_slow_when_compiled():
    """Whether XLA runs a loop over chunks many times slower than TensorFlow itself does."""
    return keras.backend.backend() == "tensorflow" and _on_cpu()


def _on_cpu():
    return keras.distribution.list_devices()[0].startswith("cpu")


def _pure(network, weights, states, x, training):
    """Embeddings of `x`, and what the states are after it; nothing is assigned."""
    variables = [*network.trainable_variables, *network.non_trainable_variables]
    mapping = list(zip(variables, [*weights, *states]))
    with keras.StatelessScope(mapping, collect_losses=True) as scope:
        z = network(x, training=training)
    if scope.losses:
        raise ValueError(
            "`chunk_size` cannot be used with layers that add losses of their own, such as an "
            "activity_regularizer: their gradient would be lost. Received: a backbone that added "
            f"{len(scope.losses)} of them. Regularizers of weights are fine."
        )
    return z, [scope.get_current_value(v) for v in network.non_trainable_variables]


def _pulled(function, inputs, slopes):
    """Gradients of sum(function(*inputs) * slopes) by the inputs."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # Copies, for a tensor from outside a loop has another identity inside.
        inputs = [tf.identity(tensor) for tensor in inputs]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            value = function(*inputs)
        return tape.gradient(value, inputs, slopes, tf.UnconnectedGradients.ZERO)
    if backend == "jax":
        import jax

        return jax.vjp(function, *inputs)[1](slopes)
    import torch

    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        return torch.autograd.grad(
            function(*inputs), inputs, slopes, allow_unused=True, materialize_grads=True
        )


def _loop(step, carry, begin, end, dtypes=()):
    """`carry, out = step(carry, i)` for i from `begin` to `end`, strictly one after the other.

    `carry` and `out` are lists of tensors; those of `out` have these `dtypes`.

    Returns:
        The last `carry`, and the `out` of all steps, stacked.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_loop(step, carry, begin, end, dtypes)
    if backend == "jax" and not _on_cpu():
        import jax

        return jax.lax.scan(step, carry, ops.arange(begin, end, dtype="int32"))
    # On a CPU JAX runs convolutions inside a loop many times slower than outside.
    outs = []
    for i in range(begin, end):
        carry, out = step(carry, i)
        outs.append(out)
    return carry, [ops.stack(parts) for parts in zip(*outs)]


def _tensorflow_loop(step, carry, begin, end, dtypes):
    import tensorflow as tf

    def body(i, carry, arrays):
        carry, out = step(carry, i)
        return i + 1, carry, [array.write(i - begin, x) for array, x in zip(arrays, out)]

    arrays = [tf.TensorArray(dtype, size=end - begin) for dtype in dtypes]
    # As many chunks at once as there are threads would keep as much as the whole batch does.
    _, carry, arrays = tf.while_loop(
        lambda i, *_: i < end, body, (begin, carry, arrays), parallel_iterations=1
    )
    return carry, [array.stack() for array in arrays]
