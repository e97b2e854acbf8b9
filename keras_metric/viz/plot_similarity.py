"""How alike items are, each with each, in the order of their classes."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.viz._nearness import as_items
from keras_metric.viz._style import new_figure, readable, shorten

_MOST_NAMED = 20  # classes whose names find room along an axis


def plot_similarity(
    embeddings, labels, max_classes=30, items_per_class=10, class_names=None, seed=0
):
    """Draw the cosine similarity of each item with each, sorted by class.

    A good encoder shows bright squares along the diagonal on a dark ground. A bright square beside
    it is a pair of classes that are taken for each other, a dark line through a bright square an
    item that does not belong.

    Args:
        embeddings: `(items, dim)`, normalised or not.
        labels: `(items,)`, of any kind.
        max_classes: Classes to show; of more, so many are drawn evenly with `seed`.
        items_per_class: Items of each class to show at most, drawn likewise.
        class_names: Optional list or dict from a label to its name.
        seed: Integer for the draws.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity.

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
    vectors = embeddings[rows].astype("float64")
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarity = vectors @ vectors.T

    same = codes[rows, None] == codes[rows]
    others = ~np.eye(len(rows), dtype=bool)
    title = "all" if len(chosen) == num_classes else f"{len(chosen)} of"
    title += f" {num_classes:,} classes: "
    parts = [(similarity[same & others], "inside a class"), (similarity[~same], "between classes")]
    title += ", ".join(f"{part.mean():.2f} {name}" for part, name in parts if part.size)

    figure = new_figure(figsize=(6.2, 5.4), layout="constrained")
    axes = figure.subplots()
    # The scale is fixed at its lower end too, unless something lies below: pictures compare.
    low = min(0.0, float(similarity.min()))
    picture = axes.imshow(similarity, cmap="cividis", vmin=low, vmax=1.0, interpolation="nearest")
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
    figure.colorbar(picture, ax=axes, shrink=0.8, label="cosine similarity")
    return figure
