"""Batches of ready-made quadruplets."""

import numpy as np

from keras_metric._validation import check_choice, check_count
from keras_metric.data.batches.anchor_sampling import AnchorSampler
from keras_metric.data.batches.epoch_batches import RowBatches, split_branches

_NAMES = {
    "second_negative": ("anchor", "positive", "negative", "second_negative"),
    "two_anchors": ("anchor", "second_anchor", "positive", "negative"),
}


class QuadrupletBatches(RowBatches):
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
        x: rows as in `BalancedBatches`.
        y: labels of any kind, as in `BalancedBatches`.
        batch_size: integer, quadruplets in a batch.
        form: `"second_negative"` (default, the published one) or `"two_anchors"`.
        batches_per_epoch: integer, or None for as many as use every sample as an anchor.
        seed: integer of at least 0, or None for a random one.
        load: function from an item of `x` to an array, as in `BalancedBatches`.
        augment: layer or function as in `BalancedBatches`, applied to each image independently.
        reshuffle: False yields the same epoch always.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of `keras.utils.PyDataset`.

    Raises:
        TypeError: for an argument of another type.
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
        check_count("batch_size", batch_size)
        check_choice("form", form, tuple(_NAMES))
        self.batch_size = batch_size
        self.form = form
        classes, samples = (3, 2) if form == "second_negative" else (2, 3)
        self._anchors = AnchorSampler(y, batch_size, classes, samples)
        index, length = self._anchors.index, self._anchors.batches_per_round
        settings = (batches_per_epoch, seed, load, augment, reshuffle)
        super().__init__(x, index, length, *settings, **kwargs)

    def _batch(self, epoch, index, plan):
        rng = np.random.default_rng((self.seed, epoch, index))
        anchors = self._anchors.batch(self.seed, epoch, index, len(self))
        negatives = self._anchors.negatives(anchors, rng=rng)
        if self.form == "two_anchors":
            second, positives = self._anchors.positives(anchors, rng, number=2)
            parts = [anchors, second, positives, negatives]
        else:
            (positives,) = self._anchors.positives(anchors, rng)
            second = self._anchors.negatives(anchors, negatives, rng=rng)
            parts = [anchors, positives, negatives, second]
        x = self._take(np.concatenate(parts), epoch, index)
        return (split_branches(x, _NAMES[self.form]),)
