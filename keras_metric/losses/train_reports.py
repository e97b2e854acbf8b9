"""Statistics that losses report during training: pair distances and the active fraction."""

import contextlib
import threading

from keras import ops

# Replicas are traced in threads of their own, so what a loss reports stays in its thread.
_watched = threading.local()


@contextlib.contextmanager
def watch():
    """Collect what losses called inside the block know about training: a dict of scalars.

    `active_fraction`: terms greater than zero among all terms. `positive_distance`,
    `negative_distance`: mean distance of an anchor to its positives and negatives.
    `positives`, `negatives`: number of (anchor, positive) and (anchor, negative) pairs. Nothing is
    computed outside such a block.
    """
    outer = getattr(_watched, "seen", None)
    _watched.seen = {}
    try:
        yield _watched.seen
    finally:
        _watched.seen = outer


def watching():
    """Whether an open `watch` still wants the distances of this batch."""
    seen = getattr(_watched, "seen", None)
    return seen is not None and "positive_distance" not in seen


def report(positive_distance, negative_distance, positive=None, negative=None):
    """Tell an open `watch` the distances of a batch; the masks say which elements are meant.

    `negative_distance` may be None, where a loss compares nothing with other classes.
    """
    if not watching():
        return
    if negative_distance is None:
        seen, sums = _watched.seen, _masked_sum(positive_distance, positive)
        seen["positive_distance"], seen["positives"] = _mean(*sums)
        return
    sums, counts = zip(
        _masked_sum(positive_distance, positive), _masked_sum(negative_distance, negative)
    )
    report_rows(*sums, *counts)


def _masked_sum(values, mask):
    mask = ops.ones_like(values) if mask is None else ops.cast(mask, values.dtype)
    return ops.sum(ops.where(mask > 0, values, 0) * mask), ops.sum(mask)


def report_rows(positive_sums, negative_sums, num_positives, num_negatives):
    """The same from the sums of the distances of each row, and their numbers."""
    if not watching():
        return
    seen = _watched.seen
    seen["positive_distance"], seen["positives"] = _mean(positive_sums, num_positives)
    seen["negative_distance"], seen["negatives"] = _mean(negative_sums, num_negatives)


@contextlib.contextmanager
def summed_over_replicas(group, counts):
    """Turn what is reported inside the block, of one replica, into that of all replicas.

    `counts`: boolean scalar, False on a replica whose rows are a stand-in for missing ones.
    """
    seen = getattr(_watched, "seen", None)
    before = set(seen or ())
    yield
    for kind in ("positive", "negative"):
        distance, number = f"{kind}_distance", f"{kind}s"
        if seen is None or distance in before or distance not in seen:
            continue
        mine = ops.stack([seen[distance] * seen[number], seen[number]])
        total, count = ops.unstack(group.total(ops.where(counts, mine, 0)), 2)
        seen[distance], seen[number] = total / ops.maximum(count, 1), count


def _mean(sums, numbers):
    total = ops.sum(sums)
    count = ops.cast(ops.sum(numbers), total.dtype)
    return total / ops.maximum(count, 1), count


def report_active(parts):
    """Tell an open `watch` which fraction of the terms of these `Rows` is greater than zero."""
    seen = getattr(_watched, "seen", None)
    if seen is not None and "active_fraction" not in seen:
        active = sum(ops.sum(part.active) for part in parts)
        valid = sum(ops.sum(part.valid) for part in parts)
        seen["active_fraction"] = active / ops.maximum(valid, 1)
