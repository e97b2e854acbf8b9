"""Which classes are taken for which."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.viz._nearness import nearest, sampled_items
from keras_metric.viz._style import new_figure, readable, shorten


def plot_confusions(embeddings, labels, max_classes=20, max_items=10_000, class_names=None, seed=0):
    """Draw how often the nearest neighbour of an item of one class is of another class.

    Rows are the classes of the items, columns those of their nearest others; a row is in per cent
    of its items. Of more than `max_classes` classes the pairs that are most often taken for each
    other are shown, so that 2,000 classes stay readable; the title says what recall@1 is over all.

    Args:
        embeddings: `(items, dim)`; distances are Euclidean.
        labels: `(items,)`, of any kind.
        max_classes: Classes to show.
        max_items: Items to compare; of more, so many are drawn evenly with `seed`.
        class_names: Optional list or dict from a label to its name.
        seed: Integer for that draw.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: for fewer than two items, or shapes that do not fit.

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
    found = codes[nearest(embeddings, 1)[:, 0]]
    shown = _most_confused(codes, found, len(classes), max_classes)
    place = np.full(len(classes), -1)
    place[shown] = np.arange(len(shown))
    inside = (place[codes] >= 0) & (place[found] >= 0)
    counts = np.zeros((len(shown), len(shown)))
    np.add.at(counts, (place[codes[inside]], place[found[inside]]), 1)
    totals = np.bincount(codes, minlength=len(classes))[shown].clip(min=1)
    shares = 100.0 * counts / totals[:, None]

    side = 2.2 + 0.32 * len(shown)
    figure = new_figure(figsize=(max(4.6, side + 0.8), max(3.6, side)), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in zip(*np.nonzero(counts)):
        value = shares[row, column]
        text = f"{value:.0f}" if value >= 0.5 else "<1"
        axes.text(
            *(column, row, text),
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
    figure.colorbar(picture, ax=axes, shrink=0.7, label="% of the row's items")
    return figure


def _most_confused(codes, found, num_classes, most):
    """Class numbers in rising order: pairs of classes by their confusions, then what has room."""
    wrong = codes != found
    pairs = np.sort(np.stack([codes[wrong], found[wrong]]), axis=0)
    pairs, counts = np.unique(pairs, axis=1, return_counts=True)
    ranked = pairs.T[np.argsort(-counts, kind="stable")].ravel()
    # The first places of all classes, the confused ones before the others.
    ranked = list(dict.fromkeys([*ranked.tolist(), *range(num_classes)]))
    return np.sort(ranked[:most])
