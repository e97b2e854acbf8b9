"""image_paths, image_folder, ImageLoader."""

import os

import keras
import numpy as np
import pytest
from PIL import Image, ImageFile

from keras_metric.data import BalancedBatches, ImageLoader, image_folder, image_paths
from keras_metric.data.images.unreadable_images import unreadable_images


@pytest.fixture
def root(tmp_path):
    """Three classes of images of one colour, which encodes class and number."""
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
    settings = {"seed": 0, "augment": keras.layers.RandomFlip(), "workers": workers}
    y = np.array(names)[labels]
    batches = BalancedBatches(paths, y, 2, 3, load=ImageLoader((6, 6)), **settings)
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
    with pytest.raises(ValueError, match="1 class folder has no images: .*ape"):
        image_paths(root)
    (root / "ape" / "cut.png").write_bytes((root / "owl" / "0.png").read_bytes()[:40])
    with pytest.raises(ValueError, match="1 of 10 images cannot be read: .*cut.png"):
        image_folder(root, (4, 4))
    with pytest.raises(ValueError, match="Could not read the image .*cut.png"):
        ImageLoader((4, 4))(root / "ape" / "cut.png")
    (root / "ape" / "cut.png").unlink()
    Image.fromarray(np.full((4, 4), 0.5, "float32")).save(root / "ape" / "deep.tiff")
    for mode in ("grayscale", "rgb", "rgba"):
        with pytest.raises(ValueError, match="deep.tiff.*32 bits a channel"):
            image_folder(root, (4, 4), color_mode=mode)
    for changes in ({"image_size": 8}, {"image_size": (8, 0)}, {"color_mode": "hsv"}):
        with pytest.raises(ValueError, match="`image_size`|`color_mode`"):
            ImageLoader(**{"image_size": (8, 8), **changes})


@pytest.fixture
def broken(root):
    """The three classes, two folders without images, and three files that are not images."""
    for name in ("ape", "bat"):
        (root / name).mkdir()
    whole = (root / "owl" / "0.png").read_bytes()
    for name, content in (("cut", whole[:40]), ("none", b""), ("text", b"no image")):
        (root / "hen" / f"{name}.png").write_bytes(content)
    return root


BROKEN = ("cut.png", "none.png", "text.png")


def test_one_error_names_all_faults_of_a_folder(broken):
    with pytest.raises(ValueError, match="2 class folders have no images: .*ape.*bat.*on_error"):
        image_paths(broken)
    for name in ("ape", "bat"):
        (broken / name).rmdir()
    assert len(image_paths(broken)[0]) == 12  # opens no file
    with pytest.raises(ValueError) as caught:
        image_folder(broken, (4, 6))
    assert "3 of 12 images" in str(caught.value)
    assert all(name in str(caught.value) for name in BROKEN)
    with pytest.raises(ValueError, match="on_error"):
        image_paths(broken, on_error="ignore")


def test_skip_omits_faults_and_warns_once(broken):
    whole = [p for p in broken.rglob("[0-9].png") if not p.name.startswith(".")]
    with pytest.warns(UserWarning) as warned:
        paths, labels, names = image_paths(broken, on_error="skip")
    assert sorted(paths) == sorted(map(str, whole))
    assert names == ["Emu", "hen", "owl"] and labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    with pytest.warns(UserWarning) as warned_too:
        images, in_memory, _ = image_folder(broken, (4, 6), on_error="skip")
    assert in_memory.tolist() == labels.tolist()
    loader = ImageLoader((4, 6))
    np.testing.assert_array_equal(images, [loader(path) for path in paths])
    given = [broken / "hen" / "cut.png", *paths]
    with pytest.raises(ValueError, match="1 of 10 images cannot be read: .*cut.png"):
        loader.read(given)
    with pytest.warns(UserWarning, match="1 of 10 images.*cut.png"):
        read, rows = loader.read(given, on_error="skip")
    assert rows.tolist() == list(range(1, 10))
    np.testing.assert_array_equal(read, images)
    for messages in (warned, warned_too):
        assert len(messages) == 1 and messages[0].filename == __file__
        text = str(messages[0].message)
        assert "3 of 12 images cannot be read" in text and "2 class folders" in text
        assert all(name in text for name in (*BROKEN, "ape", "bat"))


def test_a_class_without_readable_images_is_omitted(root):
    for path in (root / "Emu").rglob("[0-9].png"):
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="3 of 9 images"):
        assert image_paths(root, on_error="skip")[2] == ["hen", "owl"]
    with pytest.warns(UserWarning, match="3 of 9 images"):
        images, labels, names = image_folder(root, (4, 4), on_error="skip")
    assert names == ["hen", "owl"] and labels.tolist() == [0] * 3 + [1] * 3 and len(images) == 6
    for path in root.rglob("[0-9].png"):
        path.write_bytes(b"")
    for call in (image_paths, lambda *a, **k: image_folder(*a, (4, 4), **k)):
        with (
            pytest.warns(UserWarning, match="9 of 9 images"),
            pytest.raises(ValueError, match="must contain readable images"),
        ):
            call(root, on_error="skip")


def test_an_error_on_many_files_is_short(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(500)]
    for path in paths:
        path.touch()
    with pytest.raises(ValueError, match="500 of 500 images .* and 490 more") as caught:
        ImageLoader((4, 4)).read(paths)
    assert len(str(caught.value)) < 200 + 10 * (len(str(paths[0])) + 30)


@pytest.mark.parametrize("ending", ["bmp", "gif", "jpg", "pgm", "png", "tif", "webp"])
def test_the_quick_check_finds_truncated_files_as_decoding_does(tmp_path, rng, ending):
    whole, cut = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    Image.fromarray(rng.integers(0, 255, (24, 24), "uint8")).save(whole)
    content = whole.read_bytes()
    assert not unreadable_images([whole])
    whole.write_bytes(content + b"\0" * 5)  # padding is no damage
    assert not unreadable_images([whole])
    loader = ImageLoader((24, 24), color_mode="grayscale")
    for size in {*range(0, len(content), 7), *range(len(content) - 12, len(content))}:
        cut.write_bytes(content[:size])
        try:
            loader(cut)
        except ValueError:
            assert cut in unreadable_images([cut]), size


def test_the_quick_check_decodes_only_files_without_a_valid_end(tmp_path, rng, monkeypatch):
    paths = [tmp_path / name for name in ("a.jpg", "b.png", "c.webp", "d.jpg")]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (24, 24), "uint8")).save(path)
    paths[-1].write_bytes(paths[0].read_bytes()[:-40])
    decoded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda image: decoded.append(image.format) or load(image)
    )
    assert list(unreadable_images(paths)) == [paths[-1]]
    assert decoded == ["JPEG"]


def test_a_link_to_a_parent_folder_repeats_no_image(tmp_path):
    for name in ("ape", "bee"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "one.png")
    (tmp_path / "ape" / "up").symlink_to(tmp_path, target_is_directory=True)
    # The target of the link was read before, except for the other class.
    found = [os.path.realpath(path) for path in image_paths(tmp_path)[0]]
    assert len(found) <= 3 and len(set(found)) == 2


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_folder_that_cannot_be_read_is_named(root, monkeypatch, on_error):
    """`os.walk` skips such a folder without an error."""
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("hen"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match="Could not read the folder .*hen': Permission denied"):
        image_paths(root, on_error)


def test_pipes_and_links_named_like_images(root):
    """Reading a pipe blocks, so it is skipped. Broken links are reported as missing images."""
    os.mkfifo(root / "hen" / "pipe.png")
    (root / "hen" / "folder.png").mkdir()
    for name, target in (("loop.png", "loop.png"), ("gone.png", "nowhere")):
        (root / "hen" / name).symlink_to(target)
    found = [os.path.basename(path) for path in image_paths(root)[0] if "hen" in path]
    assert found == ["0.png", "1.png", "gone.png", "loop.png", "2.png"]
    with pytest.raises(ValueError, match="gone.png"):
        image_folder(root, (4, 4))


def test_folders_deeper_than_python_recurses(tmp_path):
    folders = [str(tmp_path / "photos")]
    for _ in range(1100):
        os.mkdir(folders[-1])
        folders.append(os.path.join(folders[-1], "d"))
    path = f"{folders[-2]}/one.png"
    Image.new("L", (4, 4)).save(path)
    assert image_paths(folders[0])[0] == [path]
    os.unlink(path)
    for folder in folders[-2::-1]:  # The clean-up of pytest recurses.
        os.rmdir(folder)
