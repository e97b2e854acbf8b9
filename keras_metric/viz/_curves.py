"""Error curves of one or several lists of scores."""

from keras_metric.evaluation.roc import roc_curve

LINES = ("-", "--", "-.", ":")


def as_curves(scores, same, larger_is_closer):
    """Return a dict from a name, empty for a single array, to its `roc_curve`."""
    named = scores if isinstance(scores, dict) else {"": scores}
    if not named:
        raise ValueError("`scores` must hold at least one array. Received: scores={}")
    curves = {name: roc_curve(part, same, larger_is_closer) for name, part in named.items()}
    first = next(iter(curves.values()))
    if not (first.num_same and first.num_different):
        raise ValueError(
            f"A curve needs same and different pairs. Received: {first.num_same} same and "
            f"{first.num_different} different."
        )
    return curves
