"""Scatter plot of embeddings, projected to two dimensions."""

import numpy as np
from threadpoolctl import threadpool_limits

from keras_metric._validation import check_choice, check_count
from keras_metric.viz import _plot_style as style
from keras_metric.viz._pixels import as_pixels, channels_last, resize_to_fit
from keras_metric.viz._plot_inputs import as_labels, as_matrix, check_length, sample
from keras_metric.viz._plot_style import add_labels, new_figure, readable, shorten

_MOST_NAMED = len(style.PALETTE)  # classes with a colour
_THUMBNAIL = 22  # points of the longer side on the page


def plot_embeddings(
    embeddings, labels, images=None, method="pca", max_points=3000, class_names=None, seed=0
):
    """Plot embeddings as points in a plane, coloured by class.

    PCA shows the two directions of the largest variance, with their fractions of it on the axes.
    t-SNE and UMAP show which items are neighbours; their distances between groups have no meaning.
    A dict of embeddings gives panels side by side, such as before and after training. The ten
    largest classes have a colour and a symbol each; all others are grey.

    Args:
        embeddings: `(items, dim)`, or a dict from panel titles to such arrays of the same items.
        labels: `(items,)`, of any kind.
        images: Optional images of the items (see `plot_neighbors`): thumbnails replace the points
            that are not covered by another thumbnail.
        method: `"pca"`, fast and deterministic; `"tsne"`, which takes about a minute for the 3,000
            points of the default; or `"umap"`, if `umap-learn` is installed.
        max_points: Number of items to plot; more are sampled uniformly with `seed`.
        class_names: Optional list or dict from a label to its name.
        seed: Integer that seeds the sampling, t-SNE and UMAP.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: An unknown method or mismatched shapes.
        ImportError: `method="umap"` without `umap-learn`.

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
        check_length("images", channels_last(images), len(labels), "embeddings")
        images = as_pixels(images, rows=kept)
    figure = new_figure(5.2 * len(panels) + 0.6, 5.2)
    scatters = []
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, panel) in zip(all_axes, panels.items()):
        points, names = _project(panel[kept], method, seed)
        _scatter(axes, points, labels[kept], class_names)
        scatters.append((axes, points))
        axes.set_title(shorten(title, 60) if title else "", fontsize=11)
        add_labels(axes, *names)
    handles, texts = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, texts, loc="outside right upper", fontsize=8, frameon=False)
    for handle in legend.legend_handles:
        handle.set(sizes=[30], alpha=1)
    if images is not None:
        figure.draw_without_rendering()  # computes the layout, and so the size of the axes
        for axes, points in scatters:
            _add_thumbnails(axes, points, images)
    return figure


def _project(embeddings, method, seed):
    """Return the points `(items, 2)` and the names of the two axes."""
    # Imported here because it takes a second.
    from sklearn.decomposition import PCA

    points, ratios = np.zeros((len(embeddings), 2)), np.zeros(2)
    size = min(2, *embeddings.shape)
    centred = embeddings - embeddings.mean(axis=0)
    if centred.any():
        pca = PCA(size, random_state=seed)
        # The squares of tiny vectors are 0, and their ratios undefined.
        with np.errstate(invalid="ignore"):
            points[:, :size] = pca.fit_transform(centred)
        ratios[:size] = np.nan_to_num(pca.explained_variance_ratio_)
    if method == "pca":
        names = [f"PCA {axis} ({ratio:.0%} of variance)" for axis, ratio in enumerate(ratios, 1)]
        return points, names
    if method == "umap":
        return _umap(embeddings, points, seed), ["UMAP 1", "UMAP 2"]
    if len(embeddings) > 3:
        from sklearn.manifold import TSNE

        # scikit-learn's own initialization fails if all embeddings are equal.
        start = 1e-4 * points / (points[:, 0].std() or 1.0)
        perplexity = min(30.0, (len(embeddings) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init=start.astype("float32"), random_state=seed)
        # Its threads synchronize a thousand times: several are four times slower on a busy machine.
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
    # With a seed UMAP uses one thread, and warns unless n_jobs=1.
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
        axes.scatter(
            *points[others].T, s=0.5 * size, c=style.GREY, marker="o", label=text, linewidths=0
        )
    for number, code in enumerate(named):
        own = points[codes == code]
        axes.scatter(
            *own.T,
            s=size,
            c=style.PALETTE[number],
            marker=style.SYMBOLS[number],
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
    for pixel, point, image in zip(pixels, points, images):
        if (np.abs(shown - pixel).max(axis=1) < reach).any():
            continue
        shown = np.vstack([shown, pixel])
        image = resize_to_fit(image[None], 64)[0]
        thumbnail = OffsetImage(
            image, zoom=_THUMBNAIL / max(image.shape[:2]), cmap="gray", norm=Normalize(0, 255)
        )
        axes.add_artist(AnnotationBbox(thumbnail, point, frameon=False, pad=0))
