"""Batches of P classes with K samples each from a stream without random access."""

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
from keras_metric.data.batches.row_reader import RowReader
from keras_metric.data.images.augmentation import Augmentation, check_augment

_INT32 = np.iinfo("int32")
_END = object()


class StreamBatches(EpochBatches):
    """Batches of `classes_per_batch` classes with `samples_per_class` samples each, from a stream.

    For a `tf.data.Dataset`, a Grain data set, or a generator, of single samples `(item, label)`,
    where the labels are not known in advance and samples have no random access. With random access
    use `BalancedBatches`: its classes occur equally often, and it uses every sample before it
    repeats one. A `keras.utils.PyDataset` that yields `(x, y)` on every backend.

    Rules. `buffer_size` samples wait in memory. A batch takes classes that have enough samples in
    the buffer, with a probability proportional to their number of samples, and random samples of
    these; then as many new samples are read. So the frequency of a class is that of its samples. At
    the end of the stream the remaining buffer is used for complete batches, and the stream starts
    again: a batch, and a pass over the stream, has no sample twice. The content of a batch depends
    on `seed`, the order of the stream, the epoch and the index of the batch only. To resume at a
    later batch, the source reads all samples before it, without loading them.

    A stream sorted by class gives poor batches with any buffer size: shuffle or interleave its
    files.

    Args:
        source: returns a new iterator of pairs `(item, label)`, in the same order each time, when
            `iter` is called: a `tf.data.Dataset` or Grain data set of single samples (not batched,
            not reshuffled), a list; or a function without arguments that returns such an iterator.
        classes_per_batch, samples_per_class: integers; P classes with K samples each.
        batches_per_epoch: integer; the length of a stream is not known.
        buffer_size: integer, samples in the buffer, at least one batch. Default 10,000, which
            takes some ten megabytes for items that are paths or the bytes of image files.
        seed, load, augment: as in `BalancedBatches`.
        **kwargs: `workers` and `max_queue_size` of `keras.utils.PyDataset`.

    Attributes:
        classes: list of the labels read so far that are not integers, in the order of their
            numbers: `classes[y]` is the original label. Integer labels are their own numbers and
            are not in the list.

    Raises:
        TypeError: a source that can be read only once, or is not a source; an argument of another
            type.
        ValueError: during a complete pass the buffer never has `samples_per_class` samples of
            `classes_per_batch` classes; samples that are not pairs; integer labels outside 32
            bits, or mixed with labels of other types.

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
                "A stream cannot be read by several processes. Received: use_multiprocessing=True. "
                "Use only workers=, which are threads."
            )
        check_function("load", load)
        check_augment(augment)
        self.classes_per_batch = classes_per_batch
        self.samples_per_class = samples_per_class
        self.buffer_size = buffer_size
        self._source = _restartable(source)
        self._load = load
        self._augment = augment
        self._augmentation = None
        self._lock = threading.Lock()
        self._numbers = {}
        self._has_integers = None
        self.classes = []
        self._restart()
        self._begin()

    def _restart(self):
        self._chosen = _choose_batches(self)
        self._position = 0
        # Batches that were chosen on the way to a later one.
        self._ready = {}

    def _batch(self, epoch, index, plan):
        # Keras inspects batches of epoch 0 and trains on those of epoch 1.
        position = max(epoch - 1, 0) * len(self) + index
        with self._lock:
            items, y = self._at(position)
            if self._augment is not None and self._augmentation is None:
                self._augmentation = Augmentation(self._augment, self._read(items[:1]))
        x = self._read(items)
        if self._augmentation is not None:
            x = self._augmentation(x, (self.seed, epoch, index))
        return x, y

    def _at(self, position):
        """Return the items and class numbers of the batch at this position of the training."""
        if position in self._ready:
            return self._ready[position]
        if position < self._position:
            self._restart()
        # Threads request batches out of order, and Keras requests the first two again.
        window = 4 * max(self.workers, 1)
        while self._position <= position:
            try:
                batch = next(self._chosen)
            except BaseException:
                # A generator cannot continue after an error.
                self._restart()
                raise
            if position - self._position < window:
                self._ready[self._position] = batch
            self._position += 1
        for old in [one for one in self._ready if one < position - window]:
            del self._ready[old]
        return self._ready[position]

    def _read(self, items):
        load = self._load or (lambda item: item)
        return RowReader(list(items), load).take(np.arange(len(items)))

    def _number(self, label):
        label = _plain_label(label)
        is_integer = isinstance(label, int)
        if self._has_integers not in (None, is_integer):
            raise ValueError(
                "The labels of a stream must be all integers, or all of other types. Received "
                f"both: {label!r} after others. Yield str(label)."
            )
        self._has_integers = is_integer
        if is_integer:
            if not _INT32.min <= label <= _INT32.max:
                raise ValueError(f"Integers must fit 32 bits. Received: {label}. Yield str(label).")
            return label
        if label is None or not isinstance(label, (str, tuple)) and is_missing(label):
            raise ValueError(f"A sample must have a label. Received: {label!r}. Omit the sample.")
        if label not in self._numbers:
            self._numbers[label] = len(self.classes)
            self.classes.append(label)
        return self._numbers[label]


def _choose_batches(batches):
    """Yield (items, class numbers) of one batch after the other, without end."""
    count = 0
    while True:
        before = count
        for batch in _choose_in_pass(batches, before):
            yield batch
            count += 1
        if count == before:
            raise ValueError(
                f"A batch needs {batches.samples_per_class} samples of each of "
                f"{batches.classes_per_batch} classes. Received: a stream that never had them "
                f"among {batches.buffer_size} samples in a row. Shuffle or interleave its files, "
                "raise buffer_size, or lower the numbers."
            )


def _choose_in_pass(batches, count):
    """Yield the batches of one pass over the stream; `count` batches came before it."""
    p, k = batches.classes_per_batch, batches.samples_per_class
    stream, more = batches._source(), True
    buffer, size, read = collections.defaultdict(list), 0, 0
    while True:
        while more and size < batches.buffer_size:
            pair = next(stream, _END)
            more = pair is not _END
            if more:
                item, label = _checked_pair(pair)
                buffer[batches._number(label)].append((read, item))
                read, size = read + 1, size + 1
        enough = sorted(number for number, group in buffer.items() if len(group) >= k)
        if len(enough) >= p:
            rng = np.random.default_rng((batches.seed, count, 4))
            yield _take_batch(buffer, enough, p, k, rng)
            count, size = count + 1, size - p * k
        elif more:
            size = _discard_oldest(buffer, size - max(p * k, size // 4))
        else:
            return


def _take_batch(buffer, enough, p, k, rng):
    """Remove `k` samples of each of `p` classes from the buffer and return them."""
    weights = np.array([len(buffer[number]) for number in enough], "float64")
    chosen = rng.choice(enough, p, replace=False, p=weights / weights.sum())
    items = []
    for number in chosen.tolist():
        group = buffer.pop(number)
        positions = rng.choice(len(group), k, replace=False).tolist()
        items += [group[i][1] for i in positions]
        taken = set(positions)
        if len(group) > k:
            buffer[number] = [one for i, one in enumerate(group) if i not in taken]
    return items, np.repeat(chosen, k).astype("int32")


def _discard_oldest(buffer, kept):
    """Keep the `kept` samples that were read last, and return that number."""
    read = sorted((when for group in buffer.values() for when, _ in group), reverse=True)
    oldest = read[kept - 1] if kept else read[0] + 1
    for number in list(buffer):
        buffer[number] = [one for one in buffer[number] if one[0] >= oldest]
        if not buffer[number]:
            del buffer[number]
    return kept


def _restartable(source):
    """Return a function that starts the stream from its beginning."""
    if hasattr(source, "as_numpy_iterator"):
        return source.as_numpy_iterator
    if not hasattr(source, "__iter__") or isinstance(source, (str, bytes, dict, type)):
        if not callable(source) or isinstance(source, type):
            raise TypeError(
                "`source` must be a data set of pairs (item, label), or a function that returns an "
                f"iterator of them. Received: {type(source).__name__}"
            )
        return lambda: _call_source(source)
    if iter(source) is source:
        raise TypeError(
            "`source` must be readable again from the beginning. Received: an iterator, "
            f"{type(source).__name__}. Pass the function that makes it, without calling it."
        )
    return lambda: iter(source)


def _call_source(source):
    stream = source()
    if not hasattr(stream, "__iter__"):
        raise TypeError(f"`source` must return an iterator of pairs. Received: {stream!r}")
    return iter(stream)


def _checked_pair(pair):
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        length = f" of {len(pair)} parts" if isinstance(pair, (tuple, list)) else ""
        received = f"{type(pair).__name__}{length}"
        raise ValueError(f"A stream must yield pairs (item, label). Received: {received}.")
    return pair


def _plain_label(label):
    """Return a label as an int, a str, or the object that it is."""
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
        raise TypeError(f"A label must be a value that can be compared. Received: {label!r}")
    return int(label) if isinstance(label, int) else label
