"""A map of an embedding space in two dimensions."""

import numpy as np
from threadpoolctl import threadpool_limits

from keras_metric._validation import check_choice, check_count
from keras_metric.viz._pixels import as_pixels, channels_last, shrink
from keras_metric.viz._style import (
    GREY,
    PALETTE,
    SYMBOLS,
    as_labels,
    as_matrix,
    new_figure,
    readable,
    sample,
    shorten,
    tidy,
)

_MOST_NAMED = len(PALETTE)  # classes with a colour of their own
_THUMBNAIL = 22  # points of the longer side on the page


def plot_embeddings(
    embeddings,
    labels,
    images=None,
    method="pca",
    max_points=3000,
    class_names=None,
    seed=0,
):
    """Draw embeddings as points in a plane, coloured by class.

    A map, no proof: PCA shows the two widest directions (the axes say what share of the variance
    they hold), t-SNE and UMAP show who is whose neighbour and no distances between groups. A dict
    of embeddings gives panels side by side, for before and after. Up to ten classes have a
    colour and a symbol each; of more classes the ten largest have, and all others are grey,
    so that 2,000 classes stay readable.

    Args:
        embeddings: `(items, dim)`, or a dict from panel titles to such arrays of the same items.
        labels: `(items,)`, of any kind.
        images: Optional images of the items (see `plot_neighbors`): where there is room, a
            thumbnail is drawn instead of a point, without covering another thumbnail.
        method: `"pca"`, fast and the same on every run; `"tsne"`, which takes about a minute for
            the 3,000 points of the default; or `"umap"`, where `umap-learn` is installed.
        max_points: Items to draw; of more, so many are drawn at random with `seed`.
        class_names: Optional list or dict from a label to its name.
        seed: Integer for the choice of points, for t-SNE and for UMAP.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: for an unknown method or shapes that do not fit.
        ImportError: for `"umap"` where it is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_embeddings
        >>> labels = np.arange(60) % 3
        >>> before = np.random.default_rng(0).normal(size=(60, 8))
        >>> after = before + 4 * np.eye(8)[labels]
        >>> figure = plot_embeddings({"untrained": before, "trained": after}, labels)
        >>> [axes.get_title() for axes in figure.axes]
        ['untrained', 'trained']
    """
    check_choice("method", method, ("pca", "tsne", "umap"))
    check_count("max_points", max_points)
    panels = embeddings if isinstance(embeddings, dict) else {"": embeddings}
    panels = {title: as_matrix("embeddings", panel) for title, panel in panels.items()}
    num_items = {len(panel) for panel in panels.values()}
    if len(num_items) != 1:
        raise ValueError(
            "Every panel of `embeddings` must hold the same items. Received: "
            f"{ {title: panel.shape for title, panel in panels.items()} }"
        )
    labels = as_labels("labels", labels, num_items.pop())
    kept = sample(len(labels), max_points, seed)
    if images is not None:
        images = channels_last(images)
        if len(images) != len(labels):
            raise ValueError(
                f"`images` must hold one image for each of {len(labels)} embeddings. Received: "
                f"{len(images)}"
            )
        images = as_pixels(images, rows=kept)
    figure = new_figure(figsize=(5.2 * len(panels) + 0.6, 5.2), layout="constrained")
    drawn = []
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, panel) in zip(all_axes, panels.items()):
        points, names = _project(panel[kept], method, seed)
        _scatter(axes, points, labels[kept], class_names)
        drawn.append((axes, points))
        axes.set_title(shorten(title, 60) if title else "", fontsize=11)
        axes.set_xlabel(names[0], fontsize=8)
        axes.set_ylabel(names[1], fontsize=8)
        tidy(axes)
    handles, texts = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, texts, loc="outside right upper", fontsize=8, frameon=False)
    for handle in legend.legend_handles:
        handle.set(sizes=[30], alpha=1)
    if images is not None:
        figure.draw_without_rendering()  # settles the layout, and so the room on the page
        for axes, points in drawn:
            _add_thumbnails(axes, points, images)
    return figure


def _project(embeddings, method, seed):
    """Return the points `(items, 2)` and the names of the two axes."""
    # Late, as with matplotlib: scikit-learn alone takes a second.
    from sklearn.decomposition import PCA

    points, shares = np.zeros((len(embeddings), 2)), np.zeros(2)
    size = min(2, *embeddings.shape)
    centred = embeddings - embeddings.mean(axis=0)
    if centred.any():
        pca = PCA(size, random_state=seed)
        # The squares of tiny vectors are 0: they have no shares.
        with np.errstate(invalid="ignore"):
            points[:, :size] = pca.fit_transform(centred)
        shares[:size] = np.nan_to_num(pca.explained_variance_ratio_)
    if method == "pca":
        names = [f"PCA {axis} ({share:.0%} of variance)" for axis, share in enumerate(shares, 1)]
        return points, names
    if method == "umap":
        return _umap(embeddings, points, seed), ["UMAP 1", "UMAP 2"]
    if len(embeddings) > 3:
        from sklearn.manifold import TSNE

        # scikit-learn's own start fails where all embeddings are equal.
        start = 1e-4 * points / (points[:, 0].std() or 1.0)
        perplexity = min(30.0, (len(embeddings) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init=start.astype("float32"), random_state=seed)
        # Its threads wait for each other a thousand times: on a busy machine four times slower.
        with threadpool_limits(1, "openmp"):
            points = tsne.fit_transform(embeddings)
    return points, ["t-SNE 1", "t-SNE 2"]


def _umap(embeddings, start, seed):
    try:
        import umap
    except ImportError as error:
        raise ImportError(
            'method="umap" needs the package umap-learn: pip install "keras_metric[umap]", or '
            'pass method="tsne".'
        ) from error
    if len(embeddings) < 4:
        return start
    neighbors = min(15, len(embeddings) - 1)
    # A seed leaves it one thread; saying so spares a warning.
    reducer = umap.UMAP(
        n_neighbors=neighbors, init=start.astype("float32"), random_state=seed, n_jobs=1
    )
    return reducer.fit_transform(embeddings)


def _scatter(axes, points, labels, class_names):
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    named = np.sort(np.argsort(-counts, kind="stable")[:_MOST_NAMED])
    size = float(np.clip(24_000 / len(points), 14, 36))
    others = ~np.isin(codes, named)
    if others.any():
        text = f"{len(classes) - len(named):,} other classes"
        axes.scatter(*points[others].T, s=0.5 * size, c=GREY, marker="o", label=text, linewidths=0)
    for place, code in enumerate(named):
        own = points[codes == code]
        axes.scatter(
            *own.T,
            s=size,
            c=PALETTE[place],
            marker=SYMBOLS[place],
            label=shorten(readable(classes[code], class_names), 28),
            alpha=0.8,
            linewidths=0,
        )


def _add_thumbnails(axes, points, images):
    from matplotlib.colors import Normalize
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    pixels = axes.transData.transform(points)
    scale = axes.figure.dpi / 72
    reach = 1.1 * _THUMBNAIL * scale
    shown = np.empty((0, 2))
    factor = min(1.0, 64 / max(images.shape[1:3]))
    height, width = (max(1, round(factor * side)) for side in images.shape[1:3])
    for pixel, point, image in zip(pixels, points, images):
        if (np.abs(shown - pixel).max(axis=1) < reach).any():
            continue
        shown = np.vstack([shown, pixel])
        picture = OffsetImage(
            shrink(image[None], height, width)[0],
            zoom=_THUMBNAIL / max(height, width),
            cmap="gray",
            norm=Normalize(0, 255),
        )
        axes.add_artist(AnnotationBbox(picture, point, frameon=False, pad=0))
