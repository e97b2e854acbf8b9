"""Both kinds of errors of every threshold, on axes where curves are nearly straight."""

import numpy as np

from keras_metric.viz._curves import LINES, as_curves
from keras_metric.viz._style import PALETTE, new_figure, shorten, tidy

_TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)


def plot_det(scores, same, larger_is_closer=False):
    """Draw the miss rate over the false accept rate of every threshold (detection error tradeoff).

    Reach for it instead of `plot_roc` where curves are close together and near a corner: both axes
    are spread by the inverse of the normal distribution, which makes straight lines of normally
    distributed scores. Lower is better; the equal error rate is where a curve meets the dotted
    diagonal.

    Args:
        scores: Array `(pairs,)` of distances, or of similarities; or a dict from a name to such
            an array, for several curves.
        same: Array `(pairs,)` of 1 or True for a pair of one class, 0 or False for one of two.
        larger_is_closer: True if the scores are similarities. Default False.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: pairs of one kind alone, no scores, NaN, or arrays of unequal length.

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
    # Late: it takes half a second, and no other part wants it.
    from scipy.stats import norm

    curves = as_curves(scores, same, larger_is_closer)
    first = next(iter(curves.values()))
    # No rate below half of what one pair makes can be told from none.
    floors = 0.5 / first.num_different, 0.5 / first.num_same
    figure = new_figure(figsize=(5.2, 5.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        text = f"EER {curve.equal_error_rate:.3f}"
        axes.plot(
            *(
                norm.ppf(np.clip(rate, floor, 1.0 - floor))
                for rate, floor in zip((curve.far, 1.0 - curve.tar), floors)
            ),
            color=PALETTE[number % len(PALETTE)],
            linestyle=LINES[number % len(LINES)],
            linewidth=1.6,
            label=f"{shorten(str(name), 28)}: {text}" if name else text,
        )
    low, high = norm.ppf(min(floors)), norm.ppf(0.99)
    axes.plot([low, high], [low, high], color="#808080", linestyle=":", linewidth=1)
    ticks = [rate for rate in _TICKS if rate >= min(floors)]
    texts = [f"{rate:.0%}" if rate >= 0.01 else f"{rate:.3%}".rstrip("0%") + "%" for rate in ticks]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(norm.ppf(ticks), texts)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel("false accept rate: different pairs taken for the same", fontsize=9)
    axes.set_ylabel("miss rate: same pairs not found", fontsize=9)
    axes.grid(color="#E5E5E5", linewidth=0.6)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    tidy(axes)
    return figure
