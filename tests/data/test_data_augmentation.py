"""augment=: reproducible in any thread, independent for each image, views."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers

from keras_metric.data import BalancedBatches, RandomResizedCrop, TripletBatches

SIZE = 12
Y = np.repeat(np.arange(4), 6)


def one_photo(rng, dtype="float32"):
    """24 copies of one random photo: any difference in a batch comes from augmentation."""
    photo = rng.integers(0, 256, (1, SIZE, SIZE, 3))
    return np.repeat(photo, len(Y), axis=0).astype(dtype)


def chain():
    return keras.Sequential(
        [
            layers.RandomCrop(10, 10),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.2),
            layers.RandomBrightness(0.3),
            layers.RandomColorJitter((0, 255), 0.2, 0.2, 0.2, 0.1),
        ]
    )


def num_different(images):
    return len(np.unique(images.reshape(len(images), -1), axis=0))


@pytest.mark.parametrize(
    ("layer", "at_least"),
    [
        (lambda: layers.RandomCrop(7, 7), 12),
        (lambda: layers.RandomFlip(), 2),
        (lambda: layers.RandomRotation(0.2), 24),
        (lambda: layers.RandomTranslation(0.2, 0.2), 24),
        (lambda: layers.RandomZoom(0.3), 24),
        (lambda: layers.RandomBrightness(0.3), 24),
        (lambda: layers.RandomSaturation(0.3), 6),
        (lambda: layers.GaussianNoise(1.0), 24),
        (lambda: RandomResizedCrop(7, 7, scale=(0.3, 0.9)), 24),
        (lambda: layers.Pipeline([layers.RandomFlip(), layers.RandomCrop(7, 7)]), 12),
        (chain, 24),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_image_is_changed_independently(layer, at_least, rng):
    batches = BalancedBatches(one_photo(rng, "uint8"), Y, 4, 6, seed=0, augment=layer())
    x, _ = batches[0]
    assert x.dtype == np.float32 and num_different(x) >= at_least


@pytest.mark.parametrize("make", [chain, lambda: layers.RandomCrop(7, 7)])
def test_the_same_in_any_order_and_thread_and_new_in_each_epoch(make, rng):
    photos = one_photo(rng)
    one, other = (BalancedBatches(photos, Y, 2, 3, seed=5, augment=make()) for _ in range(2))
    expected = [one[i][0] for i in range(4)]
    order = [3, 1, 0, 2] * 3
    with ThreadPoolExecutor(4) as pool:
        for index, (x, _) in zip(order, pool.map(other.__getitem__, order)):
            assert np.array_equal(x, expected[index])
    assert not np.array_equal(expected[0], expected[1])
    one.on_epoch_end()
    assert not np.array_equal(one[0][0], expected[0])


def test_cropped_pixels_are_pixels_of_the_photo(rng):
    """RandomCrop is applied to each image: each result is a window of its photo."""
    x = rng.random((len(Y), SIZE, SIZE, 1)).astype("float32")
    x += np.arange(len(Y)).reshape(-1, 1, 1, 1)
    plain = BalancedBatches(x, Y, 4, 6, seed=0)[0][0]
    cropped = BalancedBatches(x, Y, 4, 6, seed=0, augment=layers.RandomCrop(9, 9))[0][0]
    positions = set()
    for photo, crop in zip(plain, cropped):
        windows = {(i, j): photo[i : i + 9, j : j + 9] for i in range(4) for j in range(4)}
        found = [corner for corner, window in windows.items() if np.array_equal(window, crop)]
        assert len(found) == 1
        positions.update(found)
    assert len(positions) > 5


def test_two_views_as_rows_and_as_branches(rng):
    x = rng.random((len(Y), SIZE, SIZE, 3)).astype("float32") * 255
    augment = layers.Pipeline([layers.RandomRotation(0.1), layers.RandomBrightness(0.2)])
    images, labels = BalancedBatches(x, Y, 3, 2, seed=0, augment=augment, views=2)[0]
    assert images.shape == (12, SIZE, SIZE, 3) and np.array_equal(labels[:6], labels[6:])
    for first, second in zip(images[:6], images[6:]):
        assert 0 < np.abs(first - second).mean() < 120  # Different views of the same photo.
    settings = {"seed": 0, "augment": augment, "views": 2, "view_layout": "branches"}
    parts, y = BalancedBatches(x, Y, 3, 2, **settings)[0]
    assert list(parts) == ["anchor", "positive"] and np.array_equal(y, labels[:6])
    assert np.array_equal(np.concatenate(list(parts.values())), images)


def test_views_are_in_the_same_order():
    """Row i of each view is the same sample."""
    x = np.arange(len(Y), dtype="float32").reshape(-1, 1)

    def noise(x, rng):
        return x + rng.uniform(0.1, 0.4, x.shape)

    images, _ = BalancedBatches(x, Y, 3, 4, seed=0, augment=noise, views=3)[0]
    assert images.shape == (36, 1)
    whole = np.floor(images[:, 0]).reshape(3, 12)
    assert (whole == whole[0]).all() and num_different(images) == 36


def test_functions_with_and_without_rng():
    x = np.ones((len(Y), 2), "float32")
    plain = BalancedBatches(x, Y, 2, 2, seed=0, augment=lambda x: -x)[0][0]
    assert (plain == -1).all()
    tensors = BalancedBatches(x, Y, 2, 2, seed=0, augment=keras.ops.negative)[0][0]
    assert isinstance(tensors, np.ndarray)
    random = [
        BalancedBatches(x, Y, 2, 2, seed=0, augment=lambda x, rng: x * rng.random(x.shape))[0][0]
        for _ in range(2)
    ]
    assert np.array_equal(*random) and num_different(random[0]) == 4


def test_parts_of_x_are_augmented_separately(rng):
    flip = layers.RandomFlip()
    x = {"a": one_photo(rng), "b": one_photo(rng), "meta": np.ones((24, 2))}
    out, _ = BalancedBatches(x, Y, 4, 6, seed=0, augment={"a": flip, "b": flip})[0]
    assert np.array_equal(out["meta"], x["meta"])
    changed = [(out[name] != x[name]).any(axis=(1, 2, 3)) for name in "ab"]
    assert changed[0].any() and not np.array_equal(*changed)
    with pytest.raises(TypeError, match="must name the part of x that a layer is for"):
        BalancedBatches(x, Y, 4, 6, augment=flip)


def test_layers_with_weights_keep_them(rng):
    norm = layers.Normalization()
    x = one_photo(rng)
    norm.adapt(x)
    augment = keras.Sequential([norm, layers.GaussianNoise(1e-3)])
    out = BalancedBatches(x, Y, 4, 6, seed=0, augment=augment)[0][0]
    np.testing.assert_allclose(out.mean(axis=(0, 1, 2)), 0, atol=1e-2)
    np.testing.assert_allclose(out.std(axis=(0, 1, 2)), 1, atol=1e-2)


def test_branches_of_triplets_are_augmented_independently(rng):
    augment = layers.RandomRotation(0.2)
    (parts,) = TripletBatches(one_photo(rng), Y, batch_size=8, seed=0, augment=augment)[0]
    assert num_different(np.concatenate(list(parts.values()))) == 24


@pytest.mark.parametrize("workers", [0, 2])
def test_fit_with_two_augmented_views(workers, rng):
    x = rng.random((len(Y), SIZE, SIZE, 3)).astype("float32")
    batches = BalancedBatches(
        x, Y, 4, 3, seed=0, augment=chain(), views=2, workers=workers, batches_per_epoch=3
    )
    model = keras.Sequential([layers.Flatten(), layers.Dense(4, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert len(model.fit(batches, epochs=2, verbose=0).history["loss"]) == 2
    assert model.output_shape[0] in (None, 24)


def test_random_resized_crop_has_boxes_of_the_scale_and_ratio():
    """The crop of an enlarged linear ramp is a ramp; its derivative and offset give the box."""
    rows, columns = np.meshgrid(np.arange(32.0), np.arange(40.0), indexing="ij")
    image = np.stack([rows, columns], axis=-1)[None].astype("float32")
    crop = RandomResizedCrop(48, 48, scale=(0.2, 0.6), seed=3)
    out = keras.ops.convert_to_numpy(crop(np.repeat(image, 50, axis=0)))[:, 4:-4, 4:-4]
    steps = np.diff(out[..., 0], axis=1), np.diff(out[..., 1], axis=2)
    for step in steps:
        assert np.ptp(step, axis=(1, 2)).max() < 1e-3
    heights, widths = (step.mean(axis=(1, 2)) * 48 for step in steps)
    fraction = heights * widths / (32 * 40)
    assert fraction.min() > 0.19 and fraction.max() < 0.61 and np.ptp(fraction) > 0.2
    ratio = widths / heights
    assert ratio.min() > 0.74 and ratio.max() < 1.34 and np.ptp(ratio) > 0.3
    corners = out[:, 0, 0] - np.stack([heights, widths], axis=1) / 48 * 4.5 + 0.5
    assert corners.min() > -1e-3 and np.ptp(corners, axis=0).min() > 5
    assert (corners[:, 0] + heights < 32.01).all() and (corners[:, 1] + widths < 40.01).all()


def test_random_resized_crop_without_training_is_a_resize(rng):
    x = rng.random((2, 16, 16, 3)).astype("float32")
    out = RandomResizedCrop(8, 8)(x, training=False)
    expected = keras.ops.image.resize(x, (8, 8), antialias=True)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(out), keras.ops.convert_to_numpy(expected), atol=1e-4
    )
    crop = RandomResizedCrop(8, 6, scale=(0.5, 0.9), ratio=(1, 2), seed=1)
    config = RandomResizedCrop.from_config(crop.get_config()).get_config()
    assert config == crop.get_config()
    assert crop.compute_output_shape((4, 16, 16, 3)) == (4, 8, 6, 3)
    for changes in ({"scale": 0.5}, {"scale": (0.5, 1.5)}, {"ratio": (2, 1)}, {"scale": (0, 1)}):
        with pytest.raises(ValueError, match="`scale`|`ratio`"):
            RandomResizedCrop(8, 8, **changes)
