"""Gradient caching: compute the exact gradient of a large batch with the memory of a small one.

The activations that a network stores for its gradient need most of the memory. The network
therefore runs twice on each chunk of the batch: first without storing activations, to compute the
embeddings; then to compute the gradient of the weights from the gradient of the loss with respect
to the embeddings. The second run starts from the same state as the first (seeds, statistics), so
that dropout is identical.

Reference: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
2021, https://arxiv.org/abs/2101.06983
"""

import keras
from keras import ops

from keras_metric.pairwise.blockwise import incoming_gradient


def embed(network, inputs, size, training):
    """Compute `network(inputs, training=training)` for at most `size` items at a time.

    Chunks are of equal size. The last one is padded with copies of the last item. These do not
    change the gradient, but they are part of the statistics of batch normalization.

    Args:
        network: a built Keras model that returns `(batch, dim)`.
        inputs: tensor, or structure of tensors, `(batch, ...)`.
        size: the largest number of items in a chunk.
        training: whether to apply dropout and to update moving averages.
    """
    if not network.variables:
        # The network has not been called yet; a symbolic call creates its weights.
        network(keras.tree.map_structure(_symbol, inputs))
    batch = ops.shape(keras.tree.flatten(inputs)[0])[0]
    is_static = isinstance(batch, int)
    if is_static and batch <= size:
        return network(inputs, training=training)
    num_chunks = (batch + size - 1) // size
    num_chunks = num_chunks if is_static else ops.maximum(num_chunks, 1)
    rows = (batch + num_chunks - 1) // num_chunks
    weights = [ops.convert_to_tensor(v) for v in network.trainable_variables]
    states = [ops.convert_to_tensor(v) for v in network.non_trainable_variables]
    constants = [ops.stop_gradient(w) for w in weights]

    def items(chunk):
        positions = ops.minimum(chunk * rows + ops.arange(rows, dtype="int32"), batch - 1)
        return keras.tree.map_structure(lambda x: ops.take(x, positions, axis=0), inputs)

    def run(weights, states, chunk):
        return _stateless_call(network, weights, states, items(chunk), training)

    # The states that change in the first chunk are stored for each chunk. The others, such as
    # frozen weights, are not.
    first, after = run(constants, states, 0)
    width = first.shape[-1]
    changing = [i for i, (old, new) in enumerate(zip(states, after)) if new is not old]

    def all_states(changed):
        merged = list(states)
        for i, value in zip(changing, changed):
            merged[i] = value
        return merged

    def forward(changed, chunk):
        z, after = run(constants, all_states(changed), chunk)
        return [after[i] for i in changing], [*changed, z]

    before = [states[i] for i in changing]
    dtypes = [tensor.dtype for tensor in (*before, first)]
    if is_static:
        changed, (*starts, z) = _loop(forward, [after[i] for i in changing], 1, num_chunks, dtypes)
        z = ops.concatenate([first, ops.reshape(z, (-1, width))], axis=0)
        starts = [ops.concatenate([old[None], new], axis=0) for old, new in zip(before, starts)]
    else:
        # A loop from 1 could be empty and would have no static shape. TensorFlow removes the first
        # run from the graph because its results are not used.
        changed, (*starts, z) = _loop(forward, before, 0, num_chunks, dtypes)
        z = ops.reshape(z, (-1, width))
    for i, value in zip(changing, changed):
        network.non_trainable_variables[i].assign(value)
    z = ops.stop_gradient(z)[:batch]
    if not (training and weights):
        return z

    @ops.custom_gradient
    def with_gradient(z, *weights):
        def grad(*args, upstream=None):
            z_gradient = ops.cast(incoming_gradient(args, upstream), z.dtype)
            padding = ops.zeros((num_chunks * rows - batch, width), dtype=z.dtype)
            z_gradient = ops.concatenate([z_gradient, padding], axis=0)
            z_gradient = ops.reshape(z_gradient, (num_chunks, rows, width))

            def backward(sums, chunk):
                state = all_states([ops.take(start, chunk, axis=0) for start in starts])
                upstream = ops.take(z_gradient, chunk, axis=0)
                parts = _backward(lambda *w: run(w, state, chunk)[0], constants, upstream)
                return [a + ops.cast(b, a.dtype) for a, b in zip(sums, parts)], []

            sums, _ = _loop(backward, [ops.zeros_like(w) for w in constants], 0, num_chunks)
            return (ops.zeros_like(z), *sums)

        return z, grad

    return with_gradient(z, *weights)


def _symbol(tensor):
    return keras.KerasTensor(tensor.shape, dtype=keras.backend.standardize_dtype(tensor.dtype))


def is_slow_when_compiled():
    """Return whether XLA runs a loop over chunks many times slower than TensorFlow without XLA."""
    return keras.backend.backend() == "tensorflow" and _on_cpu()


def _on_cpu():
    return keras.distribution.list_devices()[0].startswith("cpu")


def _stateless_call(network, weights, states, x, training):
    """Return the embeddings of `x` and the new states, without assigning variables."""
    variables = [*network.trainable_variables, *network.non_trainable_variables]
    mapping = list(zip(variables, [*weights, *states]))
    with keras.StatelessScope(mapping, collect_losses=True) as scope:
        z = network(x, training=training)
    if scope.losses:
        raise ValueError(
            "`chunk_size` does not support layers that add losses, such as an "
            "activity_regularizer: their gradient would be lost. Received: a backbone with "
            f"{len(scope.losses)} added losses. Weight regularizers are supported."
        )
    return z, [scope.get_current_value(v) for v in network.non_trainable_variables]


def _backward(function, inputs, upstream):
    """Return the gradients of sum(function(*inputs) * upstream) with respect to the inputs."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # The tape does not recognize a tensor from outside a loop; copies are recognized.
        inputs = [tf.identity(tensor) for tensor in inputs]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            value = function(*inputs)
        return tape.gradient(value, inputs, upstream, tf.UnconnectedGradients.ZERO)
    if backend == "jax":
        import jax

        return jax.vjp(function, *inputs)[1](upstream)
    import torch

    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        return torch.autograd.grad(
            function(*inputs), inputs, upstream, allow_unused=True, materialize_grads=True
        )


def _loop(step, carry, begin, end, dtypes=()):
    """Compute `carry, out = step(carry, i)` for i in range(begin, end), sequentially.

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
    # On a CPU, JAX runs convolutions in `scan` many times slower than in an unrolled loop.
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
    # Parallel iterations would need the memory of several chunks.
    _, carry, arrays = tf.while_loop(
        lambda i, *_: i < end, body, (begin, carry, arrays), parallel_iterations=1
    )
    return carry, [array.stack() for array in arrays]
