"""Batches of ready-made triplets."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.data.batches.anchor_sampling import AnchorSampler
from keras_metric.data.batches.epoch_batches import RowBatches, split_branches


class TripletBatches(RowBatches):
    """Batches of an anchor, a positive of its class and a negative of another class.

    For `TripletModel` with random triplets, as in the early papers. Mining inside a labelled batch
    (`BalancedBatches`) finds harder triplets in the same time. A `keras.utils.PyDataset` that
    yields `({"anchor": ..., "positive": ..., "negative": ...},)`, without `y`.

    Rules. All samples of classes with at least two samples are anchors, in random order, before any
    is used again. The positive is a random other sample of the class, the negative a random sample
    of any other class. The content of a batch depends on `seed`, `epoch` and its index only; see
    `BalancedBatches`.

    Args:
        x: rows as in `BalancedBatches`.
        y: labels of any kind, as in `BalancedBatches`.
        batch_size: integer, triplets in a batch.
        batches_per_epoch: integer, or None for as many as use every sample as an anchor.
        seed: integer of at least 0, or None for a random one.
        load: function from an item of `x` to an array, as in `BalancedBatches`.
        augment: layer or function as in `BalancedBatches`, applied to each image independently.
        reshuffle: False yields the same epoch always.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of `keras.utils.PyDataset`.

    Raises:
        TypeError: for an argument of another type.
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
        check_count("batch_size", batch_size)
        self.batch_size = batch_size
        self._anchors = AnchorSampler(y, batch_size)
        index, length = self._anchors.index, self._anchors.batches_per_round
        settings = (batches_per_epoch, seed, load, augment, reshuffle)
        super().__init__(x, index, length, *settings, **kwargs)

    def _batch(self, epoch, index, plan):
        rng = np.random.default_rng((self.seed, epoch, index))
        anchors = self._anchors.batch(self.seed, epoch, index, len(self))
        (positives,) = self._anchors.positives(anchors, rng)
        negatives = self._anchors.negatives(anchors, rng=rng)
        x = self._take(np.concatenate([anchors, positives, negatives]), epoch, index)
        return (split_branches(x, ("anchor", "positive", "negative")),)
