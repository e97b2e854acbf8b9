"""ROC curves: true accept rate over false accept rate."""

import numpy as np

from keras_metric._validation import check_flag
from keras_metric.viz._plot_inputs import as_curves
from keras_metric.viz._plot_style import add_labels, curve_style, new_figure


def plot_roc(scores, same, larger_is_closer=False, log=True):
    """Plot the true accept rate over the false accept rate of every threshold.

    Use it to compare encoders, and raw inputs, on the same pairs, and to read the true accept rate
    at the false accept rate that an application allows. The legend has the area under each curve
    and its equal error rate, where the curve meets the dotted line.

    Args:
        scores: Array `(pairs,)` of distances, or of similarities; or a dict from a name to such
            an array, for several curves.
        same: Array `(pairs,)` of 1 or True for a pair of one class, 0 or False for one of two.
        larger_is_closer: True if the scores are similarities. Default False.
        log: True (default) for a logarithmic axis of the false accept rate, from 0.5 / number of
            different pairs: most systems operate at small rates.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: Pairs of one kind only, no scores, NaN, or arrays of unequal length.

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
    figure = new_figure(5.2, 4.6)
    axes = figure.subplots()
    lowest = 0.5 / first.num_different if log else 0.0
    for number, (name, curve) in enumerate(curves.items()):
        text = f"area {curve.area:.3f}, EER {curve.equal_error_rate:.3f}"
        style = curve_style(number, name, text)
        axes.step(curve.far.clip(min=lowest), curve.tar, where="post", **style)
    rates = np.geomspace(lowest, 1.0, 200) if log else np.array([0.0, 1.0])
    axes.plot(rates, 1.0 - rates, color="#808080", linestyle=":", linewidth=1)
    if log:
        axes.set_xscale("log")
    axes.set(xlim=(lowest, 1.0), ylim=(0.0, 1.02))
    add_labels(axes, "false accept rate (FAR)", "true accept rate (TAR)", 1)
    return figure
