"""Histograms of the distances of same and different pairs, epoch by epoch."""

import numpy as np

from keras_metric import distances
from keras_metric._validation import check_choice, check_count
from keras_metric.evaluation import pair_samples
from keras_metric.viz._plot_inputs import as_labels, as_matrix
from keras_metric.viz._plot_style import RIGHT, WRONG, add_labels, new_figure

_BINS = 60


def plot_distance_history(
    embeddings, labels, metric="euclidean", max_rows=12, max_pairs=20_000, seed=0
):
    """Plot the histograms of `plot_distances` for several epochs, one row for each.

    Training should separate the two histograms. If both shrink to one peak at zero, the encoder
    collapsed; if the distances of same pairs increase again on held-out data, it overfits.

    Args:
        embeddings: Dict from an epoch (any printable name), in order, to embeddings `(items, dim)`
            of the same items.
        labels: `(items,)`, of any kind.
        metric: A metric of `keras_metric.distances`; "euclidean", as in the losses.
        max_rows: Number of rows: of more epochs the first, the last, and others at equal steps.
        max_pairs: Pairs of each kind, the same in every row; more are sampled with `seed`.
        seed: Integer that seeds the sampling.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: No epochs, embeddings of different items, no pairs of one class, or no pairs of
            two classes.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_distance_history
        >>> labels, x = np.arange(40) % 2, np.random.default_rng(0).normal(size=(40, 2))
        >>> history = {epoch: x + epoch * labels[:, None] for epoch in range(5)}
        >>> figure = plot_distance_history(history, labels)
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['0', '1', '2', '3', '4']
    """
    check_choice("metric", metric, distances.METRICS)
    check_count("max_rows", max_rows)
    check_count("max_pairs", max_pairs)
    if not isinstance(embeddings, dict) or not embeddings:
        raise ValueError(
            "`embeddings` must be a dict from epochs to arrays, with at least one. "
            f"Received: embeddings of type {type(embeddings).__name__}"
        )
    epochs = list(embeddings)
    chosen = np.linspace(0, len(epochs) - 1, min(max_rows, len(epochs))).round().astype(int)
    epochs = [epochs[number] for number in chosen]
    arrays = [as_matrix(f"embeddings[{epoch!r}]", embeddings[epoch]) for epoch in epochs]
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(
            "Every epoch must hold the same items. Received: "
            f"{ {epoch: array.shape for epoch, array in zip(epochs, arrays)} }"
        )
    labels = as_labels("labels", labels, len(arrays[0]))
    pairs = pair_samples.pairs_of_kinds(labels, max_pairs, seed)
    rows = [[pair_samples.measure(array, kind, metric) for kind in pairs] for array in arrays]
    low = min(float(kind.min()) for row in rows for kind in row)
    high = max(float(kind.max()) for row in rows for kind in row)
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    heights = np.array([[np.histogram(kind, edges)[0] / len(kind) for kind in row] for row in rows])
    # A histogram may reach into the row above, but not through it.
    heights *= 1.6 / max(heights.max(), 1e-9)
    figure = new_figure(6.4, 1.4 + 0.42 * len(rows))
    axes = figure.subplots()
    looks = (("same class", RIGHT, "-"), ("different classes", WRONG, "--"))
    for row, both in enumerate(heights):
        base = len(rows) - 1 - row
        for height, (name, colour, line) in zip(both, looks):
            tops = base + height
            axes.stairs(
                *(tops, edges), baseline=base, fill=True, fc=colour, alpha=0.3, lw=0, zorder=row
            )
            axes.stairs(
                *(tops, edges),
                **{"baseline": None, "color": colour, "linestyle": line, "linewidth": 1.2},
                **{"zorder": row + 0.5, "label": name if row == 0 else None},
            )
    axes.set_yticks(range(len(rows))[::-1], [str(epoch) for epoch in epochs])
    add_labels(axes, f"{metric.replace('_', ' ')} distance", "epoch", 2)
    return figure
