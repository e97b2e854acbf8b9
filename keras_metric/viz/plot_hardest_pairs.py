"""Images of the farthest same pairs and the nearest different pairs."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.neighbors import ExactDistances, key_blocks, key_distances
from keras_metric.viz._pixels import as_pixels
from keras_metric.viz._plot_inputs import as_items, as_labelled_images, sample
from keras_metric.viz._plot_style import RIGHT, WRONG, new_figure, readable, shorten, show_image

_CELL = 1.25  # inches of one image


def plot_hardest_pairs(
    images, labels, embeddings, num_pairs=6, max_items=5000, class_names=None, seed=0
):
    """Plot the farthest pairs of one class and the nearest pairs of two classes.

    These pairs have the largest loss, and show whether the encoder or the label is wrong. Each
    column is a pair with its Euclidean distance below it; an item is in at most one pair of a row,
    so that an outlier does not fill the row. The number after `#` is the row of the item.

    Args:
        images: Images of the items, see `plot_neighbors`.
        labels: `(items,)`, of any kind.
        embeddings: `(items, dim)`; distances are Euclidean.
        num_pairs: Pairs of each kind.
        max_items: Number of items to compare; more are sampled uniformly with `seed`.
        class_names: Optional list or dict from a label to its name.
        seed: Integer that seeds the sampling.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: Neither a pair of one class nor one of two, or mismatched shapes.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_hardest_pairs
        >>> x, images = np.array([[0.0], [1.0], [5.0], [6.5]]), np.zeros((4, 8, 8))
        >>> figure = plot_hardest_pairs(images, ["a", "a", "b", "b"], x, num_pairs=1)
        >>> [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
        ['Euclidean 1.5', 'Euclidean 4']
    """
    check_count("num_pairs", num_pairs)
    check_count("max_items", max_items)
    images, labels = as_labelled_images(images, labels)
    embeddings, labels, codes = as_items(embeddings, labels)
    kept = sample(len(labels), max_items, seed)
    embeddings, codes = embeddings[kept], codes[kept]
    kinds = [
        ("same class, far apart", RIGHT, _extreme_pairs(embeddings, codes, True, num_pairs)),
        ("different classes, close", WRONG, _extreme_pairs(embeddings, codes, False, num_pairs)),
    ]
    kinds = [kind for kind in kinds if kind[2]]
    if not kinds:
        raise ValueError(f"Pairs need two items. Received: {len(labels)}")
    shown = sorted({int(kept[row]) for _, _, pairs in kinds for pair in pairs for row in pair[:2]})
    pixels = dict(zip(shown, as_pixels(images, rows=shown)))
    columns = max(len(pairs) for _, _, pairs in kinds)
    figure = new_figure(max(4.5, _CELL * columns), 2.9 * _CELL * len(kinds))
    parts = np.atleast_1d(figure.subfigures(len(kinds), 1))
    for part, (title, colour, pairs) in zip(parts, kinds):
        part.suptitle(title, fontsize=10, color=colour)
        grid = part.subplots(2, columns, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for column, (first, second, distance) in enumerate(pairs):
            for axes, item in zip(grid[:, column], kept[[first, second]]):
                axes.set_axis_on()
                name = shorten(readable(labels[item], class_names))
                show_image(axes, pixels[item], f"{name} #{item}", fontsize=7, pad=2)
            grid[1, column].set_xlabel(f"Euclidean {distance:.3g}", fontsize=7, labelpad=2)
    return figure


def _extreme_pairs(embeddings, codes, same, most):
    """Return `most` pairs with the largest distance in a class, or the smallest between classes.

    No item is in two of them. Returns a list of `(first, second, distance)`.
    """
    found = []
    measured = ExactDistances(embeddings, embeddings, "euclidean")
    for rows, keys in key_blocks(measured, "pairs"):
        numbers = np.arange(rows.start, rows.stop)
        possible = (codes[numbers, None] == codes) == same
        possible &= np.arange(len(codes)) > numbers[:, None]
        distances = key_distances(keys)
        ranked = np.where(possible, -distances if same else distances, np.inf)
        # Keep several candidates of each row: other pairs may use two of its items each.
        columns = np.argsort(ranked, axis=1, kind="stable")[:, : 2 * most - 1]
        best = np.take_along_axis(ranked, columns, axis=1)
        found += [
            (best[row, slot], numbers[row], columns[row, slot])
            for row, slot in zip(*np.nonzero(best < np.inf))
        ]
    pairs, used = [], set()
    for _, first, second in sorted(found):
        if len(pairs) < most and not {first, second} & used:
            used |= {first, second}
            gap = embeddings[first] - embeddings[second]
            pairs.append((int(first), int(second), float(np.sqrt(np.square(gap).sum()))))
    return pairs
