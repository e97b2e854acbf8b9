"""Losses with weights and queues, compared with pytorch-metric-learning.

Value, gradients of embeddings and weights, ten steps of SGD, and a queue over many batches.
"""

import keras
import numpy as np
import pytest
from autodiff import differentiated, value_and_gradient
from keras import ops
from peers import SEED, SEED_HINT, batch, plain, torch
from pytorch_metric_learning import losses as pml_losses

from keras_metric import losses
from keras_metric.layers import CrossBatchMemory

pytestmark = [
    pytest.mark.parity,
    # The peer applies NumPy functions to PyTorch tensors.
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context"),
]

CLASSES, DIM = 9, 12


class Case:
    """Our loss and that of the peer, with the name and the layout of its weights.

    `arguments`: those after the sizes. `peer`: all arguments of the peer, if they differ.
    """

    def __init__(self, name, *arguments, peer=None, weights="W", columns=True, unit=False):
        ours, theirs = getattr(losses, name), getattr(pml_losses, name)
        self.ours = lambda: ours(CLASSES, *arguments)
        self.theirs = lambda: theirs(**peer) if peer else theirs(CLASSES, DIM, *arguments)
        self.weights, self.columns, self.unit = weights, columns, unit


SIZES = dict(num_classes=CLASSES, embedding_size=DIM)
CASES = {
    "normalized softmax": Case("NormalizedSoftmaxLoss", 0.3),
    "ArcFace": Case("ArcFaceLoss", 30, 8),
    "ArcFace beyond 180 degrees": Case("ArcFaceLoss", 110, 8),
    "CosFace": Case("CosFaceLoss", 0.3, 8, peer=dict(SIZES, margin=0.3, scale=8)),
    "SphereFace": Case("SphereFaceLoss"),
    "large margin softmax": Case("LargeMarginSoftmaxLoss", 3),
    "sub-centre ArcFace": Case(
        "SubCenterArcFaceLoss", 30, 8, 3, peer=dict(SIZES, margin=30, scale=8, sub_centers=3)
    ),
    "SoftTriple": Case("SoftTripleLoss", 4, 5, 0.2, 0.03, weights="fc"),
    # The peer normalises embeddings, so the test uses unit vectors.
    "Proxy-NCA": Case(
        *("ProxyNCALoss", 3.0),
        peer=dict(SIZES, softmax_scale=3),
        weights="proxies",
        columns=False,
        unit=True,
    ),
    "Proxy-Anchor": Case("ProxyAnchorLoss", weights="proxies", columns=False),
    "P2SGrad": Case(
        "P2SGradLoss", peer=dict(descriptors_dim=DIM, num_classes=CLASSES), weights="weight"
    ),
}


def both(case, extra):
    """Our loss and that of the peer with the same random vectors, and these vectors."""
    ours, theirs = case.ours(), case.theirs()
    ours.proxies.build((None, DIM))
    shape = tuple(ours.proxies.vectors.shape)
    vectors = np.random.default_rng([SEED, 77, extra]).normal(size=shape).astype("float32")
    if case.weights == "weight":
        # The peer normalises these itself, outside of the gradient.
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ours.proxies.vectors.assign(vectors)
    with torch.no_grad():
        getattr(theirs, case.weights).copy_(torch.tensor(vectors.T if case.columns else vectors))
    return ours, theirs, vectors


def inputs(case, extra):
    x, y = batch(extra, dim=DIM, classes=CLASSES)
    return (x / np.linalg.norm(x, axis=1, keepdims=True) if case.unit else x), y


def along_the_sphere(gradient, x):
    return gradient - (gradient * x).sum(1, keepdims=True) * x


@pytest.mark.parametrize("extra", range(2))
@pytest.mark.parametrize("name", CASES)
def test_value_and_both_gradients(name, extra):
    case = CASES[name]
    x, y = inputs(case, extra)
    ours, theirs, vectors = both(case, extra)
    value, gradient = value_and_gradient(lambda z: ours(y, z), x)

    def of_vectors(w):
        with keras.StatelessScope([(ours.proxies.vectors, w)]):
            return ours(y, x)

    _, vector_gradient = value_and_gradient(of_vectors, vectors)
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor, torch.tensor(y))
    expected.backward()
    weights = getattr(theirs, case.weights).grad.numpy()
    weights = weights.T if case.columns else weights
    expected_gradient = tensor.grad.numpy()
    if case.unit:
        gradient, expected_gradient = (
            along_the_sphere(gradient, x),
            along_the_sphere(expected_gradient, x),
        )
    if case.weights == "weight":
        # The gradient of the peer is not tangential to the sphere of its normalised vectors.
        weights = along_the_sphere(weights, vectors)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4, err_msg=SEED_HINT)
    for found, other in ((gradient, expected_gradient), (vector_gradient, weights)):
        limit = 2e-5 * np.abs(other).max()
        np.testing.assert_allclose(found, other, rtol=2e-3, atol=limit, err_msg=SEED_HINT)


@pytest.mark.parametrize("name", [name for name in CASES if name != "P2SGrad"])
def test_ten_steps_of_sgd(name):
    """Train a linear map and the class vectors with both losses."""
    case = CASES[name]
    ours, theirs, vectors = both(case, 5)
    kernel = np.random.default_rng([SEED, 88]).normal(size=(DIM, DIM)).astype("float32") / 3
    peer = torch.nn.Parameter(torch.tensor(kernel))
    optimizer = torch.optim.SGD([peer, *theirs.parameters()], lr=0.02)
    # All trained weights in one vector.
    mine = np.concatenate([kernel.ravel(), vectors.ravel()])

    def parts(row):
        of_map, of_classes = row[: DIM * DIM], row[DIM * DIM :]
        return ops.reshape(of_map, (DIM, DIM)), ops.reshape(of_classes, vectors.shape)

    def value_of(row, x, y):
        mapped, own = parts(row)
        z = ops.matmul(x, mapped)
        z = z / ops.norm(z, axis=1, keepdims=True) if case.unit else z
        with keras.StatelessScope([(ours.proxies.vectors, own)]):
            return ours(y, z)

    # JAX is slow without compilation.
    step_of = differentiated(value_of, jit=keras.backend.backend() == "jax")
    for step in range(10):
        x, y = inputs(case, 100 + step)
        mine = mine - 0.02 * step_of(mine, x, y)[1]
        optimizer.zero_grad()
        z = torch.tensor(x) @ peer
        z = z / z.norm(dim=1, keepdim=True) if case.unit else z
        theirs(z, torch.tensor(y)).backward()
        optimizer.step()
    weights = getattr(theirs, case.weights).detach().numpy()
    weights = weights.T if case.columns else weights
    mapped, own = map(ops.convert_to_numpy, parts(mine))
    for found, other in ((mapped, peer.detach().numpy()), (own, weights)):
        limit = 1e-3 * np.abs(other).max()
        np.testing.assert_allclose(found, other, rtol=5e-3, atol=limit, err_msg=SEED_HINT)
    assert np.abs(mapped - kernel).max() > 1e-3


@pytest.mark.parametrize("settings", [{"nu": 0.2}, {"num_classes": CLASSES, "nu": 0.1}])
def test_a_learned_boundary(settings):
    x, y = batch(30, dim=DIM, classes=CLASSES)
    ours = losses.MarginLoss(0.3, 4.0, learn_beta=True, **settings)
    ours.boundaries.build((None, DIM))
    settings = {**settings, "distance": plain()}
    peer = pml_losses.MarginLoss(0.3, beta=4.0, learn_beta=True, **settings)
    value, gradient = value_and_gradient(lambda z: ours(y, z), x)
    start = np.full(ours.boundaries.beta.shape, 4.0, "float32")

    def of_beta(beta):
        with keras.StatelessScope([(ours.boundaries.beta, beta)]):
            return ours(y, x)

    _, of_boundaries = value_and_gradient(of_beta, start)
    tensor = torch.tensor(x, requires_grad=True)
    expected = peer(tensor, torch.tensor(y))
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4, err_msg=SEED_HINT)
    np.testing.assert_allclose(
        gradient, tensor.grad.numpy(), rtol=2e-3, atol=1e-5, err_msg=SEED_HINT
    )
    np.testing.assert_allclose(
        of_boundaries, peer.beta.grad.numpy(), rtol=2e-3, atol=1e-5, err_msg=SEED_HINT
    )


def test_dynamic_soft_margin_of_a_first_batch():
    """In later batches the peer adds counts to fractions; ours adds fractions."""
    x, y = batch(40, dim=DIM, classes=CLASSES)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    ours = losses.DynamicSoftMarginLoss()
    ours.histogram.build((None, DIM))
    expected = pml_losses.DynamicSoftMarginLoss()(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(float(ours(y, x)), expected.item(), rtol=1e-3, err_msg=SEED_HINT)


# Without NCA: the peer compares an item with its own copy in the queue.
QUEUED = {
    "contrastive": (
        lambda memory: losses.ContrastiveLoss(4.0, 0.2, memory=memory),
        lambda: pml_losses.ContrastiveLoss(0.2, 4.0, distance=plain()),
    ),
    "triplet": (
        lambda memory: losses.TripletLoss(0.3, mining="all", memory=memory),
        lambda: pml_losses.TripletMarginLoss(0.3, distance=plain()),
    ),
    "multi-similarity": (
        lambda memory: losses.MultiSimilarityLoss(memory=memory),
        pml_losses.MultiSimilarityLoss,
    ),
    "circle": (lambda memory: losses.CircleLoss(memory=memory), pml_losses.CircleLoss),
    "NT-Xent": (
        lambda memory: losses.NTXentLoss(0.3, memory=memory),
        lambda: pml_losses.NTXentLoss(0.3),
    ),
    "SupCon": (
        lambda memory: losses.SupConLoss(0.3, memory=memory),
        lambda: pml_losses.SupConLoss(0.3),
    ),
    "tuplet margin": (
        lambda memory: losses.TupletMarginLoss(memory=memory),
        pml_losses.TupletMarginLoss,
    ),
    "margin": (
        lambda memory: losses.MarginLoss(0.3, 4.0, memory=memory),
        lambda: pml_losses.MarginLoss(0.3, beta=4.0, distance=plain()),
    ),
}


@pytest.mark.parametrize("name", QUEUED)
def test_a_queue_over_many_batches(name):
    """The queue of the peer gives the same value in each batch, also after it is overwritten."""
    make, make_peer = QUEUED[name]
    memory = CrossBatchMemory(50)
    memory.build((None, DIM))
    ours = make(memory)
    for layer in ours.layers:
        if not layer.built:
            layer.build((None, DIM))
    peer = pml_losses.CrossBatchMemory(make_peer(), DIM, 50)
    for step in range(7):
        x, y = batch(50 + step, size=20, dim=DIM, classes=CLASSES)
        with losses.StepReports() as reports:
            value = ours(y, x)
        for variable, new in reports.updates:
            variable.assign(new)
        expected = peer(torch.tensor(x), torch.tensor(y)).item()
        np.testing.assert_allclose(
            float(value), expected, rtol=1e-4, err_msg=f"{step}, {SEED_HINT}"
        )
