"""Sampling of anchors, positives and negatives for batches of pairs, triplets and quadruplets."""

import numpy as np

from keras_metric.data.batches.class_index import ClassIndex
from keras_metric.data.batches.seeded_permutation import hash_words, permuted


class AnchorSampler:
    """Samples anchors without replacement, and positives and negatives for them.

    Each row whose class has at least `min_samples` samples is an anchor once a round.

    Args:
        y: labels of any kind.
        batch_size: integer, anchors in a batch.
        min_classes: raise if there are fewer classes.
        min_samples: smallest number of samples of a class whose rows are anchors.

    Attributes:
        index: `ClassIndex` of the labels.
        batches_per_round: batches that use every anchor at least once.
    """

    def __init__(self, y, batch_size, min_classes=2, min_samples=2):
        self.index = index = ClassIndex(y)
        if len(index.classes) < min_classes:
            raise ValueError(
                f"`y` must have at least {min_classes} classes. Received: {len(index.classes)}"
            )
        self._batch_size = batch_size
        self._position = np.empty(len(index.ids), dtype="int64")
        self._position[index.rows] = np.arange(len(index.rows))
        self._anchors = index.rows[np.repeat(index.counts >= min_samples, index.counts)]
        if len(self._anchors) == 0:
            raise ValueError(
                f"Some class must have at least {min_samples} samples, or no anchor has a positive."
                f" Received: y with {len(index.classes)} classes of at most {index.counts.max()} "
                "samples."
            )
        self.batches_per_round = -(-len(self._anchors) // batch_size)

    def batch(self, seed, epoch, index, batches):
        """Return the anchor rows of a batch, `(batch_size,)`."""
        total, per_epoch = len(self._anchors), batches * self._batch_size
        # An epoch that uses every anchor starts a new round; a shorter epoch continues the round
        # of the epoch before.
        start = epoch * (-(-per_epoch // total) * total if per_epoch >= total else per_epoch)
        steps = start + index * self._batch_size + np.arange(self._batch_size)
        rounds, position = np.divmod(steps, total)
        return self._anchors[permuted(position, total, hash_words(np.full(1, seed), rounds))]

    def positives(self, anchors, rng, number=1):
        """Return `number` arrays of other rows of the anchors' classes, all different by row."""
        ids = self.index.ids[anchors]
        starts, counts = self.index.starts[ids], self.index.counts[ids]
        rank = self._position[anchors] - starts
        steps = []
        for taken in range(1, number + 1):
            step = 1 + _random_below(counts - taken, rng)
            for earlier in np.sort(steps, axis=0) if steps else ():
                step += step >= earlier  # Skip the samples already chosen.
            steps.append(step)
        return [self.index.rows[starts + (rank + step) % counts] for step in steps]

    def negatives(self, *others, rng):
        """Return uniformly sampled rows of classes that differ from those of all `others`."""
        classes = np.sort([self.index.ids[rows] for rows in others], axis=0)
        position = _random_below(len(self.index.rows) - self.index.counts[classes].sum(axis=0), rng)
        for excluded in classes:  # In ascending order: skip the block of rows of each one.
            position += (position >= self.index.starts[excluded]) * self.index.counts[excluded]
        return self.index.rows[position]


def _random_below(limits, rng):
    return (rng.random(len(limits)) * limits).astype("int64")
