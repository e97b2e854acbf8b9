"""How far apart the pairs of one class are, and those of two."""

import numpy as np
from keras import ops
from matplotlib.figure import Figure

from keras_metric import distances
from keras_metric._checks import check_choice, check_count
from keras_metric.viz._style import RIGHT, WRONG, as_labels, as_matrix, tidy

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
    codes = np.unique(as_labels("labels", labels, len(embeddings)), return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    if len(sizes) < 2 or sizes.max() < 2:
        raise ValueError(
            "Distances need two items of one class and two classes. Received: "
            f"{len(embeddings)} items in {len(sizes)} classes."
        )
    rng = np.random.default_rng(seed)
    kinds = []
    for same in (True, False):
        first, second = _pairs(sizes, same, max_pairs, rng)
        a, b = embeddings[order[first]], embeddings[order[second]]
        kinds.append(ops.convert_to_numpy(distances.elementwise(a, b, metric=metric)))
    everything = np.concatenate(kinds)
    low, high = everything.min(), everything.max()
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    shares = [np.histogram(kind, edges)[0] / len(kind) for kind in kinds]
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
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


def _pairs(sizes, same, most, rng):
    """Return two index arrays into the items sorted by class: all pairs of a kind, or a draw."""
    start = np.cumsum(sizes) - sizes
    num_items = sizes.sum()
    partners = sizes - 1 if same else num_items - sizes
    total = int((sizes * partners).sum()) // 2
    if total <= most:
        if not same:
            codes = np.repeat(np.arange(len(sizes)), sizes)
            return np.nonzero(np.triu(codes[:, None] != codes, 1))
        pairs = [first + np.stack(np.triu_indices(size, 1)) for first, size in zip(start, sizes)]
        return np.concatenate(pairs, axis=1)
    weight = sizes * partners
    code = rng.choice(len(sizes), most, p=weight / weight.sum())
    first = rng.integers(sizes[code])
    other = rng.integers(partners[code])
    if same:  # any of the class but the first
        return start[code] + first, start[code] + other + (other >= first)
    return start[code] + first, other + (other >= start[code]) * sizes[code]
