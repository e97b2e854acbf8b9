"""Detection error tradeoff: both error rates of every threshold on normal-deviate axes."""

import numpy as np

from keras_metric.viz._plot_inputs import as_curves
from keras_metric.viz._plot_style import add_labels, curve_style, new_figure

_TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)


def plot_det(scores, same, larger_is_closer=False):
    """Plot the false reject rate over the false accept rate of every threshold (DET curve).

    Use it instead of `plot_roc` if curves are close together and near a corner: both axes are
    scaled by the inverse of the normal distribution, so that normally distributed scores give
    straight lines. Lower is better; a curve meets the dotted diagonal at its equal error rate.

    Args:
        scores: Array `(pairs,)` of distances, or of similarities; or a dict from a name to such
            an array, for several curves.
        same: Array `(pairs,)` of 1 or True for a pair of one class, 0 or False for one of two.
        larger_is_closer: True if the scores are similarities. Default False.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: Pairs of one kind only, no scores, NaN, or arrays of unequal length.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_det
        >>> same = np.arange(200) % 2
        >>> noise = np.random.default_rng(0).normal(size=200)
        >>> figure = plot_det({"trained": noise - 2 * same, "raw": noise - same}, same)
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['trained: EER 0.180', 'raw: EER 0.350']

    Reference:
        Martin et al. (1997), The DET curve in assessment of detection task performance,
        https://www.isca-archive.org/eurospeech_1997/martin97b_eurospeech.html
    """
    # Imported here because it takes half a second.
    from scipy.stats import norm

    curves = as_curves(scores, same, larger_is_closer)
    first = next(iter(curves.values()))
    # Rates below 0.5 / num_pairs cannot be resolved.
    lowest = 0.5 / first.num_different, 0.5 / first.num_same
    figure = new_figure(5.2, 5.0)
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        rates = zip((curve.far, 1.0 - curve.tar), lowest)
        points = (norm.ppf(np.clip(rate, low, 1.0 - low)) for rate, low in rates)
        axes.plot(*points, **curve_style(number, name, f"EER {curve.equal_error_rate:.3f}"))
    low, high = norm.ppf(min(lowest)), norm.ppf(0.99)
    axes.plot([low, high], [low, high], color="#808080", linestyle=":", linewidth=1)
    ticks = [rate for rate in _TICKS if rate >= min(lowest)]
    texts = [f"{rate:.0%}" if rate >= 0.01 else f"{rate:.3%}".rstrip("0%") + "%" for rate in ticks]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(norm.ppf(ticks), texts)
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.grid(color="#E5E5E5", linewidth=0.6)
    add_labels(axes, "false accept rate (FAR)", "false reject rate (FRR)", 1)
    return figure
