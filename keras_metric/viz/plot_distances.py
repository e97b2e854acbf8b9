"""Histograms of the distances of same and different pairs."""

import numpy as np

from keras_metric import distances
from keras_metric._validation import check_choice, check_count
from keras_metric.evaluation import pair_samples
from keras_metric.viz._plot_inputs import as_labels, as_matrix
from keras_metric.viz._plot_style import RIGHT, WRONG, add_labels, new_figure

_BINS = 60


def plot_distances(embeddings, labels, metric="euclidean", max_pairs=100_000, seed=0):
    """Plot the distances of pairs of one class and of pairs of two classes.

    It shows whether a threshold separates "same" from "different": the overlap in the title is the
    area that both histograms have in common, 0% if one distance separates all pairs and 100% if the
    distributions are equal. The histograms cross at the threshold with the fewest errors if both
    kinds of pairs are equally frequent.

    Args:
        embeddings: `(items, dim)`.
        labels: `(items,)`, of any kind.
        metric: A metric of `keras_metric.distances`; "euclidean", as in the losses.
        max_pairs: Pairs of each kind; more are sampled uniformly with `seed`.
        seed: Integer that seeds the sampling.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: No pairs of one class or no pairs of two classes, an unknown metric, or
            mismatched shapes.

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
        for pairs in pair_samples.pairs_of_kinds(labels, max_pairs, seed)
    ]
    everything = np.concatenate(kinds)
    low, high = everything.min(), everything.max()
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    fractions = [np.histogram(kind, edges)[0] / len(kind) for kind in kinds]
    figure = new_figure(6.4, 3.8)
    axes = figure.subplots()
    looks = (("same class", RIGHT, "/", "-"), ("different classes", WRONG, "\\", "--"))
    for kind, fraction, (name, colour, hatch, line) in zip(kinds, fractions, looks):
        text = f"{name}: {len(kind):,} pairs"
        axes.stairs(fraction, edges, fill=True, fc=colour, ec=colour, alpha=0.3, hatch=hatch, lw=0)
        axes.stairs(fraction, edges, color=colour, linewidth=1.6, label=text)
        median = float(np.median(kind))
        text = f"median {median:.3g}"
        axes.axvline(median, color=colour, linestyle=line, linewidth=1, label=text)
    axes.set_title(f"overlap of the two: {np.minimum(*fractions).sum():.0%}", fontsize=11)
    axes.set_ylim(bottom=0)
    add_labels(axes, f"{metric.replace('_', ' ')} distance", "fraction of pairs", 2)
    return figure
