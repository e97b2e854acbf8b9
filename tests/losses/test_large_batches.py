"""Losses that need no matrix of the batch with itself: values, gradients and memory."""

import engine
import keras
import numpy as np
import pytest
from autodiff import DTYPE, agrees, differentiated

from keras_metric import losses
from keras_metric.layers import CrossBatchMemory
from keras_metric.pairwise.log_sums import log_sums

BACKEND = keras.backend.backend()
# 24 items in classes of unequal size; blocks of 5 leave 4 rows over, blocks of 6 none.
LABELS = np.array([3, 1, 0, 1, 2, 0, 4, 4, 1, 0, 2, 2, 3, 1, 0, 4, 1, 1, 5, 0, 2, 3, 3, 6], "int32")
LISTS = {
    "FastAPLoss": {"num_bins": 5},
    "InstanceLoss": {"gamma": 8},
    "NTXentLoss": {"temperature": 0.3, "reduction": "mean_valid"},
    "PNPLoss": {},
    "RecallAtKSurrogateLoss": {},
    "SmoothAPLoss": {"temperature": 0.1},
    "SupConLoss": {"temperature": 0.3},
}
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11} if DTYPE == "float64" else {"rtol": 1e-4, "atol": 1e-6}


def points(seed, rows=24, dim=3):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(DTYPE)


def same(run, expected, x, jit=False):
    """Value and gradient of `run` equal those of `expected`."""
    for found, wanted in zip(differentiated(run, jit)(x), differentiated(expected, jit)(x)):
        np.testing.assert_allclose(found, wanted, **TOLERANCE)


def loop_of_log_sums(b, weights):
    """Weighted logarithms of the sums of exponentials of a matrix of products, in NumPy."""

    def run(a):
        logits, total = a @ b.T, 0.0
        for i in range(len(a)):
            for line, weight in ((logits[i], weights[0, i]), (logits[:, i], weights[1, i])):
                total += weight * (line.max() + np.log(np.exp(line - line.max()).sum()))
        return total

    return run


@pytest.mark.parametrize("rows, size", [(7, None), (10, 3), (12, 4), (5, 1)])
@pytest.mark.parametrize("scale", [1, 60])
@pytest.mark.parametrize("second", [False, True])
def test_log_sums(rows, size, scale, second):
    """`second`: whether the gradient is that of the second argument."""
    a, b = scale * points(0, rows) / 3, points(1, rows)
    weights = np.random.default_rng(2).uniform(0.5, 1.5, (2, rows)).astype(DTYPE)
    tensor = keras.ops.convert_to_tensor

    def run(x):
        pair = (tensor(a), x) if second else (x, tensor(b))
        return keras.ops.sum(log_sums(*pair, size=size) * tensor(weights))

    if second:
        agrees(run, loop_of_log_sums(a, weights[::-1]), b)
    else:
        agrees(run, loop_of_log_sums(b, weights), a)


@pytest.mark.parametrize("name, size", [*((name, 5) for name in LISTS), ("SupConLoss", 6)])
def test_lists_without_kept_derivatives(name, size):
    loss = getattr(losses, name)(**LISTS[name], dtype=DTYPE)
    run, expected = engine.lists(loss, size=size, kept=0), engine.lists(loss)
    same(lambda z: run(LABELS, z), lambda z: expected(LABELS, z), points(3))
    others, theirs = points(4, 9), LABELS[5:14]
    same(
        lambda z: run(LABELS, z, theirs, others),
        lambda z: expected(LABELS, z, theirs, others),
        points(3),
    )


@pytest.mark.parametrize(
    "mining, distance",
    [
        *((mining, "euclidean") for mining in ("all", "semi-hard", "hard", "semi-hard-all")),
        *(("all", distance) for distance in ("squared_euclidean", "cosine", "manhattan")),
    ],
)
def test_triplets_without_kept_derivatives(mining, distance):
    loss = losses.TripletLoss(0.4, mining=mining, distance=distance, dtype=DTYPE)
    run, expected = engine.triplets(loss, size=5, kept=0), engine.triplets(loss)
    same(lambda z: run(LABELS, z), lambda z: expected(LABELS, z), points(5))


@pytest.mark.skipif(BACKEND == "torch", reason="keras.ops on torch runs eagerly")
@pytest.mark.parametrize("name", ["SupConLoss", "NTXentLoss"])
def test_compiled(name):
    loss = getattr(losses, name)(**LISTS[name], dtype=DTYPE)
    run, expected = engine.lists(loss, size=5, kept=0), engine.lists(loss)
    same(lambda z: run(LABELS, z), lambda z: expected(LABELS, z), points(6), jit=True)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow traces unknown sizes")
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss", "InstanceLoss", "SupConLoss"])
def test_unknown_batch_size(name, jit):
    import tensorflow as tf

    loss = getattr(losses, name)()
    shape = (None, 2, 3) if name != "SupConLoss" else (None, 3)

    @tf.function(
        jit_compile=jit,
        input_signature=[tf.TensorSpec((None,), tf.int32), tf.TensorSpec(shape, tf.float32)],
    )
    def step(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y, x)
        return value, tape.gradient(value, x)

    for rows in (24, 7):
        x = np.random.default_rng(7).normal(size=(rows, *shape[1:])).astype("float32")
        wanted = differentiated(lambda z, y=LABELS[:rows]: loss(y, z))(x)
        for found, expected in zip(step(LABELS[:rows], x), wanted):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["ClipLoss", "InstanceLoss", "SigLipLoss"])
def test_reported_distances(name):
    x = np.random.default_rng(8).normal(size=(24, 2, 3)).astype("float32")
    with losses.StepReports() as reports:
        getattr(losses, name)()(LABELS, x)
    unit = x / np.linalg.norm(x, axis=2, keepdims=True)
    distance = 1 - unit[:, 0] @ unit[:, 1].T
    same = LABELS[:, None] == LABELS
    for kind, mask in (("positive", same), ("negative", ~same)):
        expected = {f"{kind}_distance": distance[mask].mean(), f"{kind}s": mask.sum()}
        found = {key: float(reports.statistics[key]) for key in expected}
        assert found == pytest.approx(expected, rel=1e-5)


def largest_tensor(function, *shapes):
    """Elements of the largest tensor that value and gradient of `function` compute."""
    if BACKEND == "jax":
        import jax

        arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        traced = jax.make_jaxpr(jax.value_and_grad(function))(*arrays)
        return max(_sizes_of_jaxpr(traced.jaxpr))
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype) for shape, dtype in shapes])
    def step(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x, y)
        return value, tape.gradient(value, x)

    graph = step.get_concrete_function().graph
    graphs = [graph, *(f.graph for f in graph._functions.values() if hasattr(f, "graph"))]
    tensors = [t for g in graphs for operation in g.get_operations() for t in operation.outputs]
    return max(t.shape.num_elements() or 0 for t in tensors)


def _sizes_of_jaxpr(jaxpr):
    import jax

    yield 0
    for equation in jaxpr.eqns:
        yield from (int(np.prod(v.aval.shape)) for v in equation.outvars)
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "jaxpr") or hasattr(x, "eqns")
        ):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                yield from _sizes_of_jaxpr(getattr(inner, "jaxpr", inner))


BATCH = 8192


@pytest.mark.skipif(BACKEND == "torch", reason="torch has no graph to inspect")
@pytest.mark.parametrize(
    "name, branches, settings",
    [
        ("ClipLoss", 2, {}),
        ("InstanceLoss", 1, {}),
        ("InstanceLoss", 2, {}),
        ("NPairsLoss", 2, {}),
        ("NTXentLoss", 1, {}),
        ("NTXentLoss", 2, {}),
        ("SigLipLoss", 2, {}),
        ("SupConLoss", 1, {}),
        *(("TripletLoss", 1, {"mining": m}) for m in ("all", "semi-hard", "hard")),
    ],
)
def test_no_matrix_of_the_batch(name, branches, settings):
    loss = getattr(losses, name)(**settings)
    shape = (BATCH, 2, 8) if branches == 2 else (BATCH, 8)
    largest = largest_tensor(lambda x, y: loss(y, x), (shape, "float32"), ((BATCH,), "int32"))
    assert largest <= BATCH**2 / 8


@pytest.mark.skipif(BACKEND == "torch", reason="torch has no graph to inspect")
@pytest.mark.parametrize("name", ["SupConLoss", "NTXentLoss", "TripletLoss"])
def test_no_matrix_with_the_queue(name):
    memory = CrossBatchMemory(65536)
    memory.build((None, 8))
    loss = getattr(losses, name)(memory=memory)
    shapes = ((512, 8), "float32"), ((512,), "int32")
    assert largest_tensor(lambda x, y: loss(y, x), *shapes) <= 512 * 65536 / 8


@pytest.mark.skipif(BACKEND == "torch", reason="torch has no graph to inspect")
def test_the_inspection_finds_a_matrix():
    loss = losses.ContrastiveLoss()
    shapes = ((BATCH, 8), "float32"), ((BATCH,), "int32")
    assert largest_tensor(lambda x, y: loss(y, x), *shapes) >= BATCH**2
