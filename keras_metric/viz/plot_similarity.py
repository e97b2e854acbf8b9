"""Matrix of the cosine similarities of items, sorted by class."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.neighbors import unit_rows
from keras_metric.viz._plot_inputs import as_items
from keras_metric.viz._plot_style import new_figure, readable, shorten

_MOST_NAMED = 20  # classes whose names fit along an axis


def plot_similarity(
    embeddings, labels, max_classes=30, items_per_class=10, class_names=None, seed=0
):
    """Plot the cosine similarities of all pairs of items, sorted by class.

    A good encoder has bright squares on the diagonal and is dark elsewhere. A bright square off the
    diagonal is a pair of classes that are confused; a dark line in a bright square is an item that
    differs from its class.

    Args:
        embeddings: `(items, dim)`, normalised or not.
        labels: `(items,)`, of any kind.
        max_classes: Number of classes to show; more are sampled uniformly with `seed`.
        items_per_class: Number of items of each class; more are sampled in the same way.
        class_names: Optional list or dict from a label to its name.
        seed: Integer that seeds the sampling.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: Mismatched shapes, NaN or infinity.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_similarity
        >>> labels = np.arange(60) // 2
        >>> figure = plot_similarity(np.eye(30)[labels], labels, max_classes=5)
        >>> figure.axes[0].get_title()
        '5 of 30 classes: 1.00 inside a class, 0.00 between classes'
    """
    check_count("max_classes", max_classes)
    check_count("items_per_class", items_per_class)
    embeddings, labels, codes = as_items(embeddings, labels)
    rng = np.random.default_rng(seed)
    num_classes = codes.max() + 1
    chosen = np.sort(rng.permutation(num_classes)[:max_classes])
    groups = [rng.permutation(np.flatnonzero(codes == code))[:items_per_class] for code in chosen]
    rows, sizes = np.concatenate(groups), np.array([len(group) for group in groups])
    vectors = unit_rows(embeddings[rows].astype("float64"))
    similarity = vectors @ vectors.T

    same = codes[rows, None] == codes[rows]
    others = ~np.eye(len(rows), dtype=bool)
    title = "all" if len(chosen) == num_classes else f"{len(chosen)} of"
    title += f" {num_classes:,} classes: "
    parts = [(similarity[same & others], "inside a class"), (similarity[~same], "between classes")]
    title += ", ".join(f"{part.mean():.2f} {name}" for part, name in parts if part.size)

    figure = new_figure(6.2, 5.4)
    axes = figure.subplots()
    # The scale starts at 0 unless a similarity is below it, so that plots can be compared.
    low = min(0.0, float(similarity.min()))
    cells = axes.imshow(similarity, cmap="cividis", vmin=low, vmax=1.0, interpolation="nearest")
    edges = np.cumsum(sizes)
    if len(chosen) <= _MOST_NAMED:
        names = [shorten(readable(labels[group[0]], class_names)) for group in groups]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(edges - sizes / 2 - 0.5, names, fontsize=7)
            axis.set_tick_params(length=0)
        axes.tick_params(axis="x", rotation=90)
        for edge in edges[:-1] - 0.5:
            axes.axhline(edge, color="white", linewidth=0.5)
            axes.axvline(edge, color="white", linewidth=0.5)
    else:
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel("items, by class", fontsize=9)
    axes.set_title(title, fontsize=10)
    figure.colorbar(cells, ax=axes, shrink=0.8, label="cosine similarity")
    return figure
