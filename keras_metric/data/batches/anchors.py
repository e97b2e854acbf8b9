"""Anchors in turn, and samples of the same and of other classes for them."""

import numpy as np

from keras_metric.data.batches.shuffling import mixed, shuffled


class Anchors:
    """Every row whose class has `at_least` samples is an anchor once before any is again."""

    def __init__(self, index, batch_size, at_least=2):
        self._index = index
        self._batch_size = batch_size
        self._place = np.empty(len(index.ids), dtype="int64")
        self._place[index.rows] = np.arange(len(index.rows))
        self._rows = index.rows[np.repeat(index.counts >= at_least, index.counts)]
        if len(self._rows) == 0:
            raise ValueError(
                f"Some class must have at least {at_least} samples, or no anchor has a positive. "
                f"Received: y with {len(index.classes)} classes of at most "
                f"{index.counts.max()} samples."
            )

    def __len__(self):
        return len(self._rows)

    def batch(self, seed, epoch, index, batches):
        """Return the anchor rows of a batch, `(batch_size,)`."""
        places = batches * self._batch_size
        # An epoch long enough to show every anchor starts a round of its own; a shorter one goes
        # on where the last stopped.
        whole = -(-places // len(self)) * len(self)
        start = epoch * (whole if places >= len(self) else places)
        places = start + index * self._batch_size + np.arange(self._batch_size)
        rounds, place = np.divmod(places, len(self))
        return self._rows[shuffled(place, len(self), mixed(np.full(1, seed), rounds))]

    def positives(self, anchors, rng, number=1):
        """Return `number` arrays of rows of the anchors' classes, all different row by row."""
        starts, counts = (
            self._index.starts[self._ids(anchors)],
            self._index.counts[self._ids(anchors)],
        )
        rank = self._place[anchors] - starts
        steps = []
        for taken in range(1, number + 1):
            step = 1 + _below(counts - taken, rng)
            for earlier in np.sort(steps, axis=0) if steps else ():
                step += step >= earlier  # Past the samples already chosen.
            steps.append(step)
        return [self._index.rows[starts + (rank + step) % counts] for step in steps]

    def negatives(self, *others, rng):
        """Return rows, each with equal chance, of any class but those of `others`, row by row."""
        classes = np.sort([self._ids(rows) for rows in others], axis=0)
        place = _below(len(self._index.rows) - self._index.counts[classes].sum(axis=0), rng)
        for forbidden in classes:  # From the first block of rows on: step over it.
            place += (place >= self._index.starts[forbidden]) * self._index.counts[forbidden]
        return self._index.rows[place]

    def _ids(self, rows):
        return self._index.ids[rows]


def _below(limits, rng):
    return (rng.random(len(limits)) * limits).astype("int64")


def check_classes(index, at_least):
    """Raise where there are fewer than `at_least` classes."""
    if len(index.classes) < at_least:
        raise ValueError(
            f"`y` must have at least {at_least} classes. Received: {len(index.classes)}"
        )
