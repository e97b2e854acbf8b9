"""TFRecord files by record, tables of paths: what TensorFlow and csv writers wrote, read again."""

import contextlib
import io
import multiprocessing
import os
import pickle
import struct
import threading

import keras
import numpy as np
import pytest

from keras_metric.data import (
    BalancedBatches,
    ImageLoader,
    parse_example,
    path_table,
    tfrecord_items,
)
from keras_metric.data.images.jpeg_decoding import jpeg_shape


@pytest.fixture
def on_tensorflow():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("elsewhere images are read one by one")


def varint(number):
    """Seven bits a byte, the lowest first; negative numbers as 64 bits of two's complement."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def example(**features):
    """A tf.train.Example as the encoding of protocol buffers says; `test_..._writes` compares."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, (str, bytes)):
            value = value.encode() if isinstance(value, str) else value
            kind = field(1, field(1, value))
        elif isinstance(value, float):
            kind = field(2, field(1, struct.pack("<f", value)))
        else:
            values = value if isinstance(value, list) else [value]
            kind = field(3, field(1, b"".join(map(varint, values))))
        entries += field(1, field(1, name.encode()) + field(2, kind))
    return field(1, entries)


def framed(records):
    return b"".join(struct.pack("<Q", len(r)) + b"head" + r + b"foot" for r in records)


def write(path, records):
    path.write_bytes(framed(records))
    return path


def test_what_tensorflow_writes(tmp_path):
    """The oracle: TensorFlow's own writer and protocol buffers."""
    tf = pytest.importorskip("tensorflow")
    kinds = {
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[-5])),
        "many": tf.train.Feature(int64_list=tf.train.Int64List(value=[0, 127, 128, -1, 2**62])),
        "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"", b"\x00\xff" * 99])),
        "size": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5, -3e20])),
        "none": tf.train.Feature(),
    }
    message = tf.train.Example(features=tf.train.Features(feature=kinds)).SerializeToString()
    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for _ in range(3):
            writer.write(message)
    items, labels = tfrecord_items(path)
    assert labels.tolist() == [-5] * 3 and labels.dtype == "int64"
    assert items[0] == items[-1] == message
    found = parse_example(items[1])
    assert found["many"].tolist() == [0, 127, 128, -1, 2**62]
    assert found["name"] == [b"", b"\x00\xff" * 99]
    assert found["size"].tolist() == [0.5, float(np.float32(-3e20))]
    assert found["none"] == [] and set(found) == set(kinds)
    mine = example(label=-5, many=[0, 127, 128, -1, 2**62])
    parsed = tf.train.Example.FromString(mine).features.feature
    assert list(parsed["many"].int64_list.value) == [0, 127, 128, -1, 2**62]


def test_numbers_one_by_one():
    """Old writers give each number a field of its own, which readers must take."""
    integers = b"".join(varint(1 << 3) + varint(n) for n in (3, 300))
    floats = b"".join(varint(1 << 3 | 5) + struct.pack("<f", n) for n in (1.5, 2.5))
    entries = field(1, field(1, b"i") + field(2, field(3, integers)))
    entries += field(1, field(1, b"f") + field(2, field(2, floats)))
    found = parse_example(field(1, entries))
    assert found["i"].tolist() == [3, 300] and found["f"].tolist() == [1.5, 2.5]


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
    found = {}

    def read(numbers):
        for i in numbers:
            found[i] = parse_example(items[i])["id"][0]

    order = np.random.default_rng(0).permutation(15)
    threads = [threading.Thread(target=read, args=(order[i::3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(15)] == ids
    assert pickle.loads(pickle.dumps(items))[14] == items[14]
    with pytest.raises(IndexError, match="15 records"):
        items[15]
    with pytest.raises(TypeError, match="one by one"):
        items[:2]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux lists open files there")
def test_many_files_are_not_kept_open(tmp_path):
    """Systems allow a process about a thousand open files."""
    files = [write(tmp_path / f"{i}.tfrecord", [example(label=i)]) for i in range(300)]
    before = len(os.listdir("/proc/self/fd"))
    for count in (3, 300):
        items, labels = tfrecord_items(files[:count])
        assert [parse_example(item)["label"][0] for item in items] == labels.tolist()
        assert len(os.listdir("/proc/self/fd")) == before + (3 if count == 3 else 0)


def test_the_index_is_read_again_and_made_anew(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(label=i) for i in range(5)])
    calls = []

    def label(record):
        calls.append(record)
        return int(parse_example(record)["label"][0])

    index = tmp_path / "a.npz"
    first, _ = tfrecord_items(path, label, index)
    assert len(calls) == 5
    # Of a function the places alone are kept: another one has another answer, by whatever name.
    again, labels = tfrecord_items(path, label, index)
    assert len(calls) == 10 and labels.tolist() == list(range(5)) and again[3] == first[3]
    assert tfrecord_items(path, lambda record: 7, index)[1].tolist() == [7] * 5
    assert tfrecord_items(path, lambda record: 8, index)[1].tolist() == [8] * 5
    named = tfrecord_items(path, "label", index)[1]
    assert tfrecord_items(path, "label", index)[1].tolist() == named.tolist() == list(range(5))
    without, none = tfrecord_items(path, None, index)
    assert none is None and without[4] == first[4]
    assert tfrecord_items(path, None, index)[1] is None
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
        # A number that never ends, in place of the length of a field.
        (framed([b"\n" + b"\xff" * 40]), "tf.train.Example"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        tfrecord_items(path)


def test_a_damaged_index_is_made_anew(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(label=i) for i in range(5)])
    index = tmp_path / "a.npz"
    tfrecord_items(path, "label", index)
    whole = index.read_bytes()
    for damaged in (
        b"",
        b"no zip",
        whole[: len(whole) // 2],
        whole[:60] + b"\0" * 40 + whole[100:],
    ):
        index.write_bytes(damaged)
        items, labels = tfrecord_items(path, "label", index)
        assert len(items) == 5 and labels.tolist() == list(range(5))
        assert index.read_bytes()[:100] == whole[:100]


def test_every_byte_of_a_file_damaged(tmp_path):
    """The file is refused by a ValueError, or read: no other error, whatever byte is damaged."""
    whole = framed([example(label=f"k{i}", id=[1, 300]) for i in range(2)])
    path = tmp_path / "a.tfrecord"
    for place in range(len(whole)):
        for damaged in (
            whole[:place],
            whole[:place] + whole[place + 1 :],
            whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :],
            whole[:place] + b"\xff" + whole[place + 1 :],
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
    "changes",
    [
        {"sizes": np.array([-5, 1], "int32")},
        {"starts": np.array([-5, 12])},
        {"starts": np.array([0.5, 1.0])},
        {"starts": np.array([12])},
        {"of_file": np.array([9, 9], "int32")},
        {"labels": None},
        {"labels": np.arange(3)},
    ],
)
def test_an_index_whose_parts_do_not_fit_is_made_anew(tmp_path, changes):
    path = write(tmp_path / "a.tfrecord", [example(label=i) for i in (3, 7)])
    index = tmp_path / "a.npz"
    first = list(tfrecord_items(path, index=index)[0])
    with np.load(index) as kept:
        parts = {**kept, **changes}
    np.savez(index, **{name: part for name, part in parts.items() if part is not None})
    items, labels = tfrecord_items(path, index=index)
    assert list(items) == first and labels.tolist() == [3, 7]


def test_labels_of_several_types(tmp_path):
    """NumPy would make strings of integers, and floats of large integers: several become one."""
    path = write(tmp_path / "a.tfrecord", [example(label=1), example(label="1")])
    with pytest.raises(
        ValueError, match="of one type in all records. Received: 1 in record 0 and '1' in record 1"
    ):
        tfrecord_items(path)
    assert tfrecord_items(path, label=lambda record: "1")[1].tolist() == ["1", "1"]
    with pytest.raises(ValueError, match="of one type"):
        tfrecord_items(path, label=_numbers([2**60 + 1, 0.5]))
    write(tmp_path / "1.tfrecord", [example(label=1)])
    write(tmp_path / "2.tfrecord", [example(label="b")])
    with pytest.raises(ValueError, match="one type.*dtype int64.*1.tfrecord.*<U1.*2.tfrecord"):
        tfrecord_items(tmp_path / "[12].tfrecord")
    with pytest.raises(ValueError, match="one label for each record"):
        tfrecord_items(path, label=lambda record: [1, 2])
    path = write(tmp_path / "b.tfrecord", [example(label=b"\xff")])
    with pytest.raises(ValueError, match=r"string in UTF-8. Received: b'\\xff' in record 0"):
        tfrecord_items(path)


def _numbers(values):
    values = iter(values)
    return lambda record: next(values)


def test_a_record_of_two_gibibytes(tmp_path):
    path = tmp_path / "a.tfrecord"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 2**31) + b"sums")
        file.truncate(2**31 + 16)  # A hole: no byte of it is on the disk.
    with pytest.raises(ValueError, match="below 2 GiB"):
        tfrecord_items(path, label=None)


def test_arguments_of_records(tmp_path):
    with pytest.raises(ValueError, match="no file|paths="):
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
        write(tmp_path / shard / "x.tfrecord", [example(label=1)])
    assert len(tfrecord_items(tmp_path / "*" / "x.tfrecord")[0]) == 2


def test_a_file_that_changed_afterwards(tmp_path):
    path = write(tmp_path / "a.tfrecord", [example(label=1)])
    items, _ = tfrecord_items(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="has changed"):
        items[0]


def image_bytes(value):
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, "uint8")).save(stream, "PNG")
    return stream.getvalue()


def test_images_of_records_in_balanced_batches(tmp_path):
    """The grey value is the class: rows and labels belong together."""
    records = [example(image=image_bytes(10 * (i % 5)), label=i % 5) for i in range(20)]
    items, labels = tfrecord_items(write(tmp_path / "a.tfrecord", records))
    load = ImageLoader((4, 4), feature="image")
    batches = BalancedBatches(items, labels, 3, 2, seed=0, load=load)
    for x, y in (batches[i] for i in range(len(batches))):
        assert x.shape == (6, 4, 4, 3) and x.dtype == "uint8"
        np.testing.assert_array_equal(x[:, 0, 0, 0], 10 * y)
    assert ImageLoader((8, 8))(image_bytes(7)).max() == 7
    with pytest.raises(ValueError, match=r"x\[\d+\]=.*No feature 'picture'"):
        BalancedBatches(items, labels, 3, 2, load=ImageLoader((4, 4), feature="picture"))[0]
    with pytest.raises(ValueError, match="bytes of one image"):
        ImageLoader((4, 4), feature="label")(records[0])
    with pytest.raises(TypeError, match="feature='image'"):
        load("a.png")
    with pytest.raises(ValueError, match="Could not read the image in 3 bytes"):
        ImageLoader((4, 4))(b"abc")


def pictures():
    """Image files of every kind, none of one colour."""
    from PIL import Image

    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3), "uint8"))
    picture = coarse.resize((37, 53), Image.BICUBIC)
    kinds = {
        "full colour": (picture, {"subsampling": 0, "quality": 90}),
        "half the colour": (picture, {"subsampling": 1}),
        "a quarter of the colour": (picture, {"subsampling": 2, "quality": 30}),
        "progressive": (picture, {"progressive": True}),
        "restart markers": (picture, {"restart_marker_rows": 1, "optimize": True}),
        "comment": (
            picture,
            {"comment": b"\xff\xd8\xff\xc0" * 200, "exif": b"Exif\0\0" + b"x" * 99},
        ),
        "another size": (coarse.resize((40, 53)), {}),
        "turned": (picture.resize((53, 37)), {}),
        "grey": (picture.convert("L"), {}),
        "print": (picture.convert("CMYK"), {}),
    }
    files = {}
    for name, (image, options) in kinds.items():
        stream = io.BytesIO()
        image.save(stream, "JPEG", **options)
        files[name] = stream.getvalue()
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return {**files, "png": stream.getvalue()}


SLOWLY = {"another size", "turned", "grey", "print", "png"}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_batch_of_images_is_what_the_loader_gives_one_by_one(data_format):
    files = pictures()
    records = [example(image=file, label=0) for file in files.values()]
    load = ImageLoader((53, 37), feature="image")
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(data_format)
    try:
        found = load.decode_batch(iter(records)) or [None] * len(records)
        quick = dict(zip(files, found, strict=True))
        alone = dict(zip(files, map(load, records), strict=True))
    finally:
        keras.config.set_image_data_format(before)
    slowly = {name for name, image in quick.items() if image is None}
    assert slowly == (SLOWLY if keras.backend.backend() == "tensorflow" else set(files))
    for name in set(files) - slowly:
        np.testing.assert_array_equal(quick[name], alone[name], err_msg=name)
        assert quick[name].dtype == alone[name].dtype == "uint8"


def test_a_batch_of_grey_images(on_tensorflow):
    files = pictures()
    load = ImageLoader((53, 37), "grayscale", feature="image")
    quick = load.decode_batch([example(image=files["grey"]), example(image=files["progressive"])])
    np.testing.assert_array_equal(quick[0], load(example(image=files["grey"])))
    assert quick[0].shape == (53, 37, 1) and quick[1] is None


def test_batches_take_what_is_quick_and_the_rest_one_by_one():
    files = list(pictures().values())
    records = [example(image=file) for file in files] * 2
    labels = np.arange(len(records)) % len(files)
    load = ImageLoader((53, 37), feature="image")
    batches = BalancedBatches(records, labels, len(files), 2, seed=0, load=load)
    for x, y in (batches[i] for i in range(len(batches))):
        for image, label in zip(x, y, strict=True):
            np.testing.assert_array_equal(image, load(records[label]))


def test_a_loader_that_does_more_is_called():
    class Halved(ImageLoader):
        def __call__(self, path):
            return super().__call__(path) / np.float32(510)

    records = [example(image=pictures()["full colour"])] * 4
    load = Halved((53, 37), feature="image")
    x, _ = BalancedBatches(records, [0, 0, 1, 1], 2, 2, seed=0, load=load)[0]
    assert x.dtype == "float32" and 0 < x.max() <= 0.5


def test_a_damaged_image_among_good_ones_is_named():
    good = pictures()["full colour"]
    records = [example(image=good)] * 3 + [example(image=good[:400])]
    batches = BalancedBatches(
        records, [0, 0, 1, 1], 2, 2, seed=0, load=ImageLoader((53, 37), feature="image")
    )
    with pytest.raises(ValueError, match=r"x\[3\]=.{,60}: Could not read the image"):
        batches[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_processes_leave_tensorflow_alone(on_tensorflow):
    """Its threads do not come along: a child that called it would wait for ever."""
    record = example(image=pictures()["full colour"])
    load = ImageLoader((53, 37), feature="image")
    assert load.decode_batch([record])[0] is not None
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(load.decode_batch, ([record],)).get(60) is None


def test_the_head_of_a_jpeg():
    files = pictures()
    forms = {name: jpeg_shape(file) for name, file in files.items()}
    assert forms.pop("png") is None
    assert forms.pop("grey") == (53, 37, 1) and forms.pop("print") == (53, 37, 4)
    assert forms.pop("another size") == (53, 40, 3) and forms.pop("turned") == (37, 53, 3)
    assert set(forms.values()) == {(53, 37, 3)}
    whole = files["progressive"]
    place = whole.index(b"\xff\xc2")
    assert all(jpeg_shape(whole[:end]) is None for end in range(place + 9))
    twelve_bits = bytearray(whole)
    twelve_bits[place + 4] = 12
    assert jpeg_shape(bytes(twelve_bits)) is None


class Source:
    """What a source of Grain is: a length, and items by their number."""

    def __len__(self):
        return 12

    def __getitem__(self, number):
        return np.full(2, float(number), "float32")


def test_a_source_of_items_by_number():
    batches = BalancedBatches(Source(), np.arange(12) % 3, 3, 2, seed=0, load=lambda item: item)
    x, y = batches[0]
    np.testing.assert_array_equal(x[:, 0] % 3, y)


def table(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_tables_of_paths(tmp_path):
    path = table(tmp_path, "a.csv", '\ufefflabel,x,path\n3,"a,b",p/1.jpg\n\n-1,,/q/2.jpg\n')
    paths, labels = path_table(path)
    assert paths == [str(tmp_path / "p/1.jpg"), "/q/2.jpg"]
    assert labels.tolist() == [3, -1] and labels.dtype == "int64"
    path = table(tmp_path, "b.tsv", "file\tkind\n1.jpg\t007\n2.jpg\t12\n")
    paths, labels = path_table(path, "file", "kind", root="r")
    assert paths == ["r/1.jpg", "r/2.jpg"] and labels.tolist() == ["007", "12"]


def test_tables_of_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"path": ["a", "b"], "label": [7, 2**40], "other": [None, 1]}
    parquet.write_table(pytest.importorskip("pyarrow").table(columns), tmp_path / "a.parquet")
    paths, labels = path_table(tmp_path / "a.parquet", root="r")
    assert paths == ["r/a", "r/b"] and labels.tolist() == [7, 2**40]
    with pytest.raises(ValueError, match=r"\['path', 'label', 'other'\]"):
        path_table(tmp_path / "a.parquet", label_column="kind")


def test_parquet_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="pip install.*parquet"):
        path_table(table(tmp_path, "a.parquet", ""))


@pytest.mark.parametrize(
    ("name", "text", "words"),
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
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, text, words):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=words):
        path_table(table(tmp_path, name, text))


def test_numbers_beyond_64_bits_and_paths_that_are_none(tmp_path):
    labels = path_table(table(tmp_path, "a.csv", f"path,label\na,{2**63}\nb,-1\n"))[1]
    assert labels.tolist() == [str(2**63), "-1"]
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"path": [1, 2], "label": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="strings. Received: 1 in row 1"):
        path_table(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([1.0, float("nan")], "row 2 of .* without 'label'"),
        ([[1], [1, 2]], r"one label. Received: \[1\]"),
        ([2**64 - 1, 1], None),
    ],
)
def test_labels_of_parquet(tmp_path, labels, words):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    kind = pyarrow.uint64() if words is None else None
    columns = {"path": ["a", "b"], "label": pyarrow.array(labels, kind)}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    if words is None:
        assert path_table(tmp_path / "a.parquet")[1].tolist() == labels
        return
    with pytest.raises(ValueError, match=words):
        path_table(tmp_path / "a.parquet")


def test_no_table(tmp_path):
    for path, root in ((None, None), (b"a.csv", None), (tmp_path / "a.csv", 3)):
        with pytest.raises(TypeError, match="must be a path"):
            path_table(path, root=root)
    with pytest.raises(ValueError, match="no file"):
        path_table(tmp_path / "a.csv")
