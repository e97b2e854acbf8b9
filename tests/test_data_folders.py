"""image_paths, image_folder, ImageLoader."""

import os

import keras
import numpy as np
import pytest
from PIL import Image

from keras_metric.data import BalancedBatches, ImageLoader, image_folder, image_paths


@pytest.fixture
def root(tmp_path):
    """Three classes of flat-coloured images; the colour tells class and number."""
    for c, name in enumerate(["owl", "Emu", "hen"]):
        folder = tmp_path / "photos" / name
        (folder / "more").mkdir(parents=True)
        for i in range(3):
            where = folder / "more" if i == 2 else folder
            Image.new("RGB", (10 + i, 8), (c * 50, i * 50, 7)).save(where / f"{i}.png")
        (folder / ".hidden.png").write_bytes(b"no image")
        (folder / "Thumbs.db").write_bytes(b"no image")
    (tmp_path / "photos" / ".cache").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("no class")
    return tmp_path / "photos"


def test_paths_in_order_without_hidden_files(root):
    paths, labels, names = image_paths(root)
    assert names == ["Emu", "hen", "owl"] and labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert labels.dtype == np.int32
    assert [p.removeprefix(str(root) + "/") for p in paths[:3]] == [
        "Emu/0.png",
        "Emu/1.png",
        "Emu/more/2.png",
    ]


def test_images_in_memory(root):
    images, labels, names = image_folder(str(root), (4, 6))
    assert images.shape == (9, 4, 6, 3) and images.dtype == np.uint8
    class_colour = {"owl": 0, "Emu": 50, "hen": 100}
    for image, label in zip(images, labels):
        assert (image[..., 0] == class_colour[names[label]]).all()
    gray = image_folder(root, (4, 6), color_mode="grayscale")[0]
    assert gray.shape == (9, 4, 6, 1)
    rgba = image_folder(root, (4, 6), color_mode="rgba", keep_aspect_ratio=True)[0]
    assert rgba.shape == (9, 4, 6, 4)


@pytest.mark.parametrize("workers", [0, 3])
def test_lazily_with_threads_through_fit(root, workers):
    paths, labels, names = image_paths(root)
    batches = BalancedBatches(
        paths,
        np.array(names)[labels],
        2,
        3,
        seed=0,
        load=ImageLoader((6, 6)),
        augment=keras.layers.RandomFlip(),
        workers=workers,
    )
    x, y = batches[0]
    colour = np.array([50, 100, 0])
    assert (x[:, 0, 0, 0] == colour[y]).all() and list(batches.classes) == names
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert len(model.fit(batches, epochs=2, verbose=0).history["loss"]) == 2


def test_errors_name_the_folder_or_the_file(root, tmp_path):
    with pytest.raises(ValueError, match="must be a folder. Received: path=.*nowhere"):
        image_paths(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="one folder for each class"):
        image_paths(tmp_path / "empty")
    (root / "ape").mkdir()
    with pytest.raises(ValueError, match="none in .*ape"):
        image_paths(root)
    (root / "ape" / "cut.png").write_bytes((root / "owl" / "0.png").read_bytes()[:40])
    with pytest.raises(ValueError, match="Could not read the image .*cut.png"):
        image_folder(root, (4, 4))
    (root / "ape" / "cut.png").unlink()
    Image.fromarray(np.full((4, 4), 0.5, "float32")).save(root / "ape" / "deep.tiff")
    for mode in ("grayscale", "rgb", "rgba"):
        with pytest.raises(ValueError, match="deep.tiff.*32 bits a channel"):
            image_folder(root, (4, 4), color_mode=mode)
    for changes in ({"image_size": 8}, {"image_size": (8, 0)}, {"color_mode": "hsv"}):
        with pytest.raises(ValueError, match="`image_size`|`color_mode`"):
            ImageLoader(**{"image_size": (8, 8), **changes})


def test_a_link_that_leads_back_up_counts_no_image_twice(tmp_path):
    for name in ("ape", "bee"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "one.png")
    (tmp_path / "ape" / "up").symlink_to(tmp_path, target_is_directory=True)
    # What the link leads to has been seen, but for the other classes.
    found = [os.path.realpath(path) for path in image_paths(tmp_path)[0]]
    assert len(found) <= 3 and len(set(found)) == 2
