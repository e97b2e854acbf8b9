"""Worker process of a benchmark: reads cases as JSON lines, writes seconds or bytes.

The benchmarks start it:  python benchmarks/engine.py ours-xla
Each engine runs in a separate process, so that libraries do not share threads or memory and the
benchmark can alternate between them.
"""

import json
import os
import resource
import sys
import time

import compared_losses

ENGINES = ("gemm-xla", "gemm-jax", "ours", "ours-xla", "ours-jax", "ours-torch", "pml", "tfa")
BACKENDS = {"gemm-xla": "tensorflow", "gemm-jax": "jax", "ours": "tensorflow"}
BACKENDS |= {"ours-xla": "tensorflow", "ours-jax": "jax", "ours-torch": "torch"}


def data(batch, per_class, dim, references=0):
    import numpy as np

    rng = np.random.default_rng(0)

    def unit(rows):
        x = rng.normal(size=(rows, dim)).astype("float32")
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    labels = np.repeat(np.arange(batch // per_class), per_class).astype("int32")
    order = rng.permutation(batch)
    if not references:
        return unit(batch), labels[order], None, None
    reference_labels = rng.integers(0, batch // per_class, references).astype("int32")
    return unit(batch), labels[order], unit(references), reference_labels


def number_of_classes(case):
    """Return the number of class vectors: the number of items of a batch."""
    return case["data"]["batch"]


def our_function(case):
    """Return a function of (embeddings, labels) on Keras tensors that returns the loss."""
    from keras import ops

    from keras_metric import losses

    made = {
        "triplet all": lambda: losses.TripletLoss(0.2, mining="all"),
        "triplet semi-hard": lambda: losses.TripletLoss(0.2, mining="semi-hard"),
        "triplet semi-hard-all": lambda: losses.TripletLoss(0.2, mining="semi-hard-all"),
        "triplet hard": lambda: losses.TripletLoss(0.2, mining="hard"),
        "contrastive": losses.ContrastiveLoss,
        "lifted structure": losses.LiftedStructureLoss,
        "quadruplet": losses.QuadrupletLoss,
    }.get(case["loss"], lambda: compared_losses.ours(case["loss"], number_of_classes(case)))()
    for layer in made.layers:
        if not layer.built:
            layer.build((None, case["data"]["dim"]))
    _, _, references, reference_labels = data(**case["data"])
    if not compared_losses.labelled(case["loss"]):
        # The first half of the batch and the second are the two views.
        half = case["data"]["batch"] // 2
        targets = ops.arange(half, dtype="int32")
        if case["loss"] in compared_losses.OF_PAIRS:
            targets = ops.cast(targets % 2, "float32")
        return lambda x, y: made(targets, ops.stack([x[:half], x[half:]], axis=1))
    if references is None:
        return lambda x, y: made(y, x)
    references, reference_labels = map(ops.convert_to_tensor, (references, reference_labels))
    return lambda x, y: made.against(y, x, reference_labels, references)


def gemm_function(case):
    """Return a function for the product of the batch with its transpose."""
    from keras import ops

    batch = case["data"]["batch"]
    weight = ops.convert_to_tensor(data(batch, 1, batch)[0])
    return lambda x, y: ops.sum(ops.matmul(x, ops.transpose(x)) * weight)


def pml_function(case):
    """Return the function for pytorch-metric-learning."""
    import torch
    from pytorch_metric_learning import distances, losses, miners

    plain = distances.LpDistance(normalize_embeddings=False)
    loss, miner = {
        "triplet all": lambda: (losses.TripletMarginLoss(0.2, distance=plain), None),
        "triplet semi-hard-all": lambda: (
            losses.TripletMarginLoss(0.2, distance=plain),
            miners.TripletMarginMiner(0.2, "semihard", distance=plain),
        ),
        "triplet hard": lambda: (
            losses.TripletMarginLoss(0.2, distance=plain),
            miners.BatchHardMiner(distance=plain),
        ),
        "contrastive": lambda: (losses.ContrastiveLoss(distance=plain), None),
        "lifted structure": lambda: (losses.LiftedStructureLoss(distance=plain), None),
    }.get(
        case["loss"],
        lambda: (
            compared_losses.peer(case["loss"], number_of_classes(case), case["data"]["dim"]),
            None,
        ),
    )()
    if not compared_losses.labelled(case["loss"]):
        half = case["data"]["batch"] // 2
        return lambda x, y: loss(x[:half], x[half:])
    _, _, references, reference_labels = data(**case["data"])
    against = {}
    if references is not None:
        against = {
            "ref_emb": torch.tensor(references),
            "ref_labels": torch.tensor(reference_labels),
        }
    return lambda x, y: loss(x, y, miner(x, y, **against) if miner else None, **against)


def tfa_function(case):
    """Return the function for tensorflow-addons."""
    import tensorflow_addons as tfa

    loss = {
        "triplet semi-hard": lambda: tfa.losses.TripletSemiHardLoss(0.2),
        "triplet hard": lambda: tfa.losses.TripletHardLoss(0.2),
        "lifted structure": lambda: tfa.losses.LiftedStructLoss(1.0),
    }[case["loss"]]()
    return lambda x, y: loss(y, x)


def prepared(engine, case):
    """Return a function of arrays (x, y) that returns a function computing the gradient once.

    Compiled code is used for every (x, y) of the same shape.
    """
    makers = {"pml": pml_function, "tfa": tfa_function, "gemm": gemm_function}
    function = makers.get(engine.split("-")[0], our_function)(case)
    backend = {"pml": "torch"}.get(engine, BACKENDS.get(engine, "tensorflow"))
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=engine.endswith("xla"))
        def step(x, y):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = function(x, y)
            return tape.gradient(loss, x)

        def bind(x, y):
            x, y = tf.constant(x), tf.constant(y)
            return lambda: step(x, y).numpy()

    elif backend == "jax":
        import jax

        step = jax.jit(jax.grad(function))

        def bind(x, y):
            x, y = jax.numpy.asarray(x), jax.numpy.asarray(y)
            return lambda: step(x, y).block_until_ready()

    else:
        import torch

        def bind(x, y):
            # Losses of pytorch-metric-learning with class vectors require int64.
            leaf, labels = torch.tensor(x, requires_grad=True), torch.tensor(y).long()

            def step():
                leaf.grad = None
                function(leaf, labels).backward()
                return leaf.grad

            return step

    return bind


def main():
    engine = sys.argv[1]
    os.environ["KERAS_BACKEND"] = BACKENDS.get(engine, "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if engine != "tfa":  # tfa runs in an environment without this package
        from keras_metric_startup import hide_tensorflow_startup_messages

        hide_tensorflow_startup_messages()
    # Standard output is for the answers only; redirect other output to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    compiled, ready = {}, {}

    def run(case):
        shape = {**case["data"], "per_class": None}
        key, shape = (json.dumps([case["loss"], d], sort_keys=True) for d in (case["data"], shape))
        if key not in ready:
            if shape not in compiled:
                compiled[shape] = prepared(engine, case)
            ready[key] = compiled[shape](*data(**case["data"])[:2])
            ready[key]()
        return ready[key]

    for line in sys.stdin:
        case = json.loads(line)
        try:
            if case["measure"] == "memory":
                # Exclude the memory of libraries and of the warm-up with a small batch.
                run({**case, "data": {**case["data"], "batch": 64}})
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                run(case)
                after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                answer = {"bytes": (after - before) * 1024}
            else:
                call = run(case)
                start = time.perf_counter()
                call()
                answer = {"seconds": time.perf_counter() - start}
        except KeyError:
            answer = {"missing": True}
        except Exception as error:  # noqa: BLE001 - a failure is a result
            answer = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
