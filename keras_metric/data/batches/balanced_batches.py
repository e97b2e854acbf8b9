"""Batches of P classes with K samples each."""

import warnings

import numpy as np

from keras_metric._validation import check_choice, check_count, check_number
from keras_metric.data.batches.class_index import ClassIndex
from keras_metric.data.batches.class_rotation import ClassRotation
from keras_metric.data.batches.seeded_batches import SeededBatches, branches
from keras_metric.data.batches.shuffling import mixed, shuffled
from keras_metric.data.batches.steering import Steering


class BalancedBatches(SeededBatches):
    """Batches of `classes_per_batch` classes with `samples_per_class` samples each.

    The batches that metric losses want: whatever the class sizes, each anchor has positives and
    negatives. A `keras.utils.PyDataset`, so `model.fit(BalancedBatches(...))` works on every
    backend. It yields `(x, y)` with `y` int32 numbers 0..C-1; `classes[y]` gives the labels back.
    The rows of a class lie side by side.

    Rules. No class comes twice in a batch, and no sample twice unless its class is too small.
    All classes come equally often (to one visit an epoch, carried over from epoch to epoch); see
    `power`. A class shows all its samples, in random order, before it shows one again. What is
    in a batch depends on `seed`, `epoch` and the index of the batch alone, not on threads or on
    the order in which Keras asks. `on_epoch_end`, which Keras calls (`fit` once before it starts,
    too), goes on to a newly drawn epoch; in a loop of your own call it yourself.

    Use `batches_per_epoch` for the length of an epoch, not `steps_per_epoch` of `fit`, which cuts
    epochs anywhere.

    Args:
        x: array, memory map or tensor of the backend with a row for each sample; or a dict, tuple
            or list of them for a model of several inputs; or with `load` a sequence of items.
        y: labels, `(rows,)` or `(rows, 1)`: integers of any width, strings, floats (in
            float32 below 2**24), booleans, or Python objects that can be compared.
        classes_per_batch: integer, classes in each batch (P).
        samples_per_class: integer, samples of each class in a batch (K). With 1 there are no
            positives: a warning says so, unless `views` makes some. Proxy losses do not mind.
        batches_per_epoch: integer, or None for as many batches as give `len(x)` rows, rounded up.
        seed: integer of at least 0; None draws one from NumPy's global generator, which
            `keras.utils.set_random_seed` seeds.
        small_classes: what happens to classes with fewer than `samples_per_class` samples:
            `"repeat"` (default; no class is lost) shows samples more than once in a batch and
            warns if no `augment` tells them apart; `"drop"` leaves such classes out, also out of
            `classes`; `"error"` raises.
        power: number of at least 0. The chance of a class to be in a batch is proportional to its
            `count ** power`: 0 (default) all classes equally, 1 as the samples come, 0.5 between.
        load: function from one item of `x` to an array (or dict or tuple of arrays), for example
            `ImageLoader((64, 64))` with `x` a list of paths. Runs in the threads of `workers`.
        augment: keras layer (`Sequential`, `Pipeline`), changed anew for each image and
            reproducibly; or a function of the batch, called `augment(x)`, or `augment(x, rng=...)`
            with a `numpy.random.Generator` if it has a parameter of that name; or a dict of these
            by the names of `x`. Layers get 8-bit images as float32 (values stay 0 to 255:
            `RandomBrightness` and the colour layers have a `value_range`).
        views: integer, how many augmented views of each sample a batch has.
        view_layout: `"rows"` (default): first all rows of the first view, then all of the second,
            and `y` repeated, for losses that read labels. `"branches"`: a dict
            `{"anchor": ..., "positive": ...}` and `y` once, for losses of two views (`views` is 2).
        reshuffle: False yields the same epoch always, as validation wants.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of `keras.utils.PyDataset`.
            `workers=4` loads and augments four batches at a time in threads.

    `keras.layers.RandomCrop` alone cuts a whole batch at one place; inside `augment` it cuts each
    image at its own. `RandomResizedCrop` of this module scales, too.

    Raises:
        TypeError: for an argument of another type.
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

    Two views of each image, every one turned and mirrored in its own way:

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

    _rotation = None
    _steering = None

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
            raise ValueError(
                f'`view_layout="branches"` must come with views=2. Received: views={views}'
            )
        index = ClassIndex(y, at_least=samples_per_class if small_classes == "drop" else 1)
        _check_classes(index, classes_per_batch, samples_per_class, small_classes, augment)
        if samples_per_class == 1 and views == 1:
            warnings.warn(
                "samples_per_class=1 gives batches without positives: pair and triplet losses "
                "learn nothing from them. Use at least 2, or views=2 with `augment`.",
                stacklevel=2,
            )
        if views > 1 and augment is None:
            raise ValueError(
                f"`views` must come with `augment`, or all views are equal. Received: views={views}"
            )
        self.classes_per_batch = classes_per_batch
        self.samples_per_class = samples_per_class
        self.power = power
        self.views = views
        self.view_layout = view_layout
        if batches_per_epoch is None:
            batches_per_epoch = -(-len(index.rows) // (classes_per_batch * samples_per_class))
        super().__init__(x, index, batches_per_epoch, seed, load, augment, reshuffle, **kwargs)

    def set_hard_neighbors(self, rows=None, classes=None, fraction=0.5):
        """Fill a part of each batch with what is hard to tell from the rest of it.

        A batch begins with some of its planned classes. The others make room for the classes of
        difficult neighbours, each with that neighbour among its samples. Which of them come is
        drawn from the seed, the epoch and the index of the batch. `HardExampleMining` of
        `keras_metric.callbacks` finds the neighbours and calls this; without arguments batches
        are as planned again.

        Args:
            rows: integers `(rows, neighbors)`, for each row of `x` rows of other classes, the
                hardest first; -1 for none.
            classes: instead of `rows`, integers `(classes, neighbors)`: hard classes of each class.
            fraction: fraction of the classes of a batch that make room, above 0 and below 1.

        Raises:
            ValueError: both tables, one of another shape, or a fraction out of range.
        """
        if rows is None and classes is None:
            self._steering = None
        else:
            self._steering = Steering(self._index, rows, classes, fraction)

    @property
    def has_hard_neighbors(self):
        """Whether `steer` is in force."""
        return self._steering is not None

    def rows_of(self, rows):
        """The rows of `x` with these numbers as the model gets them, but for augmentation."""
        return self._samples.take(np.asarray(rows))

    @property
    def ids(self):
        """Class number of each row of `x`, int32; -1 for rows of classes that are left out."""
        return self._index.ids

    def _plan(self, epoch):
        if self._rotation is None:
            self._rotation = ClassRotation(
                self._index.counts, self.classes_per_batch, len(self), self.power, self.seed
            )
        return self._rotation.plan(epoch)

    def _batch(self, epoch, index, plan):
        classes, visits = plan
        rows = self._rows(classes[index], visits[index])
        steering = self._steering
        if steering is not None:
            rng = np.random.default_rng((self.seed, epoch, index, 2))
            rows = steering.steered(classes[index], rows, rng)
        rows = rows.reshape(-1)
        y = self._index.ids[rows]
        x = self._take(np.tile(rows, self.views), epoch, index)
        if self.view_layout == "rows":
            return x, np.tile(y, self.views)
        return branches(x, ("anchor", "positive")), y

    def _rows(self, classes, visits):
        """The samples that these visits of these classes show, `(P, K)`.

        A class shows its samples round after round, and a visit may begin in one round and end
        in the next. Rounds that such visits join keep their first and last K samples in place,
        so that no visit meets a sample twice; the others are shuffled in every round.
        """
        k = self.samples_per_class
        classes, counts = classes[:, None], self._index.counts[classes][:, None]
        rounds, place = np.divmod(visits[:, None] * k + np.arange(k), counts)
        joined = k // np.gcd(counts, k)
        seed = np.full(rounds.shape, self.seed)
        inner = (joined > 1) & (place >= k) & (place < counts - k)
        if inner.any():
            _, sizes, of_class = np.broadcast_arrays(place, counts - 2 * k, classes)
            keys = mixed(seed[inner], of_class[inner], rounds[inner], 1)
            place[inner] = k + shuffled(place[inner] - k, sizes[inner], keys)
        keys = mixed(seed, classes, rounds // joined, 0)
        return self._index.rows[self._index.starts[classes] + shuffled(place, counts, keys)]


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
            f"{samples_per_class} samples, which are shown more than once in a batch. Pass "
            '`augment` to make them differ, small_classes="drop" to leave such classes out, '
            'or small_classes="error".',
            stacklevel=3,
        )
