"""The pairs that an encoder gets most wrong."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.viz._nearness import as_items, closest_pairs
from keras_metric.viz._pixels import as_pixels, channels_last
from keras_metric.viz._style import RIGHT, WRONG, as_labels, new_figure, readable, sample, shorten

_CELL = 1.25  # inches of one image


def plot_hardest_pairs(
    images, labels, embeddings, num_pairs=6, max_items=5000, class_names=None, seed=0
):
    """Draw the farthest pairs of one class and the nearest pairs of two classes.

    What a loss will push next, and where a human sees at once whether the encoder is wrong or the
    label. Each column is a pair, its Euclidean distance below it; no item comes twice in a row, so
    that one outlier does not fill it. The number after `#` is the row of the item.

    Args:
        images: Images of the items, see `plot_neighbors`.
        labels: `(items,)`, of any kind.
        embeddings: `(items, dim)`; distances are Euclidean.
        num_pairs: Pairs of each kind.
        max_items: Items to compare; of more, so many are drawn evenly with `seed`.
        class_names: Optional list or dict from a label to its name.
        seed: Integer for that draw.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if there is neither a pair of one class nor one of two, or shapes do not fit.

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
    images = channels_last(images)
    labels = as_labels("labels", labels, len(images))
    embeddings, labels, codes = as_items(embeddings, labels)
    kept = sample(len(labels), max_items, seed)
    embeddings, codes = embeddings[kept], codes[kept]

    def same(rows):
        return codes[rows, None] == codes

    def different(rows):
        return codes[rows, None] != codes

    kinds = [
        ("same class, far apart", RIGHT, closest_pairs(embeddings, same, num_pairs, farthest=True)),
        ("different classes, close", WRONG, closest_pairs(embeddings, different, num_pairs)),
    ]
    kinds = [kind for kind in kinds if kind[2]]
    if not kinds:
        raise ValueError(f"Pairs need two items. Received: {len(labels)}")
    shown = sorted({int(kept[row]) for _, _, pairs in kinds for pair in pairs for row in pair[:2]})
    pictures = dict(zip(shown, as_pixels(images, rows=shown)))
    columns = max(len(pairs) for _, _, pairs in kinds)
    size = (max(4.5, _CELL * columns), 2.9 * _CELL * len(kinds))
    figure = new_figure(figsize=size, layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(kinds), 1))
    for part, (title, colour, pairs) in zip(parts, kinds):
        part.suptitle(title, fontsize=10, color=colour)
        grid = part.subplots(2, columns, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for column, (first, second, distance) in enumerate(pairs):
            for axes, item in zip(grid[:, column], kept[[first, second]]):
                axes.set_axis_on()
                axes.imshow(pictures[item], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                name = shorten(readable(labels[item], class_names))
                axes.set_title(f"{name} #{item}", fontsize=7, pad=2)
            grid[1, column].set_xlabel(f"Euclidean {distance:.3g}", fontsize=7, labelpad=2)
    return figure
