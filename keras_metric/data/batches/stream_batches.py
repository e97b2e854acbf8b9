"""Batches of P classes with K samples each from what can only be read from front to back."""

import collections
import collections.abc
import threading

import numpy as np

from keras_metric._validation import (
    as_array,
    check_count,
    check_function,
    is_missing,
    rows_hint,
    without_floats,
)
from keras_metric.data.batches.epoch_batches import EpochBatches
from keras_metric.data.batches.samples import Samples
from keras_metric.data.images.augmentation import Augmentation, check_augment

_INT32 = np.iinfo("int32")
_END = object()


class StreamBatches(EpochBatches):
    """Batches of `classes_per_batch` classes with `samples_per_class` samples each, from a stream.

    For a `tf.data.Dataset`, a Grain data set, or a generator, of single samples `(item, label)`,
    where the labels of all are not known beforehand and no sample can be had by its number. Where
    one can, `BalancedBatches` does better: its classes come equally often, and no sample is shown
    before its time. A `keras.utils.PyDataset` that yields `(x, y)` on every backend.

    Rules. `buffer_size` samples wait in memory. A batch takes classes of which enough are waiting,
    with a chance proportional to their number, and samples of these at random; then as many are
    read as were taken. So classes come as often as their samples do. At the end of the stream the
    buffer is used up, as far as it makes whole batches, and the stream begins again: no sample
    comes twice in a batch, or in a pass. What is in a batch depends on `seed`, the order of the
    stream, the epoch and the index of the batch alone. A batch far on, as where a broken run goes
    on, is reached by reading all before it, without loading.

    A stream in the order of its classes makes poor batches, however large the buffer: shuffle the
    files, or interleave them.

    Args:
        source: what gives an iterator of pairs `(item, label)` whenever `iter` is asked, the same
            each time: a `tf.data.Dataset` or Grain data set of single samples (not batched, not
            reshuffled), a list; or a function without arguments that returns such an iterator.
        classes_per_batch: integer, classes in each batch (P).
        samples_per_class: integer, samples of each class in a batch (K).
        batches_per_epoch: integer; a stream has no length to take it from.
        buffer_size: integer, how many samples wait, at least one batch. Default 10,000. With
            items that are paths or the bytes of image files, which `load` reads later, that is
            some ten megabytes.
        seed: integer of at least 0, or None to draw one.
        load: function from an item to an array, as in `BalancedBatches`. Runs in the threads of
            `workers`.
        augment: layer or function as in `BalancedBatches`.
        **kwargs: `workers` and `max_queue_size` of `keras.utils.PyDataset`.

    Attributes:
        classes: list of the labels seen up to now that are no integers, numbered as they come:
            `classes[y]` gives one back. Integers are their own numbers, and none of them is in it.

    Raises:
        TypeError: a source that can be read only once, or is none; an argument of another type.
        ValueError: a whole pass in which `classes_per_batch` classes never had
            `samples_per_class` samples in the buffer; samples that are no pairs; integer labels
            that do not fit 32 bits, or come with labels of other types.

    Example:
    >>> import numpy as np
    >>> from keras_metric.data import StreamBatches
    >>> def source():
    ...     for i in range(60):
    ...         yield np.full(1, i, "float32"), "abcdef"[i % 6]
    >>> batches = StreamBatches(source, 3, 2, batches_per_epoch=5, buffer_size=30, seed=0)
    >>> x, y = batches[0]
    >>> x.shape, y.dtype, len(set(y))
    ((6, 1), dtype('int32'), 3)
    >>> ["abcdef"[int(i) % 6] for i in x[:, 0]] == [batches.classes[i] for i in y]
    True
    """

    def __init__(
        self,
        source,
        classes_per_batch,
        samples_per_class,
        batches_per_epoch,
        buffer_size=10_000,
        seed=None,
        load=None,
        augment=None,
        **kwargs,
    ):
        check_count("classes_per_batch", classes_per_batch)
        check_count("samples_per_class", samples_per_class)
        check_count("buffer_size", buffer_size, at_least=classes_per_batch * samples_per_class)
        super().__init__(batches_per_epoch, seed, **kwargs)
        if self.use_multiprocessing:
            raise ValueError(
                "A stream cannot be read by several processes at once. Received: "
                "use_multiprocessing=True. Use workers= alone, which are threads."
            )
        check_function("load", load)
        check_augment(augment)
        self.classes_per_batch = classes_per_batch
        self.samples_per_class = samples_per_class
        self.buffer_size = buffer_size
        self._source = _renewable(source)
        self._load = load
        self._augment = augment
        self._augmentation = None
        self._lock = threading.Lock()
        self._numbers = {}
        self._numbered = None
        self.classes = []
        self._restart()
        self._begin()

    def _restart(self):
        self._chosen = _groups(self)
        self._place = 0
        # Batches that a thread chose on the way to its own.
        self._ready = {}

    def _batch(self, epoch, index, plan):
        # Keras looks at batches of epoch 0 and trains on those of epoch 1.
        place = max(epoch - 1, 0) * len(self) + index
        with self._lock:
            items, y = self._at(place)
            if self._augment is not None and self._augmentation is None:
                self._augmentation = Augmentation(self._augment, self._stacked(items[:1]))
        x = self._stacked(items)
        if self._augmentation is not None:
            x = self._augmentation(x, (self.seed, epoch, index))
        return x, y

    def _at(self, place):
        """Items and numbers of the classes of the batch at this place of the whole training."""
        if place in self._ready:
            return self._ready[place]
        if place < self._place:
            self._restart()
        while self._place <= place:
            try:
                batch = next(self._chosen)
            except BaseException:
                # A generator is over after an error; who asks again begins anew.
                self._restart()
                raise
            # Threads ask for neighbours, and Keras for the first two again.
            if place - self._place < 4 * max(self.workers, 1):
                self._ready[self._place] = batch
            self._place += 1
        for old in [one for one in self._ready if one < place - 4 * max(self.workers, 1)]:
            del self._ready[old]
        return self._ready[place]

    def _stacked(self, items):
        load = self._load or (lambda item: item)
        return Samples(list(items), load).take(np.arange(len(items)))

    def _number(self, label):
        label = _plain(label)
        numbered = not isinstance(label, int)
        if self._numbered not in (None, numbered):
            raise ValueError(
                "The labels of a stream must be integers, which are their own numbers, or all of "
                f"other types, which are numbered. Received both: {label!r} after others. Yield "
                "str(label)."
            )
        self._numbered = numbered
        if not numbered:
            if not _INT32.min <= label <= _INT32.max:
                raise ValueError(
                    f"Integer labels must fit 32 bits. Received: {label}. Yield it as a string: it "
                    "is numbered then."
                )
            return label
        if label is None or not isinstance(label, (str, tuple)) and is_missing(label):
            raise ValueError(
                f"Each sample must have a label. Received: {label!r}. Leave such samples out of "
                "the source."
            )
        if label not in self._numbers:
            self._numbers[label] = len(self.classes)
            self.classes.append(label)
        return self._numbers[label]


def _groups(batches):
    """Yield (items, numbers) of one batch after the other, for ever."""
    count = 0
    while True:
        before = count
        for batch in _pass(batches, before):
            yield batch
            count += 1
        if count == before:
            raise ValueError(
                f"A batch needs {batches.samples_per_class} samples of each of "
                f"{batches.classes_per_batch} classes. Received: a stream that never had them "
                f"among {batches.buffer_size} samples in a row. Shuffle or interleave its files, "
                "raise buffer_size, or lower the numbers."
            )


def _pass(batches, count):
    """The batches of one pass over the stream; `count` were made before it."""
    p, k = batches.classes_per_batch, batches.samples_per_class
    stream, more = batches._source(), True
    waiting, total, read = collections.defaultdict(list), 0, 0
    while True:
        while more and total < batches.buffer_size:
            pair = next(stream, _END)
            more = pair is not _END
            if more:
                item, label = _pair(pair)
                waiting[batches._number(label)].append((read, item))
                read, total = read + 1, total + 1
        enough = sorted(number for number, group in waiting.items() if len(group) >= k)
        if len(enough) >= p:
            rng = np.random.default_rng((batches.seed, count, 4))
            yield _drawn(waiting, enough, p, k, rng)
            count, total = count + 1, total - p * k
        elif more:
            total = _let_go(waiting, total - max(p * k, total // 4))
        else:
            return


def _drawn(waiting, enough, p, k, rng):
    """Take `k` samples of each of `p` classes out of the buffer."""
    chance = np.array([len(waiting[number]) for number in enough], "float64")
    chosen = rng.choice(enough, p, replace=False, p=chance / chance.sum())
    items = []
    for number in chosen.tolist():
        group = waiting.pop(number)
        places = rng.choice(len(group), k, replace=False).tolist()
        items += [group[i][1] for i in places]
        taken = set(places)
        if len(group) > k:
            waiting[number] = [one for i, one in enumerate(group) if i not in taken]
    return items, np.repeat(chosen, k).astype("int32")


def _let_go(waiting, kept):
    """Keep only the last `kept` samples that were read; returns how many that are."""
    read = sorted((when for group in waiting.values() for when, _ in group), reverse=True)
    oldest = read[kept - 1] if kept else read[0] + 1
    for number in list(waiting):
        waiting[number] = [one for one in waiting[number] if one[0] >= oldest]
        if not waiting[number]:
            del waiting[number]
    return kept


def _renewable(source):
    """A function that begins the stream anew."""
    if hasattr(source, "as_numpy_iterator"):
        return source.as_numpy_iterator
    if not hasattr(source, "__iter__") or isinstance(source, (str, bytes, dict, type)):
        if not callable(source) or isinstance(source, type):
            raise TypeError(
                "`source` must be a data set of pairs (item, label), or a function that returns an "
                f"iterator of them. Received: {type(source).__name__}"
            )
        return lambda: _begun(source)
    if iter(source) is source:
        raise TypeError(
            "`source` must be readable again from the beginning. Received: an iterator, "
            f"{type(source).__name__}. Pass the function that makes it, without calling it."
        )
    return lambda: iter(source)


def _begun(source):
    stream = source()
    if not hasattr(stream, "__iter__"):
        raise TypeError(
            "`source` must be a function that returns an iterator of pairs (item, label). "
            f"Received: one that returned {stream!r}"
        )
    return iter(stream)


def _pair(pair):
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            "A stream must give single samples, pairs (item, label). Received: "
            f"{type(pair).__name__}"
            + (f" of {len(pair)} parts." if isinstance(pair, (tuple, list)) else ".")
        )
    return pair


def _plain(label):
    """A label as an int, a str, or whatever else it is."""
    if not isinstance(label, (str, bytes, int)):
        array = as_array("label", label)
        if array.size != 1:
            raise ValueError(
                "Each sample must have one label. Received: a label of shape "
                f"{array.shape}. Is the stream batched? tf.data has unbatch()."
                f"{rows_hint(array[None], 'label')}"
            )
        label = without_floats("label", array.reshape(-1))[0]
        label = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, bytes):
        try:
            return label.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"A label of bytes must be a string in UTF-8. Received: {label[:80]!r}: {error}. "
                "Decode it in the source."
            ) from None
    if not isinstance(label, collections.abc.Hashable):
        raise TypeError(
            "A label must be an integer, a string or another value that can be compared. Received: "
            f"{label!r}"
        )
    return int(label) if isinstance(label, int) else label
