"""Contents of the plots of errors: pairs, labels, confusions, similarities, distances, DET."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import norm

from keras_metric import viz


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


class TestHardestPairs:
    def pairs(self, figure):
        """Item numbers of each column, and the distance below it."""
        items = [int(title.split("#")[1]) for title in titles(figure)]
        given = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
        return items, [float(text.split()[1]) for text in given]

    @pytest.mark.parametrize("size", [40, 1500])
    def test_compared_with_the_matrix(self, size, rng):
        """1,500 items are more than one block."""
        x, labels = rng.normal(size=(size, 3)), rng.integers(0, 5, size)
        figure = viz.plot_hardest_pairs(np.zeros((size, 8, 8)), labels, x, num_pairs=1)
        items, given = self.pairs(figure)
        matrix = cdist(x, x)
        same, other = labels[:, None] == labels, ~np.eye(size, dtype=bool)
        expected = matrix[same].max(), matrix[~same & other].min()
        np.testing.assert_allclose(given, expected, rtol=1e-2)
        np.testing.assert_allclose(
            [matrix[items[0], items[1]], matrix[items[2], items[3]]], expected, rtol=1e-5
        )

    def test_an_outlier_is_in_one_pair_only(self):
        x = np.array([[0.0], [0.1], [0.2], [50.0]])
        figure = viz.plot_hardest_pairs(np.zeros((4, 8, 8)), [7] * 4, x, num_pairs=2)
        items, given = self.pairs(figure)
        # Two pairs of one class; there is one class only, so no second row.
        assert set(items[::2]) | set(items[1::2]) == {0, 1, 2, 3} and len(given) == 2

    def test_pairs_without_used_items_follow(self):
        x = np.array([[0.2], [0.0], [0.09], [5.0]])
        figure = viz.plot_hardest_pairs(np.zeros((4, 8, 8)), [1, 2, 3, 4], x, num_pairs=2)
        items, given = self.pairs(figure)
        assert sorted(items) == [0, 1, 2, 3] and given == [0.09, 4.8]


class TestLabelErrors:
    def test_planted_errors_are_shown(self, digits):
        images, labels = digits[0][:600], digits[1][:600].copy()
        planted = [10, 200, 444]
        labels[planted] = (labels[planted] + 5) % 10
        figure = viz.plot_label_errors(images, labels, images.reshape(600, -1), num_items=6)
        found = {int(title.split()[0].removeprefix("#")): title for title in titles(figure)}
        assert set(planted) <= set(found)
        for row in planted:
            assert found[row].endswith(f"{labels[row]} → {(labels[row] + 5) % 10}")

    @pytest.mark.parametrize("each", [1, 2, 4, 5])
    def test_small_classes_of_a_perfect_encoder(self, rng, each):
        labels = np.repeat(np.arange(30), each)
        x = rng.normal(size=(30, 4))[labels] + 1e-3 * rng.normal(size=(len(labels), 4))
        figure = viz.plot_label_errors(np.zeros((len(labels), 8, 8)), labels, x, k=3)
        expected = f"0 of {len(labels)} items are outvoted by their 3 nearest"
        assert figure.get_suptitle() == expected and not titles(figure)


class TestConfusions:
    def shown(self, figure):
        axes = figure.axes[0]
        names = [text.get_text() for text in axes.get_yticklabels()]
        cells = {
            (names[round(t.get_position()[1])], names[round(t.get_position()[0])]): t.get_text()
            for t in axes.texts
        }
        return names, cells

    def test_cells_are_percentages(self, rng):
        x, labels = rng.normal(size=(60, 2)), rng.integers(0, 3, 60)
        figure = viz.plot_confusions(x, labels, class_names=["ant", "bee", "cat"])
        matrix = cdist(x, x) + 1e9 * np.eye(60)
        found = labels[matrix.argmin(axis=1)]
        names, cells = self.shown(figure)
        assert names == ["ant", "bee", "cat"]
        for row in range(3):
            for column in range(3):
                percent = 100 * np.mean(found[labels == row] == column)
                text = cells.get((names[row], names[column]), "0")
                assert text == f"{percent:.0f}" or (text == "<1" and percent < 0.5)
        assert f"{np.mean(found == labels):.1%} of 60" in titles(figure)[0]

    def test_small_distances_far_from_the_mean(self, rng):
        """Squares of 25 million, and distances of 0.001: float32 has eight digits."""
        labels = np.arange(40) // 4
        x = 1e-2 * np.eye(10)[labels] + 1e-4 * rng.normal(size=(40, 10))
        x = np.hstack([x, np.where(labels % 2, 5000.0, -5000.0)[:, None]])
        assert "100.0% of 40" in titles(viz.plot_confusions(x, labels))[0]

    def test_two_thousand_classes(self, rng):
        labels = np.repeat(np.arange(2000), 2)
        x = 10.0 * labels[:, None] + np.tile([0.0, 1.0], 2000)[:, None]
        # Two classes change a member each.
        x[[20, 800]] = x[[800, 20]]
        figure = viz.plot_confusions(x, labels, max_classes=5)
        names, cells = self.shown(figure)
        assert len(names) == 5 and {"10", "400"} <= set(names)
        assert cells["10", "400"] == cells["400", "10"] == "100"
        assert "5 of 2,000 classes" in titles(figure)[0]


class TestSimilarity:
    def test_numbers_are_cosines(self, rng):
        x, labels = rng.normal(size=(12, 4)), np.array([2, 0, 1] * 4)
        figure = viz.plot_similarity(x, labels)
        shown = figure.axes[0].images[0].get_array()
        expected = np.sort(1 - cdist(x, x, "cosine").ravel())
        np.testing.assert_allclose(np.sort(shown.ravel()), expected, atol=1e-6)
        blocks = shown.reshape(3, 4, 3, 4)
        inside = np.mean([blocks[i, :, i].sum() - 4 for i in range(3)]) / 12
        assert f"{inside:.2f} inside a class" in titles(figure)[0]
        assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "1", "2"]

    def test_two_thousand_classes_are_sampled(self, rng):
        labels = np.repeat(np.arange(2000), 3)
        figure = viz.plot_similarity(rng.normal(size=(6000, 3)), labels)
        assert figure.axes[0].images[0].get_array().shape == (90, 90)
        assert titles(figure)[0].startswith("30 of 2,000 classes")


class TestDistanceHistory:
    def test_rows_are_histograms_of_epochs(self, rng):
        x, labels = rng.normal(size=(30, 3)).astype("float32"), rng.integers(0, 4, 30)
        figure = viz.plot_distance_history({"a": x, "b": 3 * x}, labels)
        outlines = [patch.get_data() for patch in figure.axes[0].patches[1::2]]
        matrix, upper = cdist(x, x), np.triu(np.ones((30, 30), bool), 1)
        same = labels[:, None] == labels
        heights = []
        for row, (base, factor) in enumerate(((1, 1.0), (0, 3.0))):
            for number, kind in enumerate((same, ~same)):
                values, edges, _ = outlines[2 * row + number]
                expected = np.histogram(factor * matrix[upper & kind], edges)[0]
                fractions = (values - base) / (values - base).sum()
                np.testing.assert_allclose(
                    fractions.cumsum(), (expected / expected.sum()).cumsum(), atol=0.02
                )
                heights.append((values - base).max())
        assert max(heights) == pytest.approx(1.6)

    def test_many_epochs_include_the_first_and_the_last(self, rng):
        x, labels = rng.normal(size=(20, 2)), np.arange(20) % 2
        figure = viz.plot_distance_history(dict.fromkeys(range(1000), x), labels, max_rows=5)
        names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert len(names) == 5 and names[0] == "0" and names[-1] == "999"

    def test_errors(self):
        with pytest.raises(ValueError, match="from epochs"):
            viz.plot_distance_history(np.ones((3, 2)), [0, 0, 1])
        with pytest.raises(ValueError, match="same items"):
            viz.plot_distance_history({0: np.ones((3, 2)), 1: np.ones((4, 2))}, [0, 0, 1])


class TestDet:
    def test_normal_scores_make_a_straight_line(self):
        """For normal distributions at a distance d, FRR = d - FAR on these axes."""
        quantiles = norm.ppf((np.arange(2000) + 0.5) / 2000)
        scores, same = np.concatenate([quantiles, quantiles + 2.0]), np.repeat([1, 0], 2000)
        figure = viz.plot_det(scores, same)
        line = figure.axes[0].lines[0]
        far, frr = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        middle = (np.abs(far) < 2) & (np.abs(frr) < 2)
        assert middle.sum() > 100
        np.testing.assert_allclose((far + frr)[middle], -2.0, atol=0.05)
        assert figure.legends[0].get_texts()[0].get_text() == "EER 0.159"


@pytest.mark.parametrize("plot", [viz.plot_hardest_pairs, viz.plot_label_errors])
def test_images_have_one_scale_and_one_label_each(plot):
    """A dark image stays dark next to a bright one."""
    x, labels = np.array([[0.0], [0.1], [9.0], [9.1], [0.05]]), np.array([0, 0, 1, 1, 1])
    images = np.arange(5.0)[:, None, None] * np.linspace(0, 1, 16).reshape(4, 4)
    brightest = [
        int(part.get_array().max()) for axes in plot(images, labels, x).axes for part in axes.images
    ]
    assert set(brightest) <= {0, 64, 128, 191, 255}
    assert set(brightest) & {64, 128, 191}
    with pytest.raises(ValueError, match="one label for each item"):
        plot(images[:4], labels, x)
