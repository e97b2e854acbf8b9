"""What the live comparisons with pytorch-metric-learning share: fresh batches, one check."""

import os

import numpy as np
import pytest
from autodiff import value_and_gradient

pytest.importorskip("pytorch_metric_learning", reason="make parity installs it")
torch = pytest.importorskip("torch")

from pytorch_metric_learning import distances as pml_distances  # noqa: E402
from pytorch_metric_learning import reducers as pml_reducers  # noqa: E402

# Another batch each run; the seed in the test's name repeats a failure.
SEED = int(os.environ.get("KERAS_METRIC_SEED", np.random.default_rng().integers(2**31)))
TOLD = f"KERAS_METRIC_SEED={SEED} repeats this batch"


# Part of the seed: empty, or what makes the second batches of a test others, see `once_more`.
_again = []


def once_more(test):
    """Run a test, and if it fails once more, on other batches; what had failed, or None.

    A mean over the terms above zero jumps where a term is zero but for rounding, and so does a
    choice where two distances are equal but for rounding. That meets one batch in thousands; a
    real difference meets the next batch too.
    """
    _again.clear()
    try:
        return test()
    except AssertionError as error:
        failed = f"{error}\n{TOLD}"
    _again.append(1)
    test()
    return failed


def batch(extra, size=40, dim=12, classes=9):
    """Random vectors and unbalanced labels; `extra` numbers the batches of a run."""
    rng = np.random.default_rng([SEED, extra, *_again])
    labels = rng.choice(classes, size=size, p=rng.dirichlet(np.ones(classes)))
    return rng.normal(size=(size, dim)).astype("float32"), labels


def plain(power=1):
    """The peer's Euclidean distance of vectors as they come."""
    return pml_distances.LpDistance(normalize_embeddings=False, power=power)


def mean():
    """The peer's mean over all terms."""
    return pml_reducers.MeanReducer()


class BothMeans(pml_reducers.MultipleReducers):
    """Mean of positives plus mean of negatives."""

    def __init__(self):
        super().__init__({}, default_reducer=mean())


def compare(ours, theirs, x, y, references=None, miner=None, rtol=1e-4, slope_rtol=1e-3):
    """Value and gradient of `ours(y, x)` beside those of `theirs(x, y)`, a loss of the peer.

    `references`: (embeddings, labels) of a reference set. `miner`: one of the peer's, given to its
    loss.
    """
    tensor, labels, sets = torch.tensor(x, requires_grad=True), torch.tensor(y), {}
    if references is None:
        value, slope = value_and_gradient(lambda z: ours(y, z), x)
    else:
        others, other_labels = references
        value, slope = value_and_gradient(lambda z: ours.against(y, z, other_labels, others), x)
        sets = {"ref_emb": torch.tensor(others), "ref_labels": torch.tensor(other_labels)}
    chosen = miner(tensor, labels, **sets) if miner else None
    expected = theirs(tensor, labels, chosen, **sets)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=rtol, atol=1e-6, err_msg=TOLD)
    grad = tensor.grad.numpy()
    np.testing.assert_allclose(
        slope, grad, rtol=slope_rtol, atol=1e-5 * max(1, abs(grad).max()), err_msg=TOLD
    )
