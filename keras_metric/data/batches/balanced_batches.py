"""Batches of P classes with K samples each."""

import warnings

import numpy as np

from keras_metric._validation import check_choice, check_count, check_number
from keras_metric.data.batches.class_index import ClassIndex
from keras_metric.data.batches.class_schedule import ClassSchedule
from keras_metric.data.batches.epoch_batches import RowBatches, split_branches
from keras_metric.data.batches.hard_neighbors import HardNeighbors
from keras_metric.data.batches.seeded_permutation import hash_words, permuted


class BalancedBatches(RowBatches):
    """Batches of `classes_per_batch` classes with `samples_per_class` samples each.

    Use it for losses that compare the items of a batch: each anchor has positives and negatives,
    whatever the class sizes. A `keras.utils.PyDataset`, so `model.fit(BalancedBatches(...))` works
    on every backend. It yields `(x, y)` with `y` int32 numbers 0..C-1; `classes[y]` are the
    original labels. The rows of a class are adjacent.

    Rules. A batch contains a class at most once, and a sample at most once unless its class is too
    small. Classes occur equally often, up to one visit an epoch, carried over between epochs; see
    `power`. All samples of a class are used, in random order, before any is used again. The content
    of a batch depends on `seed`, `epoch` and the index of the batch only, not on threads or on the
    order of Keras's requests. `on_epoch_end` starts a new epoch: Keras calls it after each epoch,
    and once before the first. Call it yourself in a custom training loop.

    Set the length of an epoch by `batches_per_epoch`, not by `steps_per_epoch` of `fit`, which cuts
    epochs off at any batch.

    Args:
        x: array, memory map or tensor of the backend with a row for each sample; or a dict, tuple
            or list of them for a model of several inputs; or with `load` a sequence of items.
        y: labels, `(rows,)` or `(rows, 1)`: integers of any width, strings, floats (in
            float32 below 2**24), booleans, or Python objects that can be compared.
        classes_per_batch: integer, classes in each batch (P).
        samples_per_class: integer, samples of each class in a batch (K). With 1 there are no
            positives, which warns, unless `views` creates some. Proxy losses do not need positives.
        batches_per_epoch: integer, or None for as many as have `len(x)` rows, rounded up.
        seed: integer of at least 0; None for a random one from NumPy's global generator, which
            `keras.utils.set_random_seed` seeds.
        small_classes: treatment of classes with fewer than `samples_per_class` samples: `"repeat"`
            (default) uses samples several times in a batch and warns without `augment`; `"drop"`
            omits such classes, also from `classes`; `"error"` raises.
        power: number of at least 0. The probability of a class to be in a batch is proportional to
            its `count ** power`: 0 (default) for equal classes, 1 for the frequencies of the data,
            0.5 between the two.
        load: function from one item of `x` to an array (or dict or tuple of arrays), for example
            `ImageLoader((64, 64))` with `x` a list of paths. Runs in the threads of `workers`.
        augment: Keras layer (`Sequential`, `Pipeline`), applied to each image with independent,
            reproducible randomness; or a function of the batch, called `augment(x)`, or
            `augment(x, rng=...)` with a `numpy.random.Generator` if it has a parameter `rng`; or a
            dict of these by the names of `x`. Layers receive 8-bit images as float32 with values 0
            to 255: set `value_range` of `RandomBrightness` and the colour layers.
        views: integer, augmented views of each sample in a batch.
        view_layout: `"rows"` (default): all rows of the first view, then all of the second, with
            `y` repeated, for losses that read labels. `"branches"`: a dict
            `{"anchor": ..., "positive": ...}` and `y` once, for losses of two views (`views` is 2).
        reshuffle: False yields the same epoch always, for validation.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of `keras.utils.PyDataset`.
            `workers=4` loads and augments four batches at a time in threads.

    `keras.layers.RandomCrop` on its own crops a whole batch at one position; inside `augment` it
    crops each image independently. `RandomResizedCrop` of this module also scales.

    Raises:
        ValueError: fewer classes than `classes_per_batch`; `x` and `y` of different lengths;
            labels that are missing or one-hot; a class too small with `small_classes="error"`.

    Example:
    >>> import numpy as np
    >>> from keras_metric.data import BalancedBatches
    >>> x = np.arange(60.0).reshape(20, 3)
    >>> y = np.repeat(["ada", "bob", "cleo", "dan"], 5)
    >>> batches = BalancedBatches(x, y, classes_per_batch=2, samples_per_class=4, seed=0)
    >>> images, labels = batches[0]
    >>> images.shape, labels.dtype, len(set(labels)), len(batches)
    ((8, 3), dtype('int32'), 2, 3)
    >>> all(batches.classes[labels] == y[images[:, 0].astype(int) // 3])
    True

    Two views of each image, rotated and flipped independently:

    >>> import keras
    >>> augment = keras.Sequential(
    ...     [keras.layers.RandomRotation(0.1), keras.layers.RandomFlip("horizontal")]
    ... )
    >>> photos = np.random.default_rng(0).random((20, 8, 8, 3), dtype="float32")
    >>> batches = BalancedBatches(photos, y, 4, 2, seed=0, augment=augment, views=2)
    >>> images, labels = batches[0]
    >>> images.shape, bool((labels[:8] == labels[8:]).all())
    ((16, 8, 8, 3), True)
    """

    _schedule = None
    _hard_neighbors = None

    def __init__(
        self,
        x,
        y,
        classes_per_batch,
        samples_per_class,
        batches_per_epoch=None,
        seed=None,
        small_classes="repeat",
        power=0,
        load=None,
        augment=None,
        views=1,
        view_layout="rows",
        reshuffle=True,
        **kwargs,
    ):
        check_count("classes_per_batch", classes_per_batch)
        check_count("samples_per_class", samples_per_class)
        check_choice("small_classes", small_classes, ("repeat", "drop", "error"))
        check_number("power", power, at_least=0)
        check_count("views", views)
        check_choice("view_layout", view_layout, ("rows", "branches"))
        if view_layout == "branches" and views != 2:
            raise ValueError(f'view_layout="branches" needs views=2. Received: views={views}')
        index = ClassIndex(y, at_least=samples_per_class if small_classes == "drop" else 1)
        _check_classes(index, classes_per_batch, samples_per_class, small_classes, augment)
        if samples_per_class == 1 and views == 1:
            warnings.warn(
                "samples_per_class=1 gives batches without positives: pair and triplet losses have "
                "no gradient. Use at least 2, or views=2 with `augment`.",
                stacklevel=2,
            )
        if views > 1 and augment is None:
            raise ValueError(f"`views` needs `augment`. Received: views={views}, augment=None")
        self.classes_per_batch = classes_per_batch
        self.samples_per_class = samples_per_class
        self.power = power
        self.views = views
        self.view_layout = view_layout
        length = -(-len(index.rows) // (classes_per_batch * samples_per_class))
        settings = (batches_per_epoch, seed, load, augment, reshuffle)
        super().__init__(x, index, length, *settings, **kwargs)

    def set_hard_neighbors(self, rows=None, classes=None, fraction=0.5):
        """Replace some classes of each batch by hard neighbors of the other classes.

        A batch keeps some of its planned classes. The other classes are replaced by classes of
        their hard neighbors; each comes with that neighbor among its samples. The choice depends on
        the seed, the epoch and the index of the batch. `keras_metric.callbacks.HardExampleMining`
        searches the neighbors and calls this method. Without arguments batches are as planned
        again.

        Args:
            rows: integers `(rows, neighbors)`, for each row of `x` rows of other classes, the
                hardest first; -1 for none.
            classes: instead of `rows`, integers `(classes, neighbors)`: hard classes of each class.
            fraction: fraction of the classes of a batch that is replaced, above 0 and below 1.

        Raises:
            ValueError: both tables, one of another shape, or a fraction out of range.
        """
        if rows is None and classes is None:
            self._hard_neighbors = None
        else:
            self._hard_neighbors = HardNeighbors(self._index, rows, classes, fraction)

    @property
    def has_hard_neighbors(self):
        """Whether `set_hard_neighbors` is in effect."""
        return self._hard_neighbors is not None

    def rows_of(self, rows):
        """Return these rows of `x` as the model receives them, without augmentation."""
        return self._reader.take(np.asarray(rows))

    @property
    def ids(self):
        """Class number of each row of `x`, int32; -1 for rows of omitted classes."""
        return self._index.ids

    def _plan(self, epoch):
        if self._schedule is None:
            self._schedule = ClassSchedule(
                self._index.counts, self.classes_per_batch, len(self), self.power, self.seed
            )
        return self._schedule.plan(epoch)

    def _batch(self, epoch, index, plan):
        classes, visits = plan
        rows = self._rows(classes[index], visits[index])
        neighbors = self._hard_neighbors
        if neighbors is not None:
            rng = np.random.default_rng((self.seed, epoch, index, 2))
            rows = neighbors.replace(classes[index], rows, rng)
        rows = rows.reshape(-1)
        y = self._index.ids[rows]
        x = self._take(np.tile(rows, self.views), epoch, index)
        if self.view_layout == "rows":
            return x, np.tile(y, self.views)
        return split_branches(x, ("anchor", "positive")), y

    def _rows(self, classes, visits):
        """Return the samples of these visits of these classes, `(P, K)`.

        A class uses its samples in rounds, and a visit may start in one round and end in the next.
        Consecutive rounds that such visits connect have the same first and last K samples, so that
        no visit contains a sample twice; the other samples are permuted again in every round.
        """
        k = self.samples_per_class
        classes, counts = classes[:, None], self._index.counts[classes][:, None]
        rounds, position = np.divmod(visits[:, None] * k + np.arange(k), counts)
        connected = k // np.gcd(counts, k)
        seed = np.full(rounds.shape, self.seed)
        inner = (connected > 1) & (position >= k) & (position < counts - k)
        if inner.any():
            _, sizes, of_class = np.broadcast_arrays(position, counts - 2 * k, classes)
            keys = hash_words(seed[inner], of_class[inner], rounds[inner], 1)
            position[inner] = k + permuted(position[inner] - k, sizes[inner], keys)
        keys = hash_words(seed, classes, rounds // connected, 0)
        return self._index.rows[self._index.starts[classes] + permuted(position, counts, keys)]


def _check_classes(index, classes_per_batch, samples_per_class, small_classes, augment):
    num_classes = len(index.classes)
    small = int((index.counts < samples_per_class).sum())
    if small and small_classes == "error":
        label = index.classes[np.argmin(index.counts)]
        raise ValueError(
            f"Every class must have at least samples_per_class={samples_per_class} samples. "
            f"Received: {small} smaller classes, such as {label!r} with {index.counts.min()}. "
            'Pass small_classes="repeat" or "drop".'
        )
    if num_classes < classes_per_batch:
        dropped = (
            f" after those with fewer than {samples_per_class} samples were dropped; "
            'small_classes="repeat" keeps them'
            if small_classes == "drop"
            else ""
        )
        raise ValueError(
            "`classes_per_batch` must be at most the number of classes in `y`. Received: "
            f"classes_per_batch={classes_per_batch}, {num_classes} classes{dropped}."
        )
    if small and augment is None:
        warnings.warn(
            f"{small} of {num_classes} classes have fewer than samples_per_class="
            f"{samples_per_class} samples, which occur more than once in a batch. Pass `augment` "
            'to make them differ, small_classes="drop" to omit such classes, or '
            'small_classes="error".',
            stacklevel=3,
        )
