"""TFRecord files, batch decoding of JPEGs, and tables of paths."""

import contextlib
import io
import multiprocessing
import os
import pickle
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from PIL import Image

from keras_metric.data import (
    BalancedBatches,
    ImageLoader,
    parse_example,
    path_table,
    tfrecord_items,
)
from keras_metric.data.images.jpeg_decoding import jpeg_shape

tf = pytest.importorskip("tensorflow")


@pytest.fixture
def on_tensorflow():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends read images one by one")


def example(**features):
    """A serialised tf.train.Example, written by TensorFlow."""
    kinds = {}
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], (str, bytes)):
            values = [v.encode() if isinstance(v, str) else v for v in values]
            kinds[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif isinstance(values[0], float):
            kinds[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            kinds[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    message = tf.train.Example(features=tf.train.Features(feature=kinds))
    message.features.feature["none"].Clear()
    return message.SerializeToString()


def framed(records):
    return b"".join(struct.pack("<Q", len(r)) + b"head" + r + b"foot" for r in records)


def write(path, records):
    path.write_bytes(framed(records))
    return path


def test_what_tensorflow_writes(tmp_path):
    values = {"label": [-5], "many": [0, 127, 128, -1, 2**62], "name": [b"", b"\x00\xff" * 99]}
    message = example(**values, size=[0.5, -3e20])
    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for _ in range(3):
            writer.write(message)
    items, labels = tfrecord_items(path)
    assert labels.tolist() == [-5] * 3 and labels.dtype == "int64"
    assert items[0] == items[-1] == message
    found = parse_example(items[1])
    assert (found["many"].dtype, found["size"].dtype) == ("int64", "float32")
    assert found.pop("size").tolist() == [0.5, float(np.float32(-3e20))] and found.pop("none") == []
    assert {name: list(part) for name, part in found.items()} == values


def test_records_are_read_without_tensorflow(tmp_path):
    pytest.importorskip("jax")
    path = write(tmp_path / "a.tfrecord", [example(label=7)])
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from keras_metric.data import parse_example, tfrecord_items\n"
        "items, labels = tfrecord_items(sys.argv[1])\n"
        "print(labels.tolist(), parse_example(items[0])['label'].tolist())"
    )
    command, environment = (
        [sys.executable, "-c", code, path],
        {**os.environ, "KERAS_BACKEND": "jax"},
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[7] [7]\n"


def test_records_of_several_files(tmp_path):
    for shard in range(3):
        records = [example(label=f"k{i % 2}", id=10 * shard + i) for i in range(4 + shard)]
        write(tmp_path / f"part-{shard}.tfrecord", records)
    items, labels = tfrecord_items(tmp_path / "part-*.tfrecord")
    assert len(items) == 15
    assert labels.tolist() == [f"k{i % 2}" for n in (4, 5, 6) for i in range(n)]
    ids = [parse_example(item)["id"][0] for item in items]
    assert ids == [*range(4), *range(10, 15), *range(20, 26)]
    # In any order, from several threads, and in another process.
    order = np.random.default_rng(0).permutation(15)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda i: parse_example(items[i])["id"][0], order))
    assert found == [ids[i] for i in order]
    assert pickle.loads(pickle.dumps(items))[14] == items[14]
    with pytest.raises(IndexError, match="15 records"):
        items[15]
    with pytest.raises(TypeError, match="one by one"):
        items[:2]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux lists open files there")
def test_many_files_are_not_kept_open(tmp_path):
    """Operating systems limit a process to about a thousand open files."""
    files = [write(tmp_path / f"{i}.tfrecord", [example(label=i)]) for i in range(300)]
    before = len(os.listdir("/proc/self/fd"))
    for count in (3, 300):
        items, labels = tfrecord_items(files[:count])
        assert [parse_example(item)["label"][0] for item in items] == labels.tolist()
        assert len(os.listdir("/proc/self/fd")) == before + (3 if count == 3 else 0)


def test_the_index_is_used_and_updated(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(label=i) for i in range(5)])
    calls = []

    def label(record):
        calls.append(record)
        return int(parse_example(record)["label"][0])

    index = tmp_path / "a.npz"
    first, _ = tfrecord_items(path, label, index)
    assert len(calls) == 5
    # The labels of a function are not stored, since another function may return other labels.
    again, labels = tfrecord_items(path, label, index)
    assert len(calls) == 10 and labels.tolist() == list(range(5)) and again[3] == first[3]
    for value in (7, 8):
        found = tfrecord_items(path, lambda record, value=value: value, index)[1]
        assert found.tolist() == [value] * 5
    for _ in range(2):
        assert tfrecord_items(path, "label", index)[1].tolist() == list(range(5))
    for _ in range(2):
        without, none = tfrecord_items(path, None, index)
        assert none is None and without[4] == first[4]
    write(path, [example(label=i) for i in range(6)])
    assert len(tfrecord_items(path, label, index)[0]) == 6 and len(calls) == 16
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "a.tfrecord"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (framed([example(label=1)])[:-1], "begins with"),
        (framed([example(label=1)] * 2)[:-5], "truncated"),
        (b"\x1f\x8b" + bytes(40), "gunzip"),
        (b"path,label\na.jpg,1\n", "uncompressed TFRecord"),
        (framed([example(kind=1)]), "No feature 'label'.*kind"),
        (framed([example(label=[1, 2])]), "2 values in record 0"),
        (framed([b"\xff\xfe no example"]), "tf.train.Example"),
        (b"", "must hold records"),
        (framed([example(label=b"\xff")]), r"string in UTF-8. Received: b'\\xff' in record 0"),
    ],
    # Protobuf writes features in no fixed order: names made of the content would differ.
    ids=[
        *("incomplete start", "truncated", "compressed", "table", "no label", "two labels"),
        *("other bytes", "empty", "no UTF-8"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        tfrecord_items(path)


def test_every_byte_of_a_file_damaged(tmp_path):
    """A damaged file raises ValueError or is read; it raises no other type."""
    whole = framed([example(label=f"k{i}", id=[1, 300]) for i in range(2)])
    path = tmp_path / "a.tfrecord"
    for position in range(len(whole)):
        for damaged in (
            whole[:position],
            whole[:position] + whole[position + 1 :],
            whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :],
            whole[:position] + b"\xff" + whole[position + 1 :],
        ):
            path.write_bytes(damaged)
            with contextlib.suppress(ValueError):
                for item in tfrecord_items(path)[0]:
                    parse_example(item)


@pytest.mark.parametrize("file", ["features.npz", "labels.csv", "a.tfrecord"])
def test_an_index_replaces_no_other_file(tmp_path, file):
    path = write(tmp_path / "a.tfrecord", [example(label=1)])
    np.savez(tmp_path / "features.npz", x=np.zeros(3))
    (tmp_path / "labels.csv").write_text("a.jpg,1")
    before = (tmp_path / file).read_bytes()
    with pytest.raises(ValueError, match="one that tfrecord_items wrote.*another kind"):
        tfrecord_items(path, index=tmp_path / file)
    assert (tmp_path / file).read_bytes() == before
    for index in (tmp_path, tmp_path / "missing" / "a.npz"):
        with pytest.raises(ValueError, match="in a folder that exists"):
            tfrecord_items(path, index=index)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"no zip",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:60] + b"\0" * 40 + whole[100:],
        {"sizes": np.array([-5, 1], "int32")},
        {"starts": np.array([-5, 12])},
        {"starts": np.array([0.5, 1.0])},
        {"starts": np.array([12])},
        {"of_file": np.array([9, 9], "int32")},
        {"labels": None},
        {"labels": np.arange(3)},
    ],
)
def test_a_damaged_index_is_written_again(tmp_path, damage):
    path = write(tmp_path / "a.tfrecord", [example(label=i) for i in (3, 7)])
    index = tmp_path / "a.npz"
    first = list(tfrecord_items(path, index=index)[0])
    whole = index.read_bytes()
    if callable(damage):
        index.write_bytes(damage(whole))
    else:
        with np.load(index) as stored:
            parts = {**stored, **damage}
        np.savez(index, **{name: part for name, part in parts.items() if part is not None})
    items, labels = tfrecord_items(path, index=index)
    assert list(items) == first and labels.tolist() == [3, 7]
    assert index.read_bytes()[:100] == whole[:100]


def test_labels_of_several_types(tmp_path):
    """NumPy converts integers next to strings, and large integers next to floats, silently."""
    path = write(tmp_path / "a.tfrecord", [example(label=1), example(label="1")])
    words = "of one type. Received: 1 in record 0 of .* and '1' in record 1"
    with pytest.raises(ValueError, match=words):
        tfrecord_items(path)
    assert tfrecord_items(path, label=lambda record: "1")[1].tolist() == ["1", "1"]
    for _ in range(2):  # The second call has an index.
        values = iter([2**60 + 1, 0.5])
        with pytest.raises(ValueError, match="of one type"):
            tfrecord_items(path, lambda record, values=values: next(values), tmp_path / "i.npz")
        tfrecord_items(path, None, tmp_path / "i.npz")
    write(tmp_path / "1.tfrecord", [example(label=1)])
    write(tmp_path / "2.tfrecord", [example(label="b")])
    with pytest.raises(ValueError, match="1 in record 0 of .*1.tfrec.* 'b' in record 0 of .*2.tf"):
        tfrecord_items(tmp_path / "[12].tfrecord")
    with pytest.raises(ValueError, match="one label for each record"):
        tfrecord_items(path, label=lambda record: [1, 2])


def test_a_record_of_two_gibibytes(tmp_path):
    path = tmp_path / "a.tfrecord"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 2**31) + b"sums")
        file.truncate(2**31 + 16)  # A sparse file, which takes no space on the disk.
    with pytest.raises(ValueError, match="below 2 GiB"):
        tfrecord_items(path, label=None)


def test_arguments_of_records(tmp_path):
    with pytest.raises(ValueError, match="paths="):
        tfrecord_items(tmp_path / "*.tfrecord")
    with pytest.raises(ValueError, match="no file"):
        tfrecord_items([tmp_path / "a"])
    with pytest.raises(TypeError, match="label=3"):
        tfrecord_items(tmp_path, label=3)
    for paths in (None, 3, b"a.tfrecord", [None]):
        with pytest.raises(TypeError, match="`paths` must be a path"):
            tfrecord_items(paths)
    for record in (None, 3, "text"):
        with pytest.raises(TypeError, match="`record` must be bytes"):
            parse_example(record)
    for shard in ("a", "b"):
        (tmp_path / shard).mkdir()
        path = write(tmp_path / shard / "x.tfrecord", [example(label=1)])
    items, _ = tfrecord_items(tmp_path / "*" / "x.tfrecord")
    assert len(items) == 2
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="has changed"):
        items[1]


def encoded(image, form="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def test_images_of_records_in_balanced_batches(tmp_path):
    """The grey value is the class, and so images and labels belong together."""
    files = [encoded(Image.new("RGB", (8, 8), (10 * i,) * 3), "PNG") for i in range(5)]
    records = [example(image=files[i % 5], label=i % 5) for i in range(20)]
    items, labels = tfrecord_items(write(tmp_path / "a.tfrecord", records))
    load = ImageLoader((4, 4), feature="image")
    batches = BalancedBatches(items, labels, 3, 2, seed=0, load=load)
    for x, y in (batches[i] for i in range(len(batches))):
        assert x.shape == (6, 4, 4, 3) and x.dtype == "uint8"
        np.testing.assert_array_equal(x[:, 0, 0, 0], 10 * y)
    assert ImageLoader((8, 8))(files[1]).max() == 10
    with pytest.raises(ValueError, match=r"x\[\d+\]=.*No feature 'picture'"):
        BalancedBatches(items, labels, 3, 2, load=ImageLoader((4, 4), feature="picture"))[0]
    with pytest.raises(ValueError, match="bytes of one image"):
        ImageLoader((4, 4), feature="label")(records[0])
    with pytest.raises(TypeError, match="feature='image'"):
        load("a.png")
    with pytest.raises(ValueError, match="Could not read the image in 3 bytes"):
        ImageLoader((4, 4))(b"abc")


def image_files():
    """Image files of every kind, none of one colour."""
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3), "uint8"))
    image = coarse.resize((37, 53), Image.BICUBIC)
    exif = b"Exif\0\0" + b"x" * 99
    return {
        "4:4:4": encoded(image, subsampling=0, quality=90),
        "4:2:2": encoded(image, subsampling=1),
        "4:2:0": encoded(image, subsampling=2, quality=30),
        "progressive": encoded(image, progressive=True),
        "restart markers": encoded(image, restart_marker_rows=1, optimize=True),
        "comment": encoded(image, comment=b"\xff\xd8\xff\xc0" * 200, exif=exif),
        "another size": encoded(coarse.resize((40, 53))),
        "turned": encoded(image.resize((53, 37))),
        "grey": encoded(image.convert("L")),
        "cmyk": encoded(image.convert("CMYK")),
        "png": encoded(image, "PNG"),
    }


NOT_TOGETHER = {"another size", "turned", "grey", "cmyk", "png"}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_decode_batch_equals_separate_calls(data_format):
    files = image_files()
    records = [example(image=file, label=0) for file in files.values()]
    load = ImageLoader((53, 37), feature="image")
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(data_format)
    try:
        found = load.decode_batch(iter(records)) or [None] * len(records)
        together = dict(zip(files, found, strict=True))
        separate = dict(zip(files, map(load, records), strict=True))
    finally:
        keras.config.set_image_data_format(before)
    missing = {name for name, image in together.items() if image is None}
    assert missing == (NOT_TOGETHER if keras.backend.backend() == "tensorflow" else set(files))
    for name in set(files) - missing:
        np.testing.assert_array_equal(together[name], separate[name], err_msg=name)
        assert together[name].dtype == separate[name].dtype == "uint8"


def test_decode_batch_of_grey_images(on_tensorflow):
    files = image_files()
    load = ImageLoader((53, 37), "grayscale", feature="image")
    grey, colour = (example(image=files[name]) for name in ("grey", "progressive"))
    found = load.decode_batch([grey, colour])
    np.testing.assert_array_equal(found[0], load(grey))
    assert found[0].shape == (53, 37, 1) and found[1] is None


def test_batches_combine_both_ways_of_decoding():
    files = list(image_files().values())
    records = [example(image=file) for file in files] * 2
    labels = np.arange(len(records)) % len(files)
    load = ImageLoader((53, 37), feature="image")
    batches = BalancedBatches(records, labels, len(files), 2, seed=0, load=load)
    for x, y in (batches[i] for i in range(len(batches))):
        for image, label in zip(x, y, strict=True):
            np.testing.assert_array_equal(image, load(records[label]))


def test_a_subclass_of_the_loader_is_called():
    class Halved(ImageLoader):
        def __call__(self, path):
            return super().__call__(path) / np.float32(510)

    records = [example(image=image_files()["4:4:4"])] * 4
    load = Halved((53, 37), feature="image")
    x, _ = BalancedBatches(records, [0, 0, 1, 1], 2, 2, seed=0, load=load)[0]
    assert x.dtype == "float32" and 0 < x.max() <= 0.5


def test_a_damaged_image_in_a_batch_is_named():
    good = image_files()["4:4:4"]
    records = [example(image=good)] * 3 + [example(image=good[:400])]
    load = ImageLoader((53, 37), feature="image")
    batches = BalancedBatches(records, [0, 0, 1, 1], 2, 2, seed=0, load=load)
    with pytest.raises(ValueError, match=r"x\[3\]=.{,60}: Could not read the image"):
        batches[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_processes_do_not_use_tensorflow(on_tensorflow):
    """A forked process has no TensorFlow threads, and would wait for them forever."""
    record = example(image=image_files()["4:4:4"])
    load = ImageLoader((53, 37), feature="image")
    assert load.decode_batch([record])[0] is not None
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(load.decode_batch, ([record],)).get(60) is None


def test_jpeg_shape():
    files = image_files()
    shapes = {name: jpeg_shape(file) for name, file in files.items()}
    assert shapes.pop("png") is None
    assert shapes.pop("grey") == (53, 37, 1) and shapes.pop("cmyk") == (53, 37, 4)
    assert shapes.pop("another size") == (53, 40, 3) and shapes.pop("turned") == (37, 53, 3)
    assert set(shapes.values()) == {(53, 37, 3)}
    whole = files["progressive"]
    position = whole.index(b"\xff\xc2")
    assert all(jpeg_shape(whole[:end]) is None for end in range(position + 9))
    twelve_bits = bytearray(whole)
    twelve_bits[position + 4] = 12
    assert jpeg_shape(bytes(twelve_bits)) is None


def test_a_source_with_random_access():
    """A Grain source has a length and items by number, and is not an array."""

    class Source:
        def __len__(self):
            return 12

        def __getitem__(self, number):
            return np.full(2, float(number), "float32")

    batches = BalancedBatches(Source(), np.arange(12) % 3, 3, 2, seed=0, load=lambda item: item)
    x, y = batches[0]
    np.testing.assert_array_equal(x[:, 0] % 3, y)


def table(tmp_path, name, content):
    """Write a table: text, bytes, or a dict of columns for Parquet."""
    path = tmp_path / name
    if isinstance(content, dict):
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.table(content), path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_tables_of_paths(tmp_path):
    path = table(tmp_path, "a.csv", '\ufefflabel,x,path\n3,"a,b",p/1.jpg\n\n-1,,/q/2.jpg\n')
    paths, labels = path_table(path)
    assert paths == [str(tmp_path / "p/1.jpg"), "/q/2.jpg"]
    assert labels.tolist() == [3, -1] and labels.dtype == "int64"
    path = table(tmp_path, "b.tsv", "file\tkind\n1.jpg\t007\n2.jpg\t12\n")
    paths, labels = path_table(path, "file", "kind", root="r")
    assert paths == ["r/1.jpg", "r/2.jpg"] and labels.tolist() == ["007", "12"]
    labels = path_table(table(tmp_path, "a.csv", f"path,label\na,{2**63}\nb,-1\n"))[1]
    assert labels.tolist() == [str(2**63), "-1"]


def test_tables_of_parquet(tmp_path):
    columns = {"path": ["a", "b"], "label": [7, 2**40], "other": [None, 1]}
    path = table(tmp_path, "a.parquet", columns)
    paths, labels = path_table(path, root="r")
    assert paths == ["r/a", "r/b"] and labels.tolist() == [7, 2**40]
    with pytest.raises(ValueError, match=r"\['path', 'label', 'other'\]"):
        path_table(path, label_column="kind")
    wide = pytest.importorskip("pyarrow").array([2**64 - 1, 1], "uint64")
    path = table(tmp_path, "b.parquet", {"path": ["a", "b"], "label": wide})
    assert path_table(path)[1].tolist() == [2**64 - 1, 1]


def test_parquet_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="pip install.*parquet"):
        path_table(table(tmp_path, "a.parquet", ""))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "", "must end in"),
        ("a.csv", "", "must have the columns"),
        ("a.csv", "path,kind\na,1\n", r"Received: \['path', 'kind'\]"),
        ("a.csv", "path,label\n", "must have rows"),
        ("a.csv", "path,label\na,1\nb,\n", "row 2 of .* without 'label'"),
        ("a.csv", "path,label\na,1\nb\n", "1 in line 3"),
        ("a.csv", "path,label,label\na,1,2\n", "'label' 2 times"),
        ("a.csv", b"path,label\n\xe9,1\n", "a.csv' must be a text file in UTF-8"),
        ("a.csv", "path,label\n" + "a" * 200_000 + ",1\n", "Line 2 of .*a.csv' must be CSV"),
        ("a.parquet", "no Parquet", "a.parquet' must be a Parquet file"),
        ("a.parquet", {"path": [1, 2], "label": [1, 2]}, "strings. Received: 1 in row 1"),
        ("a.parquet", {"path": ["a", "b"], "label": [1.0, np.nan]}, "row 2 of .* without 'label'"),
        ("a.parquet", {"path": ["a", "b"], "label": [[1], [1, 2]]}, r"one label. Received: \[1\]"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, content, words):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=words):
        path_table(table(tmp_path, name, content))


def test_no_table(tmp_path):
    for path, root in ((None, None), (b"a.csv", None), (tmp_path / "a.csv", 3)):
        with pytest.raises(TypeError, match="must be a path"):
            path_table(path, root=root)
    with pytest.raises(ValueError, match="no file"):
        path_table(tmp_path / "a.csv")
