"""What losses tell the model they are trained by: what to keep, and ids that are no class."""

import contextlib
import threading
from typing import NamedTuple

from keras import ops

# Replicas are traced in threads of their own, so what a loss tells stays in its thread.
_open = threading.local()


class Told(NamedTuple):
    """What the losses of a batch said.

    `kept`: a list of (variable, value), new states of queues, histograms, running means.
    `strange_ids`: a list of (loss, number), ids of the batch that are no class of the loss.
    `positives`: a list of (loss, boolean scalar), whether the batch has a positive pair.
    """

    kept: list
    strange_ids: list
    positives: list


@contextlib.contextmanager
def listening():
    """Collect in a `Told` what losses called inside the block have to say.

    A loss cannot tell training from evaluation, so it assigns nothing by itself: the model does,
    after the loss of a training step. Outside such a block nothing is kept.
    """
    outer = getattr(_open, "told", None)
    _open.told = Told([], [], [])
    try:
        yield _open.told
    finally:
        _open.told = outer


def keep(variable, value):
    """Tell an open block to hold `value` for `variable`; no gradient flows through it."""
    told = getattr(_open, "told", None)
    if told is not None:
        told.kept.append((variable, ops.cast(ops.stop_gradient(value), variable.dtype)))


def report_strange_ids(loss, number):
    """Tell an open block how many ids of a batch are no class of `loss`."""
    told = getattr(_open, "told", None)
    if told is not None:
        told.strange_ids.append((loss, number))


def report_positives(loss, labels):
    """Report to an open block whether any two items of a batch share a label.

    `labels`: class ids (batch,), or 0 and 1 (batch, classes).
    """
    told = getattr(_open, "told", None)
    if told is None:
        return
    if len(labels.shape) == 2:
        found = ops.any(ops.sum(ops.cast(labels, "int32"), axis=0) > 1)
    else:
        ranked = ops.sort(labels)
        found = ops.any(ops.equal(ranked[1:], ranked[:-1]))
    told.positives.append((loss, found))
