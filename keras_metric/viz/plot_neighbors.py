"""A picture of queries and their nearest neighbours."""

import numpy as np
from keras import ops

from keras_metric import distances as measures
from keras_metric._validation import as_array, check_choice, check_count
from keras_metric.viz._pixels import as_pixels, channels_last
from keras_metric.viz._style import (
    RIGHT,
    WRONG,
    as_labels,
    as_matrix,
    new_figure,
    readable,
    sample,
    shorten,
)

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
    """Draw queries, each with its nearest neighbours beside it.

    The first picture to look at: it shows what the encoder takes for alike, and often a wrong
    label. A neighbour of the query's class has a blue frame and a check mark, another has an
    orange frame and a cross. Either give `embeddings`, and the nearest items are found here (the
    query itself is never its own neighbour), or give `neighbors` that an index has found. Numbers
    below the images are distances, and the title names their metric.

    Args:
        images: Array `(items, height, width)` or `(items, height, width, 1, 3 or 4)`; uint8, or
            floats, which are stretched to the visible range unless they lie in 0..1.
        labels: `(items,)`, of any kind; or None without classes: nothing is right or wrong.
        embeddings: `(items, dim)`, or None if `neighbors` is given.
        neighbors: `(number of queries, at least k)` indices of items, nearest first; `queries`
            must then be a list.
        queries: Number of queries, drawn with `seed`, or a list of indices.
        k: Number of neighbours to show. Five fit on a page.
        distances: Optional numbers of the shape of `neighbors`, written below the images; with
            `embeddings` they are computed.
        class_names: Optional list or dict from a label to its name.
        seed: Integer for the choice of queries.
        metric: With `embeddings` a metric of `keras_metric.distances`; None for `"euclidean"`.
            With `distances` the name of their metric, or None if it is not to be named.
        titles: Optional texts `(items,)` above the images instead of the names of classes, such as
            names of files.

    Returns:
        A `matplotlib.figure.Figure`; save it with `figure.savefig(path)`.

    Raises:
        ValueError: if both or neither of `embeddings` and `neighbors` are given, or shapes
            do not fit.

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
            f"embeddings={'None' if embeddings is None else 'an array'}, "
            f"neighbors={'None' if neighbors is None else 'an array'}"
        )
    images = channels_last(images)
    if labels is not None:
        labels = as_labels("labels", labels, len(images))
    if titles is not None and len(titles) != len(images):
        raise ValueError(
            f"`titles` must hold one text for each of {len(images)} images. Received: {len(titles)}"
        )
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
        if len(embeddings) != len(images):
            raise ValueError(
                f"`embeddings` must have one row for each of {len(images)} images. Received: "
                f"embeddings.shape={embeddings.shape}"
            )
        metric = "euclidean" if metric is None else metric
        check_choice("metric", metric, measures.METRICS)
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
    figure = new_figure(
        figsize=(_CELL * columns + 0.3, 1.3 * _CELL * rows + 0.3), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    if distances is not None and metric is not None:
        title = f"below each neighbour: its {metric.replace('_', ' ')} distance"
        figure.suptitle(title, fontsize=8, color="#555555")

    def text(item):
        if titles is not None:
            return str(titles[item])
        return "" if labels is None else readable(labels[item], class_names)

    for row, query in enumerate(queries):
        _draw(axes[row, 0], images[query], text(query), None)
        axes[row, 0].set_xlabel("query", fontsize=7, labelpad=2)
        for column, item in enumerate(neighbors[row], start=1):
            mark, colour = "", None
            if labels is not None:
                right = bool(labels[item] == labels[query])
                mark, colour = ("✓ ", RIGHT) if right else ("✗ ", WRONG)
            _draw(axes[row, column], images[item], mark + text(item), colour)
            if distances is not None:
                distance = f"{distances[row, column - 1]:.3g}"
                axes[row, column].set_xlabel(distance, fontsize=7, labelpad=2, color="#555555")
    return figure


def _rows(name, value, num_items):
    """`value` as an array of indices of items."""
    rows = as_array(name, value)
    if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= num_items):
        raise ValueError(
            f"`{name}` must be indices of items, 0 to {num_items - 1}. Received: {name}={rows!r}"
        )
    return rows


def _nearest(embeddings, queries, k, metric):
    rows = [measures.elementwise(embeddings[query], embeddings, metric) for query in queries]
    distances = np.stack([ops.convert_to_numpy(row) for row in rows])
    distances[np.arange(len(queries)), queries] = np.inf
    k = min(k, len(embeddings) - 1)
    neighbors = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return neighbors, np.take_along_axis(distances, neighbors, axis=1)


def _draw(axes, image, text, colour):
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(shorten(text), fontsize=8, pad=3, color=colour or "black")
    if colour:
        from matplotlib.patches import Rectangle

        frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, clip_on=False)
        frame.set(edgecolor=colour, linewidth=2.5)
        axes.add_patch(frame)
