"""Batches of ready-made pairs."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.data.batches.anchor_sampling import AnchorSampler
from keras_metric.data.batches.epoch_batches import RowBatches, split_branches


class PairBatches(RowBatches):
    """Batches of pairs of the same class and of different classes, in an exact ratio.

    For `SiameseModel` and pair losses. A `keras.utils.PyDataset` that yields
    `({"first": ..., "second": ...}, y)` with `y` int32: 1 for the same class, 0 for different
    classes; the pairs of the same class come first.

    Rules. `first` uses all samples, in random order, before any is used again, also across epochs
    where an epoch is short. `second` is a random other sample of the class, or a random sample of
    any other class. The sample of a class of one sample occurs as `second` only. The content of a
    batch depends on `seed`, `epoch` and its index only; see `BalancedBatches`.

    Args:
        x: rows as in `BalancedBatches`.
        y: labels of any kind, as in `BalancedBatches`.
        batch_size: integer, pairs in a batch; a multiple of `sum(ratio)`.
        ratio: pair of integers, positive to negative pairs; `(1, 3)` is one to three.
        batches_per_epoch: integer, or None for as many as use every sample as `first`.
        seed: integer of at least 0, or None for a random one.
        load: function from an item of `x` to an array, as in `BalancedBatches`.
        augment: layer or function as in `BalancedBatches`, applied to each image independently.
        reshuffle: False yields the same epoch always.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of `keras.utils.PyDataset`.

    Raises:
        TypeError: for an argument of another type.
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
        self.batch_size = batch_size
        self.ratio = tuple(ratio)
        self._anchors = AnchorSampler(y, batch_size)
        index, length = self._anchors.index, self._anchors.batches_per_round
        settings = (batches_per_epoch, seed, load, augment, reshuffle)
        super().__init__(x, index, length, *settings, **kwargs)

    def _batch(self, epoch, index, plan):
        rng = np.random.default_rng((self.seed, epoch, index))
        first = self._anchors.batch(self.seed, epoch, index, len(self))
        same = self.batch_size * self.ratio[0] // sum(self.ratio)
        (positives,) = self._anchors.positives(first[:same], rng)
        negatives = self._anchors.negatives(first[same:], rng=rng)
        x = self._take(np.concatenate([first, positives, negatives]), epoch, index)
        y = (np.arange(self.batch_size) < same).astype("int32")
        return split_branches(x, ("first", "second")), y
