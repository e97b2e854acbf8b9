"""Readers of published data sets, on miniature copies in the official layout."""

import numpy as np
import pytest

from keras_metric import datasets
from keras_metric.evaluation import verification_metrics


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(part, root):
    return [path.removeprefix(f"{root}/") for path in part.paths]


def test_cub(tmp_path):
    """The lists are not sorted by class."""
    root = tmp_path / "CUB_200_2011"
    rows = [
        (1, "101.Pelican/b.jpg", 101),
        (2, "001.Albatross/a.jpg", 1),
        (3, "200.Wren/c.jpg", 200),
    ]
    rows += [(4, "100.Gull/d.jpg", 100), (5, "001.Albatross/e.jpg", 1)]
    touch(root, *(f"images/{name}" for _, name, _ in rows))
    (root / "images.txt").write_text("".join(f"{i} {name}\n" for i, name, _ in rows))
    # In reverse order: the image numbers connect the two lists.
    text = "".join(f"{i} {species}\n" for i, _, species in reversed(rows))
    (root / "image_class_labels.txt").write_text(text)
    for where in (root, tmp_path):
        parts = datasets.read_cub_200_2011(where)
        assert list(parts) == ["train", "test"]
        assert names(parts["train"], root / "images") == [rows[i][1] for i in (1, 3, 4)]
        assert parts["train"].labels.tolist() == [0, 99, 0]
        assert names(parts["test"], root / "images") == [rows[i][1] for i in (0, 2)]
        assert parts["test"].labels.tolist() == [100, 199]
        assert parts["test"].labels.dtype == np.int32 and parts["test"].groups is None
    (root / "images" / rows[0][1]).unlink()
    with pytest.raises(ValueError, match="no file .*101.Pelican/b.jpg"):
        datasets.read_cub_200_2011(root)


def annotations(path, name_field, rows):
    from scipy.io import savemat

    kinds = [(name_field, object), ("bbox_x1", object), ("class", object), ("test", object)]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.array([(name, 3, label, 0) for name, label in rows], dtype=kinds)
    savemat(path, {"annotations": table[None]})


@pytest.mark.parametrize("count", [1, 4])
def test_cars_in_one_archive(count, tmp_path):
    rows = [(f"car_ims/{i}.jpg", model) for i, model in enumerate((98, 99, 1, 196), start=1)][
        :count
    ]
    touch(tmp_path, *(name for name, _ in rows))
    annotations(tmp_path / "cars_annos.mat", "relative_im_path", rows)
    parts = datasets.read_cars_196(tmp_path)
    assert parts["train"].labels.tolist() == ([97, 0] if count > 1 else [97])
    assert parts["test"].labels.tolist() == ([98, 195] if count > 1 else [])
    assert names(parts["train"], tmp_path)[0] == "car_ims/1.jpg"


@pytest.mark.parametrize("where", ["devkit", "."])
def test_cars_in_two_parts(where, tmp_path):
    root = tmp_path / "stanford_cars"
    touch(root, "cars_train/1.jpg", "cars_train/2.jpg", "cars_test/1.jpg", "cars_test/2.jpg")
    annotations(root / "devkit/cars_train_annos.mat", "fname", [("1.jpg", 5), ("2.jpg", 150)])
    with pytest.raises(ValueError, match="cars_test_annos_withlabels.mat"):
        datasets.read_cars_196(tmp_path)
    file = root / where / "cars_test_annos_withlabels.mat"
    annotations(file, "fname", [("1.jpg", 150), ("2.jpg", 5)])
    parts = datasets.read_cars_196(tmp_path)
    assert names(parts["train"], root) == ["cars_train/1.jpg", "cars_test/2.jpg"]
    assert names(parts["test"], root) == ["cars_train/2.jpg", "cars_test/1.jpg"]
    assert parts["train"].labels.tolist() == [4, 4] and parts["test"].labels.tolist() == [149, 149]


def test_stanford_online_products(tmp_path):
    root = tmp_path / "Stanford_Online_Products"
    touch(root, "bicycle_final/1_0.JPG", "bicycle_final/1_1.JPG", "sofa_final/2_0.JPG")
    head = "image_id class_id super_class_id path\n"
    lines = "1 1 1 bicycle_final/1_0.JPG\n2 1 1 bicycle_final/1_1.JPG\n"
    (root / "Ebay_train.txt").write_text(head + lines)
    (root / "Ebay_test.txt").write_text(head + "3 11319 12 sofa_final/2_0.JPG\n")
    parts = datasets.read_stanford_online_products(tmp_path)
    assert parts["train"].labels.tolist() == [0, 0] and parts["test"].labels.tolist() == [11318]
    assert names(parts["test"], root) == ["sofa_final/2_0.JPG"]


@pytest.mark.parametrize(("lists", "images"), [("Eval", "Img"), (".", ".")])
def test_in_shop(lists, images, tmp_path):
    rows = [("a", 2, "train"), ("b", 7, "query"), ("c", 7, "gallery"), ("d", 8, "gallery")]
    files = [f"img/WOMEN/Dresses/id_{item:08}/{name}_front.jpg" for name, item, _ in rows]
    touch(tmp_path / images, *files)
    (tmp_path / lists).mkdir(exist_ok=True)
    text = ["4", "image_name item_id evaluation_status"]
    text += [f"{file}   id_{item:08} {part}" for file, (_, item, part) in zip(files, rows)]
    (tmp_path / lists / "list_eval_partition.txt").write_text("\n".join(text))
    parts = datasets.read_in_shop(tmp_path)
    assert {part: found.labels.tolist() for part, found in parts.items()} == {
        "train": [2],
        "query": [7],
        "gallery": [7, 8],
    }
    assert names(parts["gallery"], tmp_path / images if images != "." else tmp_path) == files[2:]


def test_omniglot(tmp_path):
    for part, alphabets in (("background", "BA"), ("evaluation", "C")):
        for alphabet in alphabets:
            for character in ("02", "01"):
                folder = f"images_{part}/{alphabet}/character{character}"
                touch(tmp_path, f"{folder}/0_1.png", f"{folder}/0_2.png")
    parts = datasets.read_omniglot(tmp_path)
    assert parts["train"].labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert parts["test"].labels.tolist() == [4, 4, 5, 5]
    assert names(parts["train"], tmp_path)[2] == "images_background/A/character02/0_1.png"


def test_market(tmp_path):
    root = tmp_path / "Market-1501-v15.09.15"
    touch(root, "bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_train/Thumbs.db")
    touch(root, "query/0001_c3s2_000001_00.jpg")
    gallery = ["-1_c1s1_000401_03", "0000_c4s6_000810_02", "0001_c6s1_000001_01"]
    touch(root, *(f"bounding_box_test/{name}.jpg" for name in gallery))
    parts = datasets.read_market_1501(tmp_path)
    assert parts["train"].labels.tolist() == [2] and parts["train"].groups.tolist() == [1]
    assert parts["query"].labels.tolist() == [1] and parts["query"].groups.tolist() == [3]
    assert parts["gallery"].labels.tolist() == [0, 1]  # junk is left out, a distractor is not
    assert parts["gallery"].groups.tolist() == [4, 6]
    touch(root, "query/me.jpg")
    with pytest.raises(ValueError, match="me.jpg"):
        datasets.read_market_1501(root)


def write_faces(root, text):
    for name in ("Ann_Lee", "Bob", "Cy"):
        touch(root, *(f"{name}/{name}_{i:04}.jpg" for i in (1, 2, 13)))
    (root / "pairs.txt").write_text(text)
    return root / "pairs.txt"


def test_lfw_pairs(tmp_path):
    lines = ["2\t2", "Ann_Lee\t1\t13", "Bob\t1\t2", "Ann_Lee\t1\tBob\t2", "Bob\t1\tCy\t2"]
    lines += ["Cy\t1\t2", "Cy\t2\t13", "Cy\t1\tBob\t2", "Ann_Lee\t2\tCy\t2"]
    pairs = datasets.read_lfw_pairs(write_faces(tmp_path, "\n".join(lines)), tmp_path)
    assert pairs.same.tolist() == [True, True, False, False] * 2
    assert pairs.folds.tolist() == [0] * 4 + [1] * 4
    first, second = ([path.removeprefix(f"{tmp_path}/") for path in part] for part in pairs[:2])
    assert (first[0], second[0]) == ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0013.jpg")
    assert (first[3], second[3]) == ("Bob/Bob_0001.jpg", "Cy/Cy_0002.jpg")
    result = verification_metrics(1.0 - pairs.same, pairs.same, folds=pairs.folds)
    assert result["fold_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 1\nBob 1 2", "must have 2 pairs"),
        ("1\nBob 1 2\nBob 1 2", "two people has 4"),
        ("1\nBob 1 Cy 2\nBob 1 2", "one person has 3"),
        ("1\nBob 1 7\nBob 1 Cy 2", "Bob_0007"),
        ("", "first line"),
        ("two\n", "first line.*'two'"),
        ("1 2 3\n", "first line.*'1 2 3'"),
        ("0\n", "first line"),
        ("1\nBob 1 x\nBob 1 Cy 1\n", "Line 2 .*'x'"),
    ],
)
def test_damaged_lists_of_lfw_pairs(text, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        datasets.read_lfw_pairs(write_faces(tmp_path, text), tmp_path)


@pytest.mark.parametrize("name", sorted(set(datasets.__all__) - {"read_lfw_pairs"}))
def test_a_wrong_folder_is_named(name, tmp_path):
    with pytest.raises(ValueError, match="must be the unpacked folder"):
        getattr(datasets, name)(tmp_path)


@pytest.mark.parametrize(
    ("images", "species", "words"),
    [
        ("1 a.jpg\n2 b.jpg\n", "1 7\n", "same images.*image '2'"),
        ("1 a.jpg\n2 b.jpg\n", "1 7\n\n2 seven\n", "Line 3 of .*integer.*'seven'"),
        ("1 a.jpg\n2 b.jpg\n", "\udcff\udcfe", "UTF-8"),
        ("1 a.jpg\n1 b.jpg\n", "1 1\n", "Received: '1' twice"),
        ("", "", "must have images"),
        ("1 a.jpg\n", "1 0\n", "from 0 to 2147483647. Received: -1"),
        ("1 b.jpg\n", "1 1099511627776\n", "Received: 1099511627775"),
        ("1 .\n", "1 1\n", "must exist|in its own folder"),
        ("1 a b\n", "1 1\n", "2 words.*line 1"),
    ],
)
def test_damaged_lists_of_cub(images, species, words, tmp_path):
    touch(tmp_path, "images/a.jpg", "images/b.jpg")
    for name, text in (("images.txt", images), ("image_class_labels.txt", species)):
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=words):
        datasets.read_cub_200_2011(tmp_path)
    # A list with a byte order mark, as Windows editors write it.
    (tmp_path / "images.txt").write_text("\ufeff1 a.jpg\n", "utf-8")
    (tmp_path / "image_class_labels.txt").write_text("1 7\n")
    assert datasets.read_cub_200_2011(tmp_path)["train"].labels.tolist() == [6]


@pytest.mark.parametrize(
    ("count", "item", "part", "words"),
    [
        (1, "id_00000001", "val", "one of .*'train'.*'val'"),
        (1, "id_one", "train", "such as id_00000001.*'id_one'"),
        (2, "id_00000001", "train", "'2' for 1 images. Is the file truncated"),
        (1, "id_9999999999", "train", "from 0 to 2147483647"),
    ],
)
def test_damaged_lists_of_in_shop(count, item, part, words, tmp_path):
    touch(tmp_path, "img/a.jpg")
    text = f"{count}\nimage_name item_id evaluation_status\nimg/a.jpg {item} {part}\n"
    (tmp_path / "list_eval_partition.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        datasets.read_in_shop(tmp_path)


def test_damaged_lists_of_cars(tmp_path):
    touch(tmp_path, "cars_annos.mat")
    with pytest.raises(ValueError, match="cars_annos.mat.*must be a list of Stanford Cars"):
        datasets.read_cars_196(tmp_path)


def test_hidden_files_and_empty_folders_of_data_sets(tmp_path):
    """macOS adds `._NAME` to an archive for each file."""
    drawings = tmp_path / "omniglot"
    touch(drawings, "images_background/A/c1/1.png", "images_background/A/c1/._1.png")
    touch(drawings, "images_background/.A/c1/1.png", "images_evaluation/B/c1/2.png")
    assert datasets.read_omniglot(drawings)["train"].labels.tolist() == [0]
    (drawings / "images_evaluation/B/c1/2.png").unlink()
    with pytest.raises(ValueError, match="images_evaluation.*must have images"):
        datasets.read_omniglot(drawings)

    people = tmp_path / "people"
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        touch(people / folder, "0001_c1s1_000451_03.jpg", "._0001_c1s1_000451_03.jpg")
    assert datasets.read_market_1501(people)["query"].labels.tolist() == [1]
    for file in (people / "query").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="query' must have images"):
        datasets.read_market_1501(people)
