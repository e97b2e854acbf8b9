"""Batches of ready-made quadruplets."""

import numpy as np

from keras_metric._validation import check_choice, check_count
from keras_metric.data.batches.anchors import Anchors, check_classes
from keras_metric.data.batches.class_index import ClassIndex
from keras_metric.data.batches.seeded_batches import SeededBatches, branches

_NAMES = {
    "second_negative": ("anchor", "positive", "negative", "second_negative"),
    "two_anchors": ("anchor", "second_anchor", "positive", "negative"),
}


class QuadrupletBatches(SeededBatches):
    """Batches of four: a triplet and a second negative, or a triplet and a second anchor.

    For `QuadrupletModel`. A `keras.utils.PyDataset` that yields a dict as a 1-tuple; there is no
    `y`. Two forms:

    - `"second_negative"` (Chen et al.): `anchor`, `positive`, `negative`, `second_negative`;
      the two negatives are of two classes, and neither is the anchor's.
    - `"two_anchors"`: `anchor`, `second_anchor`, `positive`, `negative`; the first three are
      three different samples of one class.

    Anchors go through all samples of classes large enough (two samples, or three with two
    anchors), in random order, before any comes again. What is in a batch depends on `seed`,
    `epoch` and its index alone; see `BalancedBatches`.

    Args:
        x: rows as in `BalancedBatches`.
        y: labels of any kind, as in `BalancedBatches`.
        batch_size: integer, quadruplets in a batch.
        form: `"second_negative"` (default, the published one) or `"two_anchors"`.
        batches_per_epoch: integer, or None for as many as make every sample an anchor.
        seed: integer of at least 0, or None to draw one.
        load: function from an item of `x` to an array, as in `BalancedBatches`.
        augment: layer or function as in `BalancedBatches`; each image is changed anew.
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
        index = ClassIndex(y)
        check_classes(index, 3 if form == "second_negative" else 2)
        self.batch_size = batch_size
        self.form = form
        self._anchors = Anchors(index, batch_size, at_least=3 if form == "two_anchors" else 2)
        if batches_per_epoch is None:
            batches_per_epoch = -(-len(self._anchors) // batch_size)
        super().__init__(x, index, batches_per_epoch, seed, load, augment, reshuffle, **kwargs)

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
        return (branches(x, _NAMES[self.form]),)
