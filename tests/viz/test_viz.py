"""Contents of the plots, and of the projector's files as TensorBoard reads them."""

import io
import sys
import tracemalloc

import keras
import numpy as np
import pytest
from matplotlib import cbook
from matplotlib.text import Text
from PIL import Image
from scipy.spatial.distance import cdist

from keras_metric import viz
from keras_metric.evaluation import pair_samples
from keras_metric.viz._pixels import as_pixels, looks_like_images
from keras_metric.viz._plot_style import PALETTE, RIGHT, SYMBOLS, WRONG

# Possible names of folders: formulas, control characters, surrogates, HTML, empty texts.
UNUSUAL_NAMES = (
    *("$", "$x$", r"$\bad{$", "a\tb", "a\nb\r", "\x1b[31m", "a\0b", "a\x0b\x0c\x1c\x85b"),
    *("a\u2028b", "latin\udce9", "<b>|`", "_under", "", "  ", "x" * 500),
)


def texts(figure):
    return [axes.get_title() for axes in figure.axes]


class TestNeighbors:
    def test_right_and_wrong_by_colour_and_symbol(self):
        x = np.array([[0.0], [1.0], [3.0], [7.0]])
        images = np.zeros((4, 8, 8))
        figure = viz.plot_neighbors(images, ["a", "b", "a", "a"], x, queries=[0, 3], k=2)
        assert texts(figure) == ["a", "✗ b", "✓ a", "a", "✓ a", "✗ b"]
        colours = [axes.title.get_color() for axes in figure.axes]
        assert colours == ["black", WRONG, RIGHT, "black", RIGHT, WRONG]
        assert [axes.get_xlabel() for axes in figure.axes[1:3]] == ["1", "3"]

    def test_the_metric_orders_the_neighbors_and_is_named(self, rng):
        x, images = rng.normal(size=(6, 4)), np.zeros((6, 8, 8))
        for metric in ("cosine", "euclidean", "squared_euclidean", "manhattan"):
            peers = {"manhattan": "cityblock", "squared_euclidean": "sqeuclidean"}
            expected = np.sort(cdist(x[:1], x[1:], peers.get(metric, metric))[0])
            figure = viz.plot_neighbors(images, np.arange(6), x, queries=[0], k=5, metric=metric)
            shown = [float(axes.get_xlabel()) for axes in figure.axes[1:]]
            np.testing.assert_allclose(shown, expected, rtol=5e-3)
            name = metric.replace("_", " ")
            assert figure.get_suptitle() == f"below each neighbour: its {name} distance"
        assert "euclidean" in viz.plot_neighbors(images, np.arange(6), x).get_suptitle()
        with pytest.raises(ValueError, match="`metric`"):
            viz.plot_neighbors(images, np.arange(6), x, metric="hamming")

    def test_titles_without_labels(self):
        neighbors, names = np.array([[1, 2]]), ["a.png", "b.png", "c.png"]
        settings = {"neighbors": neighbors, "queries": [0], "distances": neighbors / 4}
        figure = viz.plot_neighbors(np.zeros((3, 8, 8)), None, titles=names, **settings)
        assert texts(figure) == names and figure.get_suptitle() == ""
        assert {axes.title.get_color() for axes in figure.axes} == {"black"}
        with pytest.raises(ValueError, match="`titles`"):
            viz.plot_neighbors(np.zeros((3, 8, 8)), None, titles=names[1:], **settings)

    def test_a_copy_of_the_query_is_a_neighbor_and_the_query_is_not(self):
        figure = viz.plot_neighbors(np.zeros((3, 8, 8)), [0, 1, 2], np.ones((3, 2)), queries=[1])
        assert texts(figure) == ["1", "✗ 0", "✗ 2"]

    def test_neighbors_of_an_index(self, digits):
        images, labels = digits
        neighbors = np.array([[5, 6, 7], [8, 9, 10]])
        settings = dict(neighbors=neighbors, queries=[0, 1], k=2, class_names="ABCDEFGHIJ")
        figure = viz.plot_neighbors(images, labels, **settings)
        assert texts(figure) == ["A", "✗ F", "✗ G", "B", "✗ I", "✗ J"]

    def test_the_choice_of_queries_is_seeded(self, digits):
        images, labels = digits[0][:50], digits[1][:50]
        x = images.reshape(50, -1)
        first, again, other = (
            texts(viz.plot_neighbors(images, labels, x, queries=4, seed=seed)) for seed in (0, 0, 1)
        )
        assert first == again != other

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(), "either"),
            (dict(embeddings=np.zeros((4, 2)), neighbors=np.zeros((1, 1))), "either"),
            (dict(neighbors=np.zeros((1, 1), int), queries=3), "list the index"),
            (dict(neighbors=np.zeros((2, 1), int), queries=[1]), "one row for each"),
            (dict(embeddings=np.zeros((4, 2)), labels=[0]), "one label for each"),
            (dict(embeddings=np.zeros((5, 2))), "`embeddings` must hold one entry for each of 4"),
            (dict(embeddings=np.zeros((4, 2)), queries=[4]), "indices of items, 0 to 3"),
            (dict(embeddings=np.zeros((4, 2)), queries=[[1]]), "a number or a list"),
            # An index returns -1 for a missing neighbour, which must not index the last item.
            (dict(neighbors=np.array([[1, -1]]), queries=[0]), "indices of items"),
            (
                dict(neighbors=np.array([[1]]), queries=[0], distances=np.zeros((1, 2))),
                "shape of `neighbors`",
            ),
            (dict(embeddings=np.zeros((4, 2)), images=np.zeros((4, 2))), "height"),
        ],
    )
    def test_errors(self, arguments, message):
        arguments = {"images": np.zeros((4, 8, 8)), "labels": [0, 0, 1, 1], **arguments}
        with pytest.raises(ValueError, match=message):
            viz.plot_neighbors(**arguments)


class TestEmbeddings:
    def test_two_and_two_thousand_classes(self, rng):
        """Nine large classes and one of the small ones are named, the others counted."""
        many = np.concatenate([np.repeat(np.arange(9), 20), np.arange(2000)])
        names = ["1,990 other classes", *map(str, range(10))]
        for labels, expected in ((np.arange(40) % 2, ["0", "1"]), (many, names)):
            figure = viz.plot_embeddings(rng.normal(size=(len(labels), 3)), labels)
            assert [text.get_text() for text in figure.legends[0].get_texts()] == expected

    def test_points_are_the_principal_components(self, rng):
        """Compared with an eigendecomposition: coordinates up to sign, fractions of variance."""
        x = rng.normal(size=(50, 4)) * [1.0, 9.0, 3.0, 0.1]
        figure = viz.plot_embeddings(x, np.zeros(50))
        points = figure.axes[0].collections[0].get_offsets()
        values, vectors = np.linalg.eigh(np.cov(x.T))
        expected = (x - x.mean(axis=0)) @ vectors[:, [3, 2]]
        np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-6)
        assert figure.axes[0].get_xlabel() == f"PCA 1 ({values[3] / values.sum():.0%} of variance)"

    def test_panels_have_the_same_points(self, rng):
        before, labels = rng.normal(size=(90, 4)), np.arange(90) % 3
        figure = viz.plot_embeddings({"a": before, "b": 2 * before}, labels, max_points=30)
        assert texts(figure) == ["a", "b"]
        a, b = ([c.get_offsets() for c in axes.collections] for axes in figure.axes)
        assert sum(map(len, a)) == 30
        np.testing.assert_allclose(2 * np.concatenate(a), np.concatenate(b), atol=1e-6)

    def test_tsne_keeps_groups(self, rng):
        labels = np.arange(30) % 3
        x = 30 * np.eye(6)[labels] + rng.normal(size=(30, 6))
        figure = viz.plot_embeddings(x, labels, method="tsne")
        groups = [collection.get_offsets() for collection in figure.axes[0].collections]
        inside = max(cdist(group, group).max() for group in groups)
        between = min(cdist(groups[i], groups[j]).min() for i, j in ((0, 1), (0, 2), (1, 2)))
        assert between > inside

    def test_umap_arguments_and_a_missing_umap(self, rng, monkeypatch):
        monkeypatch.setitem(sys.modules, "umap", None)
        x = rng.normal(size=(6, 3))
        with pytest.raises(ImportError, match=r"pip install .keras_metric\[umap\]"):
            viz.plot_embeddings(x, np.zeros(6), method="umap")

        class Double:
            def __init__(self, n_neighbors, init, random_state, n_jobs):
                assert (n_neighbors, init.shape, random_state) == (5, (6, 2), 7)

            def fit_transform(self, given):
                return given[:, :2]

        monkeypatch.setitem(sys.modules, "umap", type(sys)("umap"))
        sys.modules["umap"].UMAP = Double
        figure = viz.plot_embeddings(x, np.zeros(6), method="umap", seed=7)
        np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), x[:, :2], 1e-5)

    def test_thumbnails_do_not_cover_each_other(self, digits):
        images, labels = digits[0][:300], digits[1][:300]
        figure = viz.plot_embeddings(images.reshape(300, -1), labels, images=images)
        axes = figure.axes[0]
        figure.draw_without_rendering()
        boxes = [artist.get_window_extent() for artist in axes.artists]
        assert len(boxes) > 20
        corners = np.array([[box.x0, box.y0] for box in boxes])
        gaps = np.abs(corners[:, None] - corners).max(axis=2) + 1e9 * np.eye(len(boxes))
        assert gaps.min() >= max(box.width for box in boxes)

    @pytest.mark.parametrize(
        ("method", "shape"),
        [("pca", (1, 3)), ("pca", (2, 1)), ("pca", (5, 4)), ("tsne", (1, 3)), ("tsne", (5, 1))],
    )
    def test_collapsed_and_tiny_sets(self, method, shape):
        figure = viz.plot_embeddings(np.ones(shape), np.arange(shape[0]), method=method)
        assert len(figure.axes[0].collections) == shape[0]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(images=np.zeros((3, 8, 8))), "one entry for each of 2 embeddings. Received: 3"),
            (dict(method="mds"), "one of"),
            (dict(embeddings={"a": np.eye(2), "b": np.eye(3)}), "same items"),
            (dict(embeddings=[[np.nan, 0.0]]), "finite"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            viz.plot_embeddings(**{"embeddings": np.eye(2), "labels": [0, 1], **arguments})


@pytest.mark.touches_keras
class TestDistances:
    def fractions(self, figure):
        """The heights of both histograms, from their outlines."""
        return [patch.get_data().values for patch in figure.axes[0].patches[1::2]]

    def test_all_pairs_of_a_small_set(self, rng):
        x, labels = rng.normal(size=(30, 3)).astype("float32"), rng.integers(0, 4, 30)
        figure = viz.plot_distances(x, labels)
        matrix, upper = cdist(x, x), np.triu(np.ones((30, 30), bool), 1)
        same = labels[:, None] == labels
        edges = figure.axes[0].patches[0].get_data().edges
        for fraction, kind in zip(self.fractions(figure), (same, ~same)):
            expected = np.histogram(matrix[upper & kind], edges)[0] / (upper & kind).sum()
            # A distance that rounds across an edge moves by one bin.
            np.testing.assert_allclose(fraction.cumsum(), expected.cumsum(), atol=0.02)

    def test_a_sample_is_like_all_pairs(self, rng):
        """Unequal classes: each pair must be as likely as every other."""
        labels = np.repeat([0, 1, 2], [200, 30, 5])
        x = rng.normal(size=(235, 2)) * np.array([1.0, 4.0, 20.0])[labels][:, None]
        few, all_pairs = (viz.plot_distances(x, labels, max_pairs=n) for n in (15_000, 10**6))
        for found, expected in zip(self.fractions(few), self.fractions(all_pairs)):
            assert np.abs(found.cumsum() - expected.cumsum()).max() < 0.02

    def test_overlap(self):
        apart = viz.plot_distances(np.array([[0.0], [0.1], [9.0], [9.1]]), [0, 0, 1, 1])
        assert texts(apart) == ["overlap of the two: 0%"]
        collapsed = viz.plot_distances(np.ones((6, 2)), [0, 0, 0, 1, 1, 1])
        assert texts(collapsed) == ["overlap of the two: 100%"]

    def test_few_pairs_of_two_classes_among_many_items(self, rng):
        """All pairs, each once, without a mask of items by items."""
        labels = rng.permutation(np.repeat([0, 1, 2], [4000, 1, 2]))
        tracemalloc.start()
        _, (first, second) = pair_samples.pairs_of_kinds(labels, 20_000, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (labels[first] != labels[second]).all() and peak < 5e6
        pairs = set(map(frozenset, zip(first.tolist(), second.tolist())))
        assert len(first) == len(pairs) == 4000 * 3 + 2

    @pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
    def test_needs_both_kinds_of_pairs(self, labels):
        with pytest.raises(ValueError, match="two classes"):
            viz.plot_distances(np.ones((3, 2)), labels)


class TestRoc:
    def test_the_curve_is_the_counts(self, rng):
        same = np.arange(60) % 2
        scores = rng.normal(1.0 - same)
        figure = viz.plot_roc(scores, same, log=False)
        line = figure.axes[0].lines[0]
        for far, tar in zip(line.get_xdata(), line.get_ydata()):
            accepted = [scores <= threshold for threshold in (-np.inf, *scores)]
            pairs = [(some[same == 0].mean(), some[same == 1].mean()) for some in accepted]
            assert any(np.allclose((far, tar), pair) for pair in pairs)
        assert len(line.get_xdata()) == 61

    def test_several_curves_have_different_names_and_styles(self, rng):
        same = np.arange(60) % 2
        scores = {"raw": rng.normal(size=60), "trained": rng.normal(size=60) + 3 * same}
        figure = viz.plot_roc(scores, same, larger_is_closer=True)
        first, second = figure.axes[0].lines[:2]
        assert [t.get_text().split(":")[0] for t in figure.legends[0].get_texts()] == [*scores]
        assert first.get_color() != second.get_color()
        assert first.get_linestyle() != second.get_linestyle()
        assert figure.axes[0].get_xscale() == "log" and first.get_xdata().min() > 0

    @pytest.mark.parametrize("plot", [viz.plot_det, viz.plot_roc])
    @pytest.mark.parametrize(
        ("scores", "message"),
        [([0.1, 0.2], "same and different"), ({}, "at least one"), ([0.1], "one number for each")],
    )
    def test_errors(self, plot, scores, message):
        with pytest.raises(ValueError, match=message):
            plot(scores, [1, 1])


class TestProjector:
    def config(self, folder):
        """The configuration as TensorBoard reads it."""
        from google.protobuf import text_format
        from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

        text = (folder / "projector_config.pbtxt").read_text()
        return text_format.Parse(text, ProjectorConfig())

    def test_files(self, tmp_path, rng):
        x = rng.normal(size=(10, 3)).astype("float32")
        images = rng.integers(0, 256, (10, 12, 20, 3)).astype("uint8")
        viz.write_projector(tmp_path, x, np.arange(10) % 3, images, name="a")
        (entry,) = self.config(tmp_path).embeddings
        assert (entry.tensor_name, list(entry.tensor_shape)) == ("a", [10, 3])
        stored = np.fromfile(tmp_path / entry.tensor_path, "<f4").reshape(10, 3)
        np.testing.assert_array_equal(stored, x)
        assert (tmp_path / entry.metadata_path).read_text().split() == list("0120120120")
        assert list(entry.sprite.single_image_dim) == [20, 12]  # width, height
        with Image.open(tmp_path / entry.sprite.image_path) as image:
            sheet = np.asarray(image)
        assert sheet.shape == (48, 80, 3)  # four by four
        np.testing.assert_array_equal(sheet[12:24, 20:40], images[5])
        assert not sheet[24:36, 40:60].any()

    def test_several_names_in_one_folder(self, tmp_path):
        (tmp_path / "projector_config.pbtxt").write_text(
            '# "embeddings {" in a comment\nmodel_checkpoint_path: "w"\n'
            'embeddings {\n tensor_name: "old } {"\n tensor_path: "x"\n'
            ' sprite { image_path: "}" }\n}\n'
        )
        for name, rows in (("a", 2), ("b", 3), ("a", 4)):
            viz.write_projector(tmp_path, np.ones((rows, 2)) / 3, name=name)
        config = self.config(tmp_path)
        assert config.model_checkpoint_path == "w"
        found = [(entry.tensor_name, list(entry.tensor_shape)) for entry in config.embeddings]
        assert found == [("old } {", []), ("b", [3, 2]), ("a", [4, 2])]

    def test_metadata_is_escaped_and_has_a_header_only_with_columns(self, tmp_path):
        labels = ["a\tb", "c\nd", "", "ünder"]
        viz.write_projector(tmp_path, np.eye(4), labels)
        lines = (tmp_path / "embeddings_metadata.tsv").read_text("utf-8").split("\n")
        assert lines == ["a\\tb", "c\\nd", "(empty)", "ünder", ""]
        viz.write_projector(tmp_path, np.eye(4), labels, metadata={"age": [1, 2, 3, 4]})
        lines = (tmp_path / "embeddings_metadata.tsv").read_text("utf-8").split("\n")
        assert lines[:2] == ["label\tage", "a\\tb\t1"]
        assert len(lines) == 6

    @pytest.mark.parametrize("text", UNUSUAL_NAMES)
    def test_one_line_for_each_item_with_any_text(self, tmp_path, text):
        metadata = {"c": [1, 2, 3]}
        config = viz.write_projector(tmp_path, np.eye(3), [text, "b", text], metadata=metadata)
        rows = (config.parent / "embeddings_metadata.tsv").read_text("utf-8").splitlines()
        assert [len(row.split("\t")) for row in rows] == [2] * 4

    def test_invalid_files_and_types(self, tmp_path):
        for content in (b"\xff", b"embeddings { tensor_name: 1 }"):
            (tmp_path / "projector_config.pbtxt").write_bytes(content)
            with pytest.raises(ValueError, match="(?s)projector_config.pbtxt.*Remove the file"):
                viz.write_projector(tmp_path, np.eye(3))
            assert len(list(tmp_path.iterdir())) == 1
        with pytest.raises(TypeError, match="`metadata` must be a dict"):
            viz.write_projector(tmp_path, np.eye(3), metadata=["a"])
        with pytest.raises(TypeError, match="`log_dir` must be a path"):
            viz.write_projector(None, np.eye(3))

    @pytest.mark.parametrize(
        ("labels", "class_names"),
        [([7, 9], {7: "ant", 9: "bee"}), (np.array([b"ant", b"bee"]), None)],
    )
    def test_labels_are_written_as_texts(self, tmp_path, labels, class_names):
        viz.write_projector(tmp_path, np.eye(2), labels, class_names=class_names)
        assert (tmp_path / "embeddings_metadata.tsv").read_text() == "ant\nbee\n"

    @pytest.mark.parametrize("first", [0.0, 1.0, np.float32(1e-40), 2.3509886e-38])
    def test_numbers_whose_bytes_are_text_are_written_as_tsv(self, tmp_path, first):
        """TensorBoard would read the bytes of zeros as text, and fail."""
        from tensorboard.plugins.projector import projector_plugin as plugin

        x = np.full((3, 2), first, "float32")
        viz.write_projector(tmp_path, x)
        (entry,) = self.config(tmp_path).embeddings
        path = str(tmp_path / entry.tensor_path)
        try:
            stored = plugin._read_tensor_tsv_file(path)
        except UnicodeDecodeError:
            stored = plugin._read_tensor_binary_file(path, entry.tensor_shape)
        np.testing.assert_array_equal(stored, x)

    def test_sampled_points(self, tmp_path, rng):
        x, labels = rng.normal(size=(100, 2)), np.arange(100)
        kept = []
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            viz.write_projector(tmp_path, x, labels, name=name, max_points=20, seed=seed)
            kept.append([int(i) for i in (tmp_path / f"{name}_metadata.tsv").read_text().split()])
        assert kept[0] == kept[1] == sorted(kept[0])
        assert kept[0] != kept[2]
        stored = np.fromfile(tmp_path / "a_tensor.bytes", "<f4").reshape(-1, 2)
        np.testing.assert_allclose(stored, x[kept[0]], rtol=1e-6)

    def test_largest_sprite(self, tmp_path):
        images = np.zeros((200, 100, 200), "uint8")
        viz.write_projector(tmp_path, np.eye(200), images=images)
        (entry,) = self.config(tmp_path).embeddings
        assert list(entry.sprite.single_image_dim) == [64, 32]
        many = np.broadcast_to(np.uint8(3), (20_000, 58, 58))
        viz.write_projector(tmp_path, np.ones((20_000, 1)), images=many, max_points=20_000)
        with Image.open(tmp_path / "embeddings_sprite.png") as sheet:
            assert sheet.size == (142 * 57, 142 * 57)

    @pytest.mark.parametrize("images", [None, np.zeros((3, 8))])
    def test_a_failed_write_keeps_the_old_files(self, tmp_path, monkeypatch, images):
        """It fails while a file is replaced, or because of the shape of the images."""
        viz.write_projector(tmp_path, np.eye(2), ["a", "b"])
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        if images is None:
            monkeypatch.setattr("os.replace", lambda *paths: 1 / 0)
        with pytest.raises((ZeroDivisionError, ValueError), match="zero|height, width"):
            viz.write_projector(tmp_path, np.eye(3), ["a", "b", "c"], images)
        assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(labels=[1, 2], metadata={"label": [1, 2]}), "unique column names"),
            (dict(labels=[1.0, np.nan]), "no NaN"),
            (dict(name="a/b"), "letters"),
            (dict(name=""), "letters"),
            (dict(labels=[1]), "one label for each"),
            (dict(images=np.zeros((3, 8, 8))), "`images` must hold one entry for each"),
            (dict(metadata={"age": [1, 2, 3]}), "age"),
            (dict(max_points=0), "at least 1"),
            (dict(embeddings=1e39 * np.eye(2)), "float32.*1e\\+39"),
        ],
    )
    def test_errors(self, tmp_path, arguments, message):
        with pytest.raises(ValueError, match=message):
            viz.write_projector(tmp_path, **{"embeddings": np.eye(2), **arguments})
        assert not list(tmp_path.iterdir())


class TestPixels:
    def test_ranges(self):
        """Bytes and floats in 0 to 1 keep their scale; other values are stretched together."""
        ramp = np.linspace(0, 1, 128).reshape(2, 8, 8)
        assert as_pixels(ramp).max() == 255
        assert as_pixels(0.5 * ramp).max() == 128
        np.testing.assert_array_equal(as_pixels(2 * ramp - 1), as_pixels(ramp))
        np.testing.assert_array_equal(as_pixels((200 * ramp).astype("uint8")).max(), 200)
        assert as_pixels(np.zeros((1, 8, 8, 4))).shape == (1, 8, 8, 3)
        assert as_pixels(np.zeros((1, 8, 9, 1))).shape == (1, 8, 9)
        np.testing.assert_array_equal(as_pixels(100 + 10 * ramp), as_pixels(ramp))
        assert as_pixels(np.full((1, 8, 8), 150.0)).max() == 0

    def test_rows_are_converted_in_the_range_of_all_images(self, rng):
        images = rng.normal(size=(20, 8, 8))
        np.testing.assert_array_equal(as_pixels(images, rows=[7, 3]), as_pixels(images)[[7, 3]])
        images[5, 2, 2], images[6, 0, 0], images[7, 1, 1] = np.nan, np.inf, -np.inf
        pixels = as_pixels(images)
        assert [pixels[5, 2, 2], pixels[6, 0, 0], pixels[7, 1, 1]] == [0, 255, 0]
        assert len(np.unique(pixels)) > 100

    def test_channels_first(self):
        before = keras.config.image_data_format()
        try:
            keras.config.set_image_data_format("channels_first")
            assert as_pixels(np.zeros((2, 3, 8, 9))).shape == (2, 8, 9, 3)
            assert looks_like_images(np.zeros((2, 3, 8, 9)))
            inputs = np.zeros((2, 3, 8, 9)), [0, 1], np.eye(2)
            shown = viz.plot_neighbors(*inputs).axes[0].images[0].get_array()
            assert shown.shape == (8, 9, 3)
            assert len(viz.plot_embeddings(np.eye(2), [0, 1], inputs[0]).axes[0].artists) == 2
        finally:
            keras.config.set_image_data_format(before)

    @pytest.mark.touches_keras
    def test_what_looks_like_images(self):
        assert looks_like_images(np.zeros((2, 8, 8), "uint8"))
        assert looks_like_images(keras.ops.zeros((2, 8, 8, 3)))
        for other in (np.zeros((2, 64)), np.zeros((2, 100, 4)), {"a": 1}, ["a"], np.array(["a"])):
            assert not looks_like_images(other)


@pytest.mark.parametrize("text", UNUSUAL_NAMES)
def test_class_names_are_shown_unchanged(rng, text):
    """No formulas between dollar signs, no errors, no font warnings, no missing entries."""
    x, labels, names = rng.normal(size=(8, 3)), np.arange(8) % 2, [text, f"b{text}"]
    for figure in (
        viz.plot_embeddings(x, labels, class_names=names),
        viz.plot_confusions(x, labels, class_names=names),
        viz.plot_neighbors(np.zeros((8, 8, 8)), labels, x, class_names=names),
        viz.plot_roc({name: np.arange(8.0) for name in names}, labels),
    ):
        figure.savefig(io.BytesIO())
        for legend in figure.legends:
            assert len(legend.get_texts()) == 2
        for shown in figure.findobj(Text):
            # matplotlib formats the numbers of an axis as formulas.
            assert not cbook.is_math_text(shown.get_text()) or "mathdefault" in shown.get_text()


def test_palette_has_a_symbol_for_each_colour():
    assert len(set(PALETTE)) == len(PALETTE) == len(set(SYMBOLS)) == len(SYMBOLS)


def test_figures_do_not_touch_the_global_state_of_matplotlib(rng):
    """Figures can be made in threads, and no window opens or stays open."""
    from matplotlib import pyplot

    x, y = rng.random((20, 4)), np.arange(20) % 4
    viz.plot_embeddings(x, y).savefig("embeddings.png")
    viz.plot_distances(x, y).savefig("distances.png")
    viz.plot_neighbors(rng.random((20, 8, 8)), y, x).savefig("neighbors.png")
    assert pyplot.get_fignums() == []


def test_a_list_of_names_has_no_name_for_negative_labels():
    with pytest.raises(ValueError, match="none for .*-1"):
        viz.plot_similarity(np.eye(4), [0, 0, -1, -1], class_names=["ant", "bee"])
    figure = viz.plot_similarity(np.eye(4), [0, 0, -1, -1], class_names={0: "ant", -1: "none"})
    texts = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert texts == ["none", "ant"]
