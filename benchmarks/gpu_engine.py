"""Worker process of the GPU benchmark: losses and training steps of one engine.

The benchmarks start it:  python benchmarks/gpu_engine.py jax gpu
Times are read after the device has finished. TensorFloat-32 is disabled in all frameworks, so that
all compute the same.
"""

import os
import sys
import time

import engine
import fit_engine

from keras_metric_startup import hide_tensorflow_startup_messages

ENGINES = fit_engine.ENGINES


def prepare(backend, device):
    """Set the environment and the precision; call this before any computation."""
    os.environ["KERAS_BACKEND"] = backend
    hide_tensorflow_startup_messages()
    # The engines share the device: disable preallocation of all its memory.
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if device == "cpu":
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    else:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")


def device_name(backend):
    """Return the name of the GPU in the framework, or None."""
    if backend == "tensorflow":
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        return tf.config.experimental.get_device_details(found[0])["device_name"] if found else None
    if backend == "jax":
        import jax

        found = [device for device in jax.devices() if device.platform != "cpu"]
        return found[0].device_kind if found else None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def peak_bytes(backend):
    """Return the peak device memory of this process in bytes, or None if unknown."""
    if device_name(backend) is None:
        return None
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    if backend == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    import torch

    return torch.cuda.max_memory_allocated()


def loss_step(name, backend, case):
    """Return a function that computes loss and gradient once and waits for the device."""
    if name == "pml":
        function = engine.pml_function(case)
    elif case["loss"] == "gemm":
        function = engine.gemm_function(case)
    else:
        function = engine.our_function(case)
    x, y, _, _ = engine.data(**case["data"])
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def step(x, y):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = function(x, y)
            return tape.gradient(loss, x)

        x, y = tf.constant(x), tf.constant(y)
        # Read one number only, to exclude the time of copying the gradient.
        return lambda: step(x, y)[0, 0].numpy()
    if backend == "jax":
        import jax

        step = jax.jit(jax.grad(function))
        x, y = jax.numpy.asarray(x), jax.numpy.asarray(y)
        return lambda: step(x, y).block_until_ready()
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = torch.tensor(x, device=device), torch.tensor(y, device=device)

    def step():
        leaf = x.clone().requires_grad_()
        function(leaf, y).backward()
        return leaf.grad[0, 0].item()

    return step


def fit_turn(name, backend, case):
    """Return a function that trains for a turn and returns the seconds per step."""
    if name == "pml":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        turn = fit_engine.on_torch(case["step"], {**case, "device": device})
    else:
        import keras

        keras.config.set_dtype_policy("mixed_float16" if case["half"] else "float32")
        turn = fit_engine.on_keras(case["step"], case)
        keras.config.set_dtype_policy("float32")
    return lambda: turn()[0] / case["steps"]


def main():
    name, device = sys.argv[1:]
    backend = "torch" if name == "pml" else name
    prepare(backend, device)
    ready = {}

    def answer_to(case):
        if case["measure"] == "device":
            return {"device": device_name(backend)}
        key = repr(sorted(case.items()))
        try:
            if key not in ready:
                made = fit_turn if case["measure"] == "fit" else loss_step
                ready.clear()  # Release the device memory of earlier cases.
                ready[key] = made(name, backend, case)
                ready[key]()
        except KeyError:
            return {"missing": True}
        start = time.perf_counter()
        seconds = ready[key]()
        if case["measure"] == "loss":
            seconds = time.perf_counter() - start
        return {"seconds": seconds, "peak": peak_bytes(backend)}

    fit_engine.serve(answer_to)


if __name__ == "__main__":
    main()
