"""Random batches and the comparison of value and gradient with pytorch-metric-learning."""

import os

import numpy as np
import pytest
from autodiff import value_and_gradient

pytest.importorskip("pytorch_metric_learning", reason="make parity installs it")
torch = pytest.importorskip("torch")

from pytorch_metric_learning import distances as pml_distances  # noqa: E402
from pytorch_metric_learning import reducers as pml_reducers  # noqa: E402

# A new seed for each run; the seed in the message of a failure repeats it.
SEED = int(os.environ.get("KERAS_METRIC_SEED", np.random.default_rng().integers(2**31)))
SEED_HINT = f"KERAS_METRIC_SEED={SEED} repeats this batch"


# Part of the seed: empty, or [1] for the second batches of a test, see `once_more`.
_again = []


def once_more(test):
    """Run a test; if it fails, run it again on other batches and return the first failure.

    A mean over the terms above zero is discontinuous where a term is zero up to rounding, and so is
    mining where two distances are equal up to rounding. This affects one batch in thousands; a real
    difference affects the next batch too.
    """
    _again.clear()
    try:
        return test()
    except AssertionError as error:
        failed = f"{error}\n{SEED_HINT}"
    _again.append(1)
    test()
    return failed


def batch(extra, size=40, dim=12, classes=9):
    """Random vectors and unbalanced labels; `extra` numbers the batches of a run."""
    rng = np.random.default_rng([SEED, extra, *_again])
    labels = rng.choice(classes, size=size, p=rng.dirichlet(np.ones(classes)))
    return rng.normal(size=(size, dim)).astype("float32"), labels


def plain(power=1):
    """Euclidean distance of the peer, without normalisation."""
    return pml_distances.LpDistance(normalize_embeddings=False, power=power)


def mean():
    """Mean of the peer over all terms."""
    return pml_reducers.MeanReducer()


class BothMeans(pml_reducers.MultipleReducers):
    """Mean of positives plus mean of negatives."""

    def __init__(self):
        super().__init__({}, default_reducer=mean())


def compare(ours, theirs, x, y, references=None, miner=None, rtol=1e-4, gradient_rtol=1e-3):
    """Compare value and gradient of `ours(y, x)` with those of `theirs(x, y)`, a loss of the peer.

    `references`: (embeddings, labels) of a reference set. `miner`: a miner of the peer.
    """
    tensor, labels, sets = torch.tensor(x, requires_grad=True), torch.tensor(y), {}
    if references is None:
        value, gradient = value_and_gradient(lambda z: ours(y, z), x)
    else:
        others, other_labels = references
        value, gradient = value_and_gradient(lambda z: ours.against(y, z, other_labels, others), x)
        sets = {"ref_emb": torch.tensor(others), "ref_labels": torch.tensor(other_labels)}
    chosen = miner(tensor, labels, **sets) if miner else None
    expected = theirs(tensor, labels, chosen, **sets)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=rtol, atol=1e-6, err_msg=SEED_HINT)
    grad = tensor.grad.numpy()
    np.testing.assert_allclose(
        gradient, grad, rtol=gradient_rtol, atol=1e-5 * max(1, abs(grad).max()), err_msg=SEED_HINT
    )
