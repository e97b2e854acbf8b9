"""Matrix of the classes of nearest neighbours."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.neighbors import nearest_items
from keras_metric.viz._plot_inputs import sampled_items
from keras_metric.viz._plot_style import new_figure, readable, shorten


def plot_confusions(embeddings, labels, max_classes=20, max_items=10_000, class_names=None, seed=0):
    """Plot how often the nearest neighbour of an item of one class is of another class.

    Rows are the classes of the items, columns those of their nearest neighbours, in percent of the
    items of the row. If there are more than `max_classes` classes, the pairs of classes that are
    most often confused are shown. The title has recall@1 over all items.

    Args:
        embeddings: `(items, dim)`; distances are Euclidean.
        labels: `(items,)`, of any kind.
        max_classes: Number of classes to show.
        max_items: Number of items to compare; more are sampled uniformly with `seed`.
        class_names: Optional list or dict from a label to its name.
        seed: Integer that seeds the sampling.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: Fewer than two items, or mismatched shapes.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_confusions
        >>> x = np.array([[0.0], [1.0], [2.0], [2.5]])
        >>> figure = plot_confusions(x, ["a", "a", "a", "b"])
        >>> figure.axes[0].get_title()
        'nearest of the same class: 50.0% of 4 items'
    """
    check_count("max_classes", max_classes)
    check_count("max_items", max_items)
    _, embeddings, codes, classes = sampled_items(embeddings, labels, max_items, seed)
    parts = nearest_items(embeddings, embeddings, "euclidean", 1, without_self=True)
    found = codes[np.concatenate([index[:, 0] for _, index, _ in parts])]
    shown = _most_confused(codes, found, len(classes), max_classes)
    position = np.full(len(classes), -1)
    position[shown] = np.arange(len(shown))
    inside = (position[codes] >= 0) & (position[found] >= 0)
    counts = np.zeros((len(shown), len(shown)))
    np.add.at(counts, (position[codes[inside]], position[found[inside]]), 1)
    totals = np.bincount(codes, minlength=len(classes))[shown].clip(min=1)
    percent = 100.0 * counts / totals[:, None]

    side = 2.2 + 0.32 * len(shown)
    figure = new_figure(max(4.6, side + 0.8), max(3.6, side))
    axes = figure.subplots()
    cells = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in zip(*np.nonzero(counts)):
        value = percent[row, column]
        axes.text(
            *(column, row, f"{value:.0f}" if value >= 0.5 else "<1"),
            **{"ha": "center", "va": "center", "fontsize": 7},
            color="white" if value > 55 else "black",
        )
    names = [shorten(readable(classes[code], class_names)) for code in shown]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    title = f"nearest of the same class: {np.mean(found == codes):.1%} of {len(codes):,} items"
    if len(shown) < len(classes):
        title += f"\n{len(shown)} of {len(classes):,} classes, those most often confused"
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("class of the nearest other item", fontsize=9)
    axes.set_ylabel("class of the item", fontsize=9)
    figure.colorbar(cells, ax=axes, shrink=0.7, label="% of the row's items")
    return figure


def _most_confused(codes, found, num_classes, most):
    """Return sorted class numbers: those of the most confused pairs, then others, up to `most`."""
    wrong = codes != found
    pairs = np.sort(np.stack([codes[wrong], found[wrong]]), axis=0)
    pairs, counts = np.unique(pairs, axis=1, return_counts=True)
    ranked = pairs.T[np.argsort(-counts, kind="stable")].ravel()
    ranked = list(dict.fromkeys([*ranked.tolist(), *range(num_classes)]))
    return np.sort(ranked[:most])
