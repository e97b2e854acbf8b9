"""BalancedBatches: exact P x K, equal class frequencies, a function of seed, epoch and index."""

import time

import keras
import numpy as np
import pytest

from keras_metric.data import BalancedBatches
from keras_metric.data.batches.class_index import ClassIndex, number_labels
from keras_metric.data.batches.seeded_permutation import hash_words, permuted

pytestmark = pytest.mark.filterwarnings("ignore:.*classes have fewer than samples_per_class")


def rows(length):
    """x whose values are the row numbers."""
    return np.arange(length, dtype="float32").reshape(-1, 1)


def uneven_labels(rng, num_classes=12, largest=30):
    y = np.repeat(np.arange(num_classes), rng.integers(4, largest, num_classes))
    return rng.permutation(y)


def epoch_of(batches):
    return [batches[i] for i in range(len(batches))]


def equal(one, other):
    return all(np.array_equal(a, b) for x, y in zip(one, other) for a, b in zip(x, y))


@pytest.mark.parametrize("trial", range(12))
def test_every_batch_has_p_classes_of_k_different_samples(trial):
    rng = np.random.default_rng(trial)
    y = uneven_labels(rng)
    p, k = int(rng.integers(2, 13)), int(rng.integers(2, 5))
    batches = BalancedBatches(rows(len(y)), y, p, k, seed=trial, power=rng.choice([0, 0.5, 1, 3]))
    for _ in range(2):
        for x, labels in epoch_of(batches):
            assert labels.dtype == np.int32 and labels.shape == (p * k,)
            assert (np.unique(labels, return_counts=True)[1] == k).all()
            assert len(np.unique(labels)) == p
            assert len(np.unique(x)) == p * k
            assert (batches.classes[labels] == y[x[:, 0].astype(int)]).all()
        batches.on_epoch_end()


@pytest.mark.parametrize(("classes", "p", "k", "n"), [(3, 2, 2, 7), (10, 4, 3, 11), (40, 7, 2, 2)])
def test_classes_are_equally_frequent_and_samples_not_repeated_in_a_round(classes, p, k, n):
    y = np.repeat(np.arange(classes), n)
    batches = BalancedBatches(rows(len(y)), y, p, k, seed=4)
    visits, shown = np.zeros(classes, int), np.zeros(len(y), int)
    for epoch in range(9):
        now = np.zeros(classes, int)
        for x, labels in epoch_of(batches):
            now[labels[::k]] += 1
            for i in np.unique(labels):
                shown[x[labels == i, 0].astype(int)] += 1
                assert np.ptp(shown[y == i]) <= 1, "a sample was repeated before all were used"
        assert now.min() >= 1 and np.ptp(now) <= 2, f"epoch {epoch}: {now}"
        visits += now
        assert np.ptp(visits) <= 1, f"after epoch {epoch}: {visits}"
        batches.on_epoch_end()
    assert shown.min() >= 1


def test_short_epochs_still_visit_every_class_and_sample():
    y = np.repeat(np.arange(30), 6)
    batches = BalancedBatches(rows(180), y, 4, 2, batches_per_epoch=2, seed=0)
    used = []
    for _ in range(12):  # 12 epochs x 2 batches x 4 classes = 96 visits, 3.2 rounds of 30 classes
        used += [x[:, 0] for x, _ in epoch_of(batches)]
        batches.on_epoch_end()
    used = np.concatenate(used)
    assert len(np.unique(used)) == 180


def test_batches_combine_different_classes():
    """With five of ten classes in a batch 252 sets are possible; most batches differ."""
    y = np.repeat(np.arange(10), 400)
    batches = BalancedBatches(rows(4000), y, 5, 4, seed=0)
    sets = {tuple(np.unique(labels)) for _, labels in epoch_of(batches)}
    assert len(batches) == 200 and len(sets) > 120


def test_samples_of_a_class_are_combined_differently_in_every_round():
    """41 samples in groups of four: one fixed order would give each sample six neighbours."""
    y = np.repeat([0, 1], 41)
    batches = BalancedBatches(rows(82), y, 2, 4, seed=0, batches_per_epoch=41)
    met = [set() for _ in y]
    for x, labels in epoch_of(batches):
        for i in (0, 1):
            for row in (group := x[labels == i, 0].astype(int)):
                met[row].update(group)
    assert np.mean([len(others) - 1 for others in met]) > 9


def test_epochs_differ_and_come_back():
    y = np.repeat(np.arange(8), 9)
    batches = BalancedBatches(rows(72), y, 4, 3, seed=1)
    first = epoch_of(batches)
    batches.on_epoch_end()
    second = epoch_of(batches)
    assert not equal(first, second)
    batches.epoch = 0
    assert equal(first, epoch_of(batches))
    other = BalancedBatches(rows(72), y, 4, 3, seed=2)
    assert not equal(first, epoch_of(other))
    resumed = BalancedBatches(rows(72), y, 4, 3, seed=1)
    resumed.epoch = 1
    assert equal(second, epoch_of(resumed))
    fixed = BalancedBatches(rows(72), y, 4, 3, seed=1, reshuffle=False)
    fixed.on_epoch_end()
    assert equal(first, epoch_of(fixed))


def test_seed_none_follows_the_global_seed():
    y = np.repeat(np.arange(8), 9)
    made = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        made.append(epoch_of(BalancedBatches(rows(72), y, 4, 3)))
    assert equal(*made)
    assert not equal(made[0], epoch_of(BalancedBatches(rows(72), y, 4, 3)))


class Recording(BalancedBatches):
    """Records which batch was requested in which epoch."""

    def __init__(self, *args, **kwargs):
        self.notes = {}
        super().__init__(*args, **kwargs)

    def __getitem__(self, index):
        epoch = self.epoch
        x, y = super().__getitem__(index)
        self.notes.setdefault((epoch, index), []).append(x)
        return x, y


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_fit_uses_the_same_batches_with_any_number_of_workers(workers):
    y = np.repeat(np.arange(6), 12)
    source = Recording(rows(72), y, 3, 4, seed=3, workers=workers, max_queue_size=4)
    model = keras.Sequential([keras.layers.Dense(6)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    validation = BalancedBatches(rows(72), y, 3, 4, seed=9, reshuffle=False, workers=workers)
    model.fit(source, epochs=3, verbose=0, validation_data=validation)
    plain = BalancedBatches(rows(72), y, 3, 4, seed=3)
    epochs = {epoch for epoch, _ in source.notes}
    assert len(epochs) >= 3
    for (epoch, index), used in source.notes.items():
        plain.epoch = epoch
        for x in used:
            assert np.array_equal(x, plain[index][0])
    # fit uses whole, different epochs. With threads, Keras on JAX may request some batches before
    # the first epoch, trains on these first, and omits as many at the end.
    whole = sum(all((e, i) in source.notes for i in range(len(source))) for e in epochs)
    assert whole >= (2 if workers > 1 else 3)


LABELS = {
    "large integers": np.array([2**40, 2**40 + 1, -5, 2**62]),
    "unsigned": np.array([2**64 - 1, 2**64 - 2, 0, 1], dtype="uint64"),
    "close floats": np.array([1.0, np.nextafter(1.0, 2), 16777216.0, 16777217.0]),
    "strings": np.array(["ada", "Ada", "ad", "a" * 50]),
    "bytes": np.array([b"a", b"b", b"ab", b"c"]),
    "booleans": np.array([True, False]),
    "int8": np.array([-128, 127, 0, 1], dtype="int8"),
    "objects": np.array(["ada", 7, (1, 2), 2.5], dtype=object),
    "object strings": np.array(["ada", "b" * 100, "x", "y"], dtype=object),
    "large Python integers": np.array([2**80, 2**80 + 1, 3, 4], dtype=object),
    "dates": np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind_are_distinguished(kind, rng):
    which = rng.permutation(np.repeat(np.arange(len(LABELS[kind])), 6))
    y = LABELS[kind][which]
    batches = BalancedBatches(rows(len(y)), y, 2, 3, seed=0)
    assert len(batches.classes) == len(LABELS[kind])
    number = {}
    for x, labels in epoch_of(batches):
        for row, label in zip(x[:, 0].astype(int), labels):
            assert number.setdefault(which[row], label) == label
            assert batches.classes[label] == y[row]
    assert len(set(number.values())) == len(number) > 1


@pytest.mark.parametrize("given", [list, lambda y: y[:, None], keras.ops.convert_to_tensor])
def test_labels_as_list_column_or_tensor(given):
    y = np.repeat(np.arange(4), 5).astype("int32")
    one = BalancedBatches(rows(20), y, 2, 3, seed=0)
    assert equal(epoch_of(one), epoch_of(BalancedBatches(rows(20), given(y), 2, 3, seed=0)))


class NAType:
    """Like pandas' NA: comparisons return NA, whose truth value raises."""

    def __eq__(self, other):
        return self

    __ne__ = __eq__
    __hash__ = object.__hash__

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


def test_number_labels_agrees_with_numpy(rng):
    for y in (rng.integers(0, 50, 300), rng.integers(0, 50, 300).astype(str)):
        classes, ids = number_labels(y)
        expected = np.unique(y, return_inverse=True)
        assert np.array_equal(classes, expected[0]) and np.array_equal(ids, expected[1])


def test_integers_beyond_64_bits_stay_different():
    """NumPy converts them to floats, in which three of them are equal."""
    y = [2**63, 2**63 + 1, -1, 2**63 + 2, -1]
    classes, ids = number_labels(np.array(y, dtype=object))
    assert classes.tolist() == sorted(set(y)) and classes[ids].tolist() == y


def test_power_weighs_classes_by_their_size():
    counts = np.array([400, 100, 100, 100, 25, 25])
    y = np.repeat(np.arange(6), counts)
    for power in (0, 0.5, 1.0):
        weights = counts**power
        batches = BalancedBatches(rows(750), y, 2, 2, seed=0, power=power, batches_per_epoch=300)
        visits = np.zeros(6)
        for _, labels in epoch_of(batches):
            visits += np.bincount(labels, minlength=6) / 2
        fraction = np.minimum(weights / weights.sum() * 2, 1)
        if power == 1:  # Class 0 would occur 1.07 times in a batch, and so is in all of them.
            fraction[1:] = weights[1:] / weights[1:].sum()
        np.testing.assert_allclose(visits, fraction * 300, atol=1.01)


def test_small_classes():
    y = np.array(["a"] * 5 + ["b"] * 2 + ["c"] * 4 + ["d"])
    with pytest.warns(UserWarning, match="2 of 4 classes have fewer than samples_per_class=3"):
        batches = BalancedBatches(rows(12), y, 4, 3, seed=0)
    x, labels = batches[0]
    assert sorted(x[labels == 1, 0].tolist()) in ([5, 5, 6], [5, 6, 6])
    dropped = BalancedBatches(rows(12), y, 2, 3, seed=0, small_classes="drop")
    assert dropped.classes.tolist() == ["a", "c"]
    for x, labels in epoch_of(dropped):
        assert (dropped.classes[labels] == y[x[:, 0].astype(int)]).all()
    with pytest.raises(ValueError, match="2 smaller classes, such as 'd' with 1|np.str_"):
        BalancedBatches(rows(12), y, 2, 3, small_classes="error")
    with pytest.raises(ValueError, match="2 classes after those with fewer than 3"):
        BalancedBatches(rows(12), y, 4, 3, small_classes="drop")


def test_structures_of_x():
    y = np.repeat(np.arange(4), 5)
    x = {"image": rows(20), "meta": (rows(20) * 2, rows(20).astype("int64") * 3)}
    out, _ = BalancedBatches(x, y, 2, 3, seed=0)[0]
    plain, _ = BalancedBatches(rows(20), y, 2, 3, seed=0)[0]
    assert np.array_equal(out["image"], plain)
    assert np.array_equal(out["meta"][0], plain * 2) and out["meta"][1].dtype == np.int64
    pair, _ = BalancedBatches([rows(20), rows(20)], y, 2, 3, seed=0)[0]
    assert isinstance(pair, list) and np.array_equal(pair[1], plain)
    tensor, _ = BalancedBatches(keras.ops.convert_to_tensor(rows(20)), y, 2, 3, seed=0)[0]
    assert np.array_equal(tensor, plain)
    column, _ = BalancedBatches(list(range(20)), y, 2, 3, seed=0)[0]
    assert np.array_equal(column, plain[:, 0])


def test_memory_map_is_not_read_whole(tmp_path):
    np.save(tmp_path / "x.npy", rows(20))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    batches = BalancedBatches(x, np.repeat(np.arange(4), 5), 2, 3, seed=0)
    assert isinstance(batches._reader._x, np.memmap) and batches[0][0].shape == (6, 1)


def test_load_returns_a_dict():
    y = np.repeat([f"id{i}" for i in range(5)], 8)

    def load(item):
        return {"a": np.full(3, float(item), "float32"), "b": np.ones(2, "float32")}

    batches = BalancedBatches([f"{i}" for i in range(40)], y, 3, 4, seed=0, load=load)
    x, labels = batches[0]
    assert (batches.classes[labels] == y[x["a"][:, 0].astype(int)]).all()
    assert x["b"].shape == (12, 2)


def test_load_reads_a_repeated_row_once_and_errors_name_the_item():
    read = []

    def load(item):
        if item == "bad":
            raise OSError("truncated")
        read.append(item)
        return np.zeros(2)

    batches = BalancedBatches(["u", "v"], [0, 1], 2, 3, seed=0, load=load)
    assert batches[0][0].shape == (6, 2) and sorted(read) == ["u", "v"]
    batches = BalancedBatches(["u", "bad"], [0, 1], 2, 3, seed=0, load=load)
    with pytest.raises(ValueError, match=r"`load` failed on x\[1\]='bad': truncated"):
        batches[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes_per_batch": 5}, "classes_per_batch=5, 4 classes"),
        ({"classes_per_batch": 0}, "`classes_per_batch` must be at least 1"),
        ({"samples_per_class": 2.5}, "`samples_per_class` must be an integer"),
        ({"y": np.arange(4)}, r"len\(x\)=20, len\(y\)=4"),
        ({"y": np.eye(4)[np.repeat(np.arange(4), 5)]}, r"argmax\(axis=-1\)"),
        ({"y": np.repeat([0.0, 1.0, 2.0, np.nan], 5)}, "NaN or infinite label in row 15"),
        ({"y": np.array(["a", None] * 10, dtype=object)}, "missing label in row 1"),
        ({"y": np.array([NAType(), "a"] * 10, dtype=object)}, "missing label in row 0"),
        ({"y": [], "x": rows(0)}, "at least one label"),
        ({"y": 3}, "one label for each row"),
        ({"small_classes": "keep"}, "`small_classes` must be one of"),
        ({"power": -1}, "`power` must be at least 0"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"batches_per_epoch": 0}, "`batches_per_epoch` must be at least 1"),
        ({"views": 2}, "`views` needs `augment`"),
        ({"view_layout": "branches"}, "views=2"),
        ({"x": np.array(["a.png"] * 20)}, "pass load="),
        ({"x": ["a.png"] * 20}, "pass load="),
        ({"x": {"a": rows(20), "b": rows(19)}}, r"parts with \[19, 20\] rows"),
        ({"x": {"a": rows(20)}, "load": np.zeros}, "one sequence of items"),
        ({"augment": "flip"}, "`augment` must be a keras layer"),
        ({"augment": {"image": abs}}, "must name parts of x"),
        ({"augment": lambda x: x[:0]}, "one row for each row"),
        ({"augment": lambda x: None}, "must return the augmented batch. Received: None"),
        ({"augment": np.abs, "use_multiprocessing": True}, "in threads"),
        ({"seed": 2**64}, "`seed` must be below 2"),
        ({"y": np.array([[1], [1, 2]] * 10, dtype=object)}, "`y` must hold one label.*'list'"),
        ({"x": rows(20).tolist()}, r"Convert lists: np.array\(x\)"),
    ],
)
def test_errors(changes, message):
    arguments = {
        "x": rows(20),
        "y": np.repeat(np.arange(4), 5),
        "classes_per_batch": 2,
        "samples_per_class": 2,
        **changes,
    }
    with pytest.raises((ValueError, TypeError), match=message):
        BalancedBatches(**arguments)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda item: None, r"`load` failed on x\[.*must return an array.*Received: None"),
        (lambda item: {str(item): 1.0}, "same structure for each item.*a dict of"),
        (lambda item: (1.0,) * item, "same structure for each item.*a tuple of"),
        (np.zeros, "arrays of one shape.*Resize or pad inside"),
    ],
)
def test_what_load_returns_is_checked(load, message):
    batches = BalancedBatches(list(range(20)), np.arange(20) % 4, 2, 2, seed=0, load=load)
    with pytest.raises(ValueError, match=message):
        batches[0]


def test_a_class_whose_weight_underflows_is_used():
    """0.001 ** 400 is 0 in float64; still both classes are in each batch of two classes."""
    y = [0] * 1000 + [1]
    with pytest.warns(UserWarning, match="1 of 2 classes"):
        batches = BalancedBatches(np.zeros((1001, 1)), y, 2, 2, power=400, seed=0)
    assert all(set(batches[i][1]) == {0, 1} for i in range(len(batches)))


def test_one_sample_a_class_warns_but_not_with_views():
    y = np.arange(10)
    with pytest.warns(UserWarning, match="without positives"):
        BalancedBatches(rows(10), y, 4, 1)
    x, labels = BalancedBatches(rows(10), y, 4, 1, seed=0, augment=np.negative, views=2)[0]
    assert (labels[:4] == labels[4:]).all() and len(set(labels)) == 4
    with pytest.raises(IndexError, match="3 batches"):
        BalancedBatches(rows(10), y, 4, 1, seed=0, augment=np.negative, views=2)[3]


def test_permutations_are_complete_and_uniform():
    for size in (1, 2, 3, 6, 17, 1000):
        keys = hash_words(np.arange(200))[:, None]
        out = permuted(np.arange(size)[None], size, keys)
        assert (np.sort(out, axis=1) == np.arange(size)).all()
    out = permuted(np.arange(3)[None], 3, hash_words(np.arange(12000))[:, None])
    _, counts = np.unique(out, axis=0, return_counts=True)
    assert len(counts) == 6 and counts.min() > 1700 and counts.max() < 2300


def test_a_million_labels():
    """It takes half a second on an idle core; the limit is for a busy machine."""
    y = np.random.default_rng(0).integers(0, 50_000, 1_000_000) + 2**40
    x = np.zeros((len(y), 1), "float32")
    started = time.perf_counter()
    batches = BalancedBatches(x, y, 32, 4, seed=0)
    batches[0]
    assert time.perf_counter() - started < 6
    assert len(batches.classes) == len(ClassIndex(y).counts) == 50_000
