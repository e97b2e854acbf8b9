"""Batches of ready-made pairs, triplets and quadruplets."""

import numpy as np

from keras_metric._validation import check_choice, check_count
from keras_metric.data.batches.class_index import ClassIndex
from keras_metric.data.batches.epoch_batches import RowBatches, split_branches
from keras_metric.data.batches.seeded_permutation import hash_words, permuted

_QUADRUPLETS = {
    "second_negative": ("anchor", "positive", "negative", "second_negative"),
    "two_anchors": ("anchor", "second_anchor", "positive", "negative"),
}


class _AnchorBatches(RowBatches):
    """Abstract source of anchors, sampled without replacement, and positives and negatives of them.

    Each row whose class has at least `min_samples` samples is an anchor once a round.
    """

    def __init__(self, x, y, batch_size, settings, min_classes=2, min_samples=2, **kwargs):
        check_count("batch_size", batch_size)
        self.batch_size = batch_size
        index = ClassIndex(y)
        count = len(index.classes)
        if count < min_classes:
            raise ValueError(f"`y` must have at least {min_classes} classes. Received: {count}")
        self._position = np.empty(len(index.ids), dtype="int64")
        self._position[index.rows] = np.arange(len(index.rows))
        self._anchors = index.rows[np.repeat(index.counts >= min_samples, index.counts)]
        if len(self._anchors) == 0:
            raise ValueError(
                f"Some class in `y` must have at least {min_samples} samples, or no anchor has a "
                f"positive. Received: {count} classes of at most {index.counts.max()} samples."
            )
        super().__init__(x, index, -(-len(self._anchors) // batch_size), *settings, **kwargs)

    def _sample(self, epoch, index):
        """Return the anchor rows `(batch_size,)` of a batch, and a generator for the other rows."""
        total, per_epoch = len(self._anchors), len(self) * self.batch_size
        # An epoch that uses every anchor starts a new round; a shorter epoch continues the round
        # of the epoch before.
        start = epoch * (-(-per_epoch // total) * total if per_epoch >= total else per_epoch)
        steps = start + index * self.batch_size + np.arange(self.batch_size)
        rounds, position = np.divmod(steps, total)
        keys = hash_words(np.full(1, self.seed), rounds)
        rng = np.random.default_rng((self.seed, epoch, index))
        return self._anchors[permuted(position, total, keys)], rng

    def _positives(self, anchors, rng, number=1):
        """Return `number` arrays of other rows of the anchors' classes, all different by row."""
        ids = self._index.ids[anchors]
        starts, counts = self._index.starts[ids], self._index.counts[ids]
        rank = self._position[anchors] - starts
        steps = []
        for taken in range(1, number + 1):
            step = 1 + _random_below(counts - taken, rng)
            for earlier in np.sort(steps, axis=0) if steps else ():
                step += step >= earlier  # Skip the samples already chosen.
            steps.append(step)
        return [self._index.rows[starts + (rank + step) % counts] for step in steps]

    def _negatives(self, *others, rng):
        """Return uniformly sampled rows of classes that differ from those of all `others`."""
        classes = np.sort([self._index.ids[rows] for rows in others], axis=0)
        counts = self._index.counts
        position = _random_below(len(self._index.rows) - counts[classes].sum(axis=0), rng)
        for excluded in classes:  # In ascending order: skip the block of rows of each one.
            position += (position >= self._index.starts[excluded]) * counts[excluded]
        return self._index.rows[position]


class PairBatches(_AnchorBatches):
    """Batches of pairs of the same class and of different classes, in an exact ratio.

    For `SiameseModel` and pair losses. A `keras.utils.PyDataset` that yields
    `({"first": ..., "second": ...}, y)` with `y` int32: 1 for the same class, 0 for different
    classes; the pairs of the same class come first.

    Rules. `first` uses all samples, in random order, before any is used again, also across epochs
    where an epoch is short. `second` is a random other sample of the class, or a random sample of
    any other class. The sample of a class of one sample occurs as `second` only. The content of a
    batch depends on `seed`, `epoch` and its index only; see `BalancedBatches`.

    Args:
        x, y: rows and labels as in `BalancedBatches`.
        batch_size: integer, pairs in a batch; a multiple of `sum(ratio)`.
        ratio: pair of integers, positive to negative pairs; `(1, 3)` is one to three.
        batches_per_epoch: integer, or None for as many as use every sample as `first`.
        seed, load, augment, reshuffle, **kwargs: as in `BalancedBatches`.

    Raises:
        ValueError: `batch_size` does not fit `ratio`; fewer than two classes; no class of two.

    Example:
    >>> import numpy as np
    >>> from keras_metric.data import PairBatches
    >>> x, y = np.arange(12.0).reshape(12, 1), np.repeat(["ada", "bob", "cleo"], 4)
    >>> pairs, same = PairBatches(x, y, batch_size=8, ratio=(1, 3), seed=0)[0]
    >>> sorted(pairs), pairs["first"].shape, same.tolist()
    (['first', 'second'], (8, 1), [1, 1, 0, 0, 0, 0, 0, 0])
    """

    def __init__(
        self,
        x,
        y,
        batch_size=32,
        ratio=(1, 1),
        batches_per_epoch=None,
        seed=None,
        load=None,
        augment=None,
        reshuffle=True,
        **kwargs,
    ):
        check_count("batch_size", batch_size)
        if not isinstance(ratio, (tuple, list)) or len(ratio) != 2:
            raise ValueError(f"`ratio` must be two integers, as (1, 3). Received: ratio={ratio!r}")
        for part in ratio:
            check_count("ratio", part, at_least=0)
        if sum(ratio) == 0 or batch_size % sum(ratio):
            raise ValueError(
                "`batch_size` must be a multiple of the sum of `ratio`, so that every batch has "
                f"it exactly. Received: batch_size={batch_size}, ratio={tuple(ratio)}"
            )
        self.ratio = tuple(ratio)
        settings = (batches_per_epoch, seed, load, augment, reshuffle)
        super().__init__(x, y, batch_size, settings, **kwargs)

    def _batch(self, epoch, index, plan):
        first, rng = self._sample(epoch, index)
        same = self.batch_size * self.ratio[0] // sum(self.ratio)
        (positives,) = self._positives(first[:same], rng)
        negatives = self._negatives(first[same:], rng=rng)
        x = self._take(np.concatenate([first, positives, negatives]), epoch, index)
        y = (np.arange(self.batch_size) < same).astype("int32")
        return split_branches(x, ("first", "second")), y


class TripletBatches(_AnchorBatches):
    """Batches of an anchor, a positive of its class and a negative of another class.

    For `TripletModel` with random triplets, as in the early papers. Mining inside a labelled batch
    (`BalancedBatches`) finds harder triplets in the same time. A `keras.utils.PyDataset` that
    yields `({"anchor": ..., "positive": ..., "negative": ...},)`, without `y`.

    Rules. All samples of classes with at least two samples are anchors, in random order, before any
    is used again. The positive is a random other sample of the class, the negative a random sample
    of any other class. The content of a batch depends on `seed`, `epoch` and its index only; see
    `BalancedBatches`.

    Args:
        x, y: rows and labels as in `BalancedBatches`.
        batch_size: integer, triplets in a batch.
        batches_per_epoch: integer, or None for as many as use every sample as an anchor.
        seed, load, augment, reshuffle, **kwargs: as in `BalancedBatches`.

    Raises:
        ValueError: fewer than two classes; no class of two samples.

    Example:
    >>> import numpy as np
    >>> from keras_metric.data import TripletBatches
    >>> x, y = np.arange(12.0).reshape(12, 1), np.repeat(["ada", "bob", "cleo"], 4)
    >>> (triplets,) = TripletBatches(x, y, batch_size=6, seed=0)[0]
    >>> {name: part.shape for name, part in triplets.items()}
    {'anchor': (6, 1), 'positive': (6, 1), 'negative': (6, 1)}
    """

    def __init__(
        self,
        x,
        y,
        batch_size=32,
        batches_per_epoch=None,
        seed=None,
        load=None,
        augment=None,
        reshuffle=True,
        **kwargs,
    ):
        settings = (batches_per_epoch, seed, load, augment, reshuffle)
        super().__init__(x, y, batch_size, settings, **kwargs)

    def _batch(self, epoch, index, plan):
        anchors, rng = self._sample(epoch, index)
        (positives,) = self._positives(anchors, rng)
        negatives = self._negatives(anchors, rng=rng)
        x = self._take(np.concatenate([anchors, positives, negatives]), epoch, index)
        return (split_branches(x, ("anchor", "positive", "negative")),)


class QuadrupletBatches(_AnchorBatches):
    """Batches of quadruplets: a triplet and a second negative, or a triplet and a second anchor.

    For `QuadrupletModel`. A `keras.utils.PyDataset` that yields a dict as a 1-tuple, without `y`.
    Two forms:

    - `"second_negative"` (Chen et al.): `anchor`, `positive`, `negative`, `second_negative`;
      the two negatives and the anchor are of three different classes.
    - `"two_anchors"`: `anchor`, `second_anchor`, `positive`, `negative`; the first three are
      three different samples of one class.

    All samples of classes that are large enough (two samples, or three with two anchors) are
    anchors, in random order, before any is used again. The content of a batch depends on `seed`,
    `epoch` and its index only; see `BalancedBatches`.

    Args:
        x, y: rows and labels as in `BalancedBatches`.
        batch_size: integer, quadruplets in a batch.
        form: `"second_negative"` (default, the published one) or `"two_anchors"`.
        batches_per_epoch: integer, or None for as many as use every sample as an anchor.
        seed, load, augment, reshuffle, **kwargs: as in `BalancedBatches`.

    Raises:
        ValueError: fewer than three classes (two with two anchors); no class large enough.

    Example:
    >>> import numpy as np
    >>> from keras_metric.data import QuadrupletBatches
    >>> x, y = np.arange(12.0).reshape(12, 1), np.repeat(["ada", "bob", "cleo"], 4)
    >>> (quadruplets,) = QuadrupletBatches(x, y, batch_size=6, seed=0)[0]
    >>> list(quadruplets)
    ['anchor', 'positive', 'negative', 'second_negative']

    Reference:

    - Chen, Chen, Zhang, Huang: Beyond Triplet Loss: A Deep Quadruplet Network for Person
      Re-identification, 2017, https://arxiv.org/abs/1704.01719
    """

    def __init__(
        self,
        x,
        y,
        batch_size=32,
        form="second_negative",
        batches_per_epoch=None,
        seed=None,
        load=None,
        augment=None,
        reshuffle=True,
        **kwargs,
    ):
        check_choice("form", form, tuple(_QUADRUPLETS))
        self.form = form
        classes, samples = (3, 2) if form == "second_negative" else (2, 3)
        settings = (batches_per_epoch, seed, load, augment, reshuffle)
        super().__init__(x, y, batch_size, settings, classes, samples, **kwargs)

    def _batch(self, epoch, index, plan):
        anchors, rng = self._sample(epoch, index)
        negatives = self._negatives(anchors, rng=rng)
        if self.form == "two_anchors":
            second, positives = self._positives(anchors, rng, number=2)
            parts = [anchors, second, positives, negatives]
        else:
            (positives,) = self._positives(anchors, rng)
            second = self._negatives(anchors, negatives, rng=rng)
            parts = [anchors, positives, negatives, second]
        x = self._take(np.concatenate(parts), epoch, index)
        return (split_branches(x, _QUADRUPLETS[self.form]),)


def _random_below(limits, rng):
    return (rng.random(len(limits)) * limits).astype("int64")
