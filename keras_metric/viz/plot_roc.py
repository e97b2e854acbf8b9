"""How many same pairs a threshold accepts for each rate of false accepts."""

import numpy as np

from keras_metric._validation import check_flag
from keras_metric.viz._curves import LINES, as_curves
from keras_metric.viz._style import PALETTE, new_figure, shorten, tidy


def plot_roc(scores, same, larger_is_closer=False, log=True):
    """Draw the true accept rate over the false accept rate of every threshold.

    Reach for it to compare encoders on the same pairs, above all with raw inputs, and to see what
    is had at the false accept rate that an application allows. The legend has the area under each
    curve and its equal error rate, where the curve meets the dotted line.

    Args:
        scores: Array `(pairs,)` of distances, or of similarities; or a dict from a name to such
            an array, for several curves.
        same: Array `(pairs,)` of 1 or True for a pair of one class, 0 or False for one of two.
        larger_is_closer: True if the scores are similarities. Default False.
        log: True (default) draws the false accept rate on a logarithmic axis, from half of what
            one different pair makes: small rates are where systems work.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: pairs of one kind alone, no scores, NaN, or arrays of unequal length.

    Example:
        >>> import numpy as np
        >>> from keras_metric.viz import plot_roc
        >>> same = np.arange(200) % 2
        >>> noise = np.random.default_rng(0).normal(size=200)
        >>> figure = plot_roc({"trained": noise - 2 * same, "raw": noise - same}, same)
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['trained: area 0.910, EER 0.180', 'raw: area 0.724, EER 0.350']
    """
    check_flag("log", log)
    curves = as_curves(scores, same, larger_is_closer)
    first = next(iter(curves.values()))
    figure = new_figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    floor = 0.5 / first.num_different if log else 0.0
    for number, (name, curve) in enumerate(curves.items()):
        text = f"area {curve.area:.3f}, EER {curve.equal_error_rate:.3f}"
        axes.step(
            curve.far.clip(min=floor),
            curve.tar,
            where="post",
            color=PALETTE[number % len(PALETTE)],
            linestyle=LINES[number % len(LINES)],
            linewidth=1.6,
            label=f"{shorten(str(name), 28)}: {text}" if name else text,
        )
    rates = np.geomspace(floor, 1.0, 200) if log else np.array([0.0, 1.0])
    axes.plot(rates, 1.0 - rates, color="#808080", linestyle=":", linewidth=1)
    if log:
        axes.set_xscale("log")
    axes.set_xlim(floor, 1.0)
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("false accept rate: different pairs taken for the same", fontsize=9)
    axes.set_ylabel("true accept rate: same pairs found", fontsize=9)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    tidy(axes)
    return figure
