"""How far apart the pairs of one class are, and those of two."""

import numpy as np

from keras_metric import distances
from keras_metric._validation import check_choice, check_count
from keras_metric.evaluation import pair_samples
from keras_metric.viz._pair_draws import draw_pairs
from keras_metric.viz._style import RIGHT, WRONG, as_labels, as_matrix, new_figure, tidy

_BINS = 60


def plot_distances(embeddings, labels, metric="euclidean", max_pairs=100_000, seed=0):
    """Draw the distances of pairs of one class beside those of two classes.

    Shows whether a threshold can tell "same" from "different": the overlap in the title is the
    area that both histograms share, 0% if one distance separates all pairs and 100% if
    distances say nothing. Where the two cross is the threshold with the fewest errors, were
    both kinds of pairs equally frequent.

    Args:
        embeddings: `(items, dim)`.
        labels: `(items,)`, of any kind.
        metric: A metric of `keras_metric.distances`; "euclidean", as in the losses.
        max_pairs: Pairs of each kind; of more, so many are drawn evenly with `seed`.
        seed: Integer for the draw.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if there are not both pairs of one class and pairs of two classes, for an
            unknown metric, or shapes that do not fit.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_distances
        >>> labels = np.arange(40) % 2
        >>> figure = plot_distances(3.0 * labels[:, None] + np.linspace(0, 1, 40)[:, None], labels)
        >>> figure.axes[0].get_title()
        'overlap of the two: 0%'
    """
    check_choice("metric", metric, distances.METRICS)
    check_count("max_pairs", max_pairs)
    embeddings = as_matrix("embeddings", embeddings)
    labels = as_labels("labels", labels, len(embeddings))
    kinds = [
        pair_samples.measure(embeddings, pairs, metric)
        for pairs in draw_pairs(labels, max_pairs, seed)
    ]
    everything = np.concatenate(kinds)
    low, high = everything.min(), everything.max()
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    shares = [np.histogram(kind, edges)[0] / len(kind) for kind in kinds]
    figure = new_figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    looks = (("same class", RIGHT, "/", "-"), ("different classes", WRONG, "\\", "--"))
    for kind, share, (name, colour, hatch, line) in zip(kinds, shares, looks):
        text = f"{name}: {len(kind):,} pairs"
        axes.stairs(share, edges, fill=True, fc=colour, ec=colour, alpha=0.3, hatch=hatch, lw=0)
        axes.stairs(share, edges, color=colour, linewidth=1.6, label=text)
        middle = float(np.median(kind))
        axes.axvline(
            middle, color=colour, linestyle=line, linewidth=1, label=f"median {middle:.3g}"
        )
    axes.set_title(f"overlap of the two: {np.minimum(*shares).sum():.0%}", fontsize=11)
    axes.set_xlabel(f"{metric.replace('_', ' ')} distance", fontsize=9)
    axes.set_ylabel("share of pairs", fontsize=9)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    tidy(axes)
    return figure
