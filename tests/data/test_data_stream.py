"""StreamBatches: P x K batches from a stream."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from keras_metric.data import StreamBatches


def source(rows=240, classes=12, seed=0):
    """A function that returns shuffled samples (number, label), in the same order each time."""

    def read():
        read.times += 1
        order = np.random.default_rng(seed).permutation(rows)
        return ((np.array([i], "float32"), int(i) % classes) for i in order)

    read.times = 0
    return read


def batches_of(data=None, **changes):
    settings = {"batches_per_epoch": 10, "buffer_size": 60, "seed": 0, **changes}
    return StreamBatches(data or source(), 4, 3, **settings)


def test_every_batch_is_balanced_and_right():
    batches = batches_of()
    for index in range(10):
        x, y = batches[index]
        assert x.shape == (12, 1) and y.dtype == "int32"
        np.testing.assert_array_equal(x[:, 0] % 12, y)
        assert sorted(np.unique(y, return_counts=True)[1]) == [3] * 4
        np.testing.assert_array_equal(y, np.repeat(y[::3], 3))


def test_a_pass_uses_nearly_all_samples_once():
    """240 samples are 20 batches of 12; samples of an incomplete batch at the end are omitted."""
    read = source()
    batches = batches_of(read, batches_per_epoch=60)
    used = []
    while read.times < 2:
        used.append(batches[len(used)][0][:, 0])
    # The last of them is of the second pass.
    first = np.concatenate(used[:-1])
    assert len(np.unique(first)) == len(first) >= 0.8 * 240


def test_classes_are_as_frequent_as_their_samples():
    def uneven():
        rng = np.random.default_rng(1)
        for label in rng.choice(8, 4000, p=[0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]):
            yield np.zeros(1), label

    batches = StreamBatches(uneven, 2, 2, batches_per_epoch=400, buffer_size=400, seed=0)
    y = np.concatenate([batches[i][1] for i in range(400)])
    assert 0.24 < np.mean(y == 0) < 0.34


def test_reproducible_in_any_order_of_requests():
    plain = batches_of()
    plain.on_epoch_end()
    expected = [plain[i] for i in range(10)]
    for order in (range(9, -1, -1), [3, 3, 0, 9, 1]):
        other = batches_of()
        other.on_epoch_end()
        for i in order:
            for a, b in zip(other[i], expected[i]):
                np.testing.assert_array_equal(a, b)
    assert any((batches_of(seed=1)[i][1] != expected[i][1]).any() for i in range(3))


def test_threads_get_the_same_batches():
    expected = [batches_of()[i][0] for i in range(10)]
    batches = batches_of(workers=3)
    with ThreadPoolExecutor(3) as pool:
        for (x, _), one in zip(pool.map(batches.__getitem__, range(10)), expected):
            np.testing.assert_array_equal(x, one)


def test_epochs_continue_and_a_later_one_can_be_reached():
    batches = batches_of(batches_per_epoch=8)
    epochs = []
    for _ in range(3):
        batches.on_epoch_end()
        epochs.append([batches[i][0] for i in range(8)])
    # A pass has nearly 20 batches: the second epoch uses other samples than the first.
    assert not set(np.concatenate(epochs[0]).flat) & set(np.concatenate(epochs[1]).flat)
    late = batches_of(batches_per_epoch=8)
    late.catch_up(2)
    assert late.epoch == 3
    for i, x in enumerate(epochs[2]):
        np.testing.assert_array_equal(late[i][0], x)


def test_batches_that_keras_inspects_are_read_once():
    """Batches 0 and 1 of epoch 0 are those of epoch 1."""
    read = source()
    batches = batches_of(read)
    inspected = [batches[0][0], batches[1][0]]
    batches.on_epoch_end()
    np.testing.assert_array_equal(batches[0][0], inspected[0])
    batches[5]
    assert read.times == 1


def test_load_and_augment():
    def names():
        return ((str(i), f"kind {i % 3}") for i in range(60))

    batches = StreamBatches(
        names,
        3,
        2,
        5,
        buffer_size=20,
        seed=0,
        load=lambda name: np.full((2,), float(name), "float32"),
        augment=lambda x, rng: x + rng.random(x.shape).astype("float32") / 2,
    )
    x, y = batches[0]
    assert [batches.classes[i] for i in y] == [f"kind {int(v) % 3}" for v in x[:, 0]]
    assert (x != np.floor(x)).any()
    np.testing.assert_array_equal(batches[0][0], x)


def test_a_data_set_of_tensorflow():
    tf = pytest.importorskip("tensorflow")
    y = np.arange(40) % 4
    data = tf.data.Dataset.from_tensor_slices((np.arange(40.0), [b"abcd"[i : i + 1] for i in y]))
    batches = StreamBatches(data, 2, 2, 4, buffer_size=20, seed=0)
    x, numbers = batches[0]
    assert [batches.classes[n] for n in numbers] == ["abcd"[int(v) % 4] for v in x]


def test_training():
    def rows():
        rng = np.random.default_rng(0)
        return ((rng.normal(i % 4, 0.1, 3).astype("float32"), i % 4) for i in range(64))

    from keras_metric.models import EmbeddingModel

    model = EmbeddingModel(keras.layers.Dense(3), 2)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    batches = StreamBatches(rows, 4, 2, batches_per_epoch=3, buffer_size=16, seed=0)
    assert len(model.fit(batches, epochs=2, verbose=0).history["loss"]) == 2


def test_streams_without_a_batch():
    def sorted_by_class():
        return ((0.0, i // 100) for i in range(1000))

    with pytest.raises(ValueError, match="Shuffle or interleave"):
        StreamBatches(sorted_by_class, 4, 3, 1, buffer_size=60)[0]
    # At a class boundary the buffer contains two classes.
    assert set(StreamBatches(sorted_by_class, 2, 3, 1, buffer_size=60, seed=0)[0][1]) == {0, 1}
    with pytest.raises(ValueError, match="never had them"):
        StreamBatches([], 4, 3, 1)[0]


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (iter([(1.0, 2)]), TypeError, "without calling it"),
        (3, TypeError, "Received: int"),
        ([1.0, 2.0], ValueError, "Received: float"),
        ([(1.0, 2, 3)], ValueError, "tuple of 3 parts"),
        ([(np.zeros((4, 2)), np.zeros(4))], ValueError, "unbatch"),
        ([(1.0, 2**40)], ValueError, "32 bits"),
        ([(1.0, None)], ValueError, "must have a label. Received: None"),
        ([(1.0, np.datetime64("NaT"))], ValueError, "must have a label"),
        ([(1.0, {"kind": 1})], TypeError, "that can be compared. Received: {'kind': 1}"),
        ([(1.0, b"\xff")], ValueError, "must be a string in UTF-8"),
        (lambda: None, TypeError, "must return an iterator.*None"),
    ],
)
def test_sources_that_are_refused(data, error, words):
    with pytest.raises(error, match=words):
        StreamBatches(data, 1, 1, 1)[0]


def test_none_among_the_samples_is_not_the_end_of_the_stream():
    """An end at None would skip the samples after it silently."""
    samples = [(np.zeros(1), i % 2) for i in range(20)]
    batches = StreamBatches([*samples, None, *samples], 2, 2, 10, buffer_size=4, seed=0)
    with pytest.raises(ValueError, match="Received: NoneType"):
        for i in range(10):
            batches[i]


def test_settings_that_are_refused():
    with pytest.raises(ValueError, match="buffer_size"):
        batches_of(buffer_size=11)
    with pytest.raises(ValueError, match="several processes"):
        batches_of(use_multiprocessing=True)


def test_an_error_of_the_source_is_not_its_end():
    """After an error of the source, the batches are those of a stream without errors."""
    failing = [True]

    def source():
        for i in range(60):
            if i == 40 and failing:
                failing.clear()
                raise OSError("network")
            yield np.full(1, i, "float32"), i % 6

    def batches(source):
        return StreamBatches(source, 3, 2, batches_per_epoch=8, buffer_size=30, seed=0)

    items = [(np.full(1, i, "float32"), i % 6) for i in range(60)]
    broken, whole = batches(source), batches(items)
    with pytest.raises(OSError, match="network"):
        for i in range(8):
            broken[i]
    for i in range(8):
        np.testing.assert_array_equal(broken[i][0], whole[i][0])


@pytest.mark.parametrize("labels", [[0, "a"], ["a", 0], [1.0, "a"]])
def test_labels_of_two_kinds_raise(labels):
    source = [(np.zeros(1), labels[i % 2]) for i in range(8)]
    batches = StreamBatches(source, 2, 2, batches_per_epoch=1, buffer_size=8, seed=0)
    with pytest.raises(ValueError, match="Received both"):
        batches[0]
