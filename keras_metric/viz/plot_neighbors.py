"""Images of queries and their nearest neighbours."""

import numpy as np
from keras import ops

from keras_metric._validation import as_array, check_choice, check_count
from keras_metric.distances import METRICS, elementwise
from keras_metric.viz._pixels import as_pixels
from keras_metric.viz._plot_inputs import as_labelled_images, as_matrix, check_length, sample
from keras_metric.viz._plot_style import RIGHT, WRONG, new_figure, readable, shorten, show_image

_CELL = 1.05  # inches of one image


def plot_neighbors(
    images,
    labels,
    embeddings=None,
    neighbors=None,
    queries=8,
    k=5,
    distances=None,
    class_names=None,
    seed=0,
    metric=None,
    titles=None,
):
    """Plot queries, each in a row with its nearest neighbours.

    It shows which items are similar for the encoder, and often a wrong label. A neighbour of the
    query's class has a blue frame and a check mark, another one an orange frame and a cross. Pass
    either `embeddings`, to compute the nearest items (a query is not its own neighbour), or
    `neighbors`, the result of an index. Numbers below the images are distances, and the title has
    their metric.

    Args:
        images: Array `(items, height, width)` or `(items, height, width, 1, 3 or 4)`; uint8, or
            floats, which are scaled to the visible range unless they are in 0..1.
        labels: `(items,)`, of any kind; or None without classes, for a plot without marks.
        embeddings: `(items, dim)`, or None if `neighbors` is given.
        neighbors: `(number of queries, at least k)` indices of items, nearest first; `queries`
            must then be a list.
        queries: Number of queries, sampled with `seed`, or a list of indices.
        k: Number of neighbours to show.
        distances: Optional numbers of the shape of `neighbors`, written below the images; computed
            from `embeddings` if these are given.
        class_names: Optional list or dict from a label to its name.
        seed: Integer that seeds the sampling of queries.
        metric: With `embeddings` a metric of `keras_metric.distances`; None for `"euclidean"`.
            With `distances` the name of their metric, or None for no title.
        titles: Optional texts `(items,)` above the images instead of the class names, such as file
            names.

    Returns:
        A `matplotlib.figure.Figure`; save it with `figure.savefig(path)`.

    Raises:
        ValueError: Both or neither of `embeddings` and `neighbors`, or mismatched shapes.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_neighbors
        >>> images = np.random.default_rng(0).random((20, 8, 8))
        >>> figure = plot_neighbors(
        ...     images, np.arange(20) % 4, images.reshape(20, 64), queries=[0, 7], k=3
        ... )
        >>> len(figure.axes)
        8
    """
    check_count("k", k)
    if (embeddings is None) == (neighbors is None):
        raise ValueError(
            "Pass either `embeddings` or `neighbors`. Received: "
            f"{'neither' if embeddings is None else 'both'}"
        )
    images, labels = as_labelled_images(images, labels)
    if titles is not None:
        check_length("titles", titles, len(images), "images")
    if np.ndim(queries) == 0:
        check_count("queries", queries)
        if neighbors is not None:
            raise ValueError(
                "`queries` must list the index of the query of each row of `neighbors`. "
                f"Received: queries={queries}"
            )
        queries = sample(len(images), queries, seed)
    queries = _rows("queries", queries, len(images))
    if queries.ndim != 1 or not len(queries):
        raise ValueError(f"`queries` must be a number or a list. Received: queries={queries!r}")
    if neighbors is None:
        embeddings = as_matrix("embeddings", embeddings)
        check_length("embeddings", embeddings, len(images), "images")
        metric = "euclidean" if metric is None else metric
        check_choice("metric", metric, METRICS)
        neighbors, distances = _nearest(embeddings, queries, k, metric)
    neighbors = _rows("neighbors", neighbors, len(images))
    if neighbors.ndim != 2 or len(neighbors) != len(queries):
        raise ValueError(
            f"`neighbors` must have shape ({len(queries)}, k): one row for each query. "
            f"Received: neighbors.shape={neighbors.shape}"
        )
    if distances is not None:
        distances = as_array("distances", distances)
        if distances.shape != neighbors.shape:
            raise ValueError(
                "`distances` must have the shape of `neighbors`. Received: "
                f"distances.shape={distances.shape}, neighbors.shape={neighbors.shape}"
            )
    neighbors = neighbors[:, :k]
    shown = np.unique([*queries, *neighbors.ravel()])
    images = dict(zip(shown, as_pixels(images, rows=shown)))
    rows, columns = len(queries), 1 + neighbors.shape[1]
    figure = new_figure(_CELL * columns + 0.3, 1.3 * _CELL * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False)
    if distances is not None and metric is not None:
        title = f"below each neighbour: its {metric.replace('_', ' ')} distance"
        figure.suptitle(title, fontsize=8, color="#555555")

    def text(item):
        if titles is not None:
            return str(titles[item])
        return "" if labels is None else readable(labels[item], class_names)

    for row, query in enumerate(queries):
        _show(axes[row, 0], images[query], text(query), None)
        axes[row, 0].set_xlabel("query", fontsize=7, labelpad=2)
        for column, item in enumerate(neighbors[row], start=1):
            mark, colour = "", None
            if labels is not None:
                right = bool(labels[item] == labels[query])
                mark, colour = ("✓ ", RIGHT) if right else ("✗ ", WRONG)
            _show(axes[row, column], images[item], mark + text(item), colour)
            if distances is not None:
                distance = f"{distances[row, column - 1]:.3g}"
                axes[row, column].set_xlabel(distance, fontsize=7, labelpad=2, color="#555555")
    return figure


def _rows(name, value, num_items):
    """Return `value` as an array of indices of items, or raise."""
    rows = as_array(name, value)
    if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= num_items):
        raise ValueError(
            f"`{name}` must be indices of items, 0 to {num_items - 1}. Received: {name}={rows!r}"
        )
    return rows


def _nearest(embeddings, queries, k, metric):
    rows = [elementwise(embeddings[query], embeddings, metric) for query in queries]
    distances = np.stack([ops.convert_to_numpy(row) for row in rows])
    distances[np.arange(len(queries)), queries] = np.inf
    k = min(k, len(embeddings) - 1)
    neighbors = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return neighbors, np.take_along_axis(distances, neighbors, axis=1)


def _show(axes, image, text, colour):
    show_image(axes, image, shorten(text), fontsize=8, pad=3, color=colour or "black")
    if colour:
        from matplotlib.patches import Rectangle

        frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, clip_on=False)
        frame.set(edgecolor=colour, linewidth=2.5)
        axes.add_patch(frame)
