"""Bootstrap intervals: how far an average would move with other queries."""

import numpy as np

_RESAMPLES = 1000


def intervals(columns, confidence, seed):
    """Return `{name_low, name_high}` of the means of the arrays `{name: (units,)}`.

    The percentile interval: the units are drawn anew with replacement, 1,000 times; the shares
    (1 - confidence) / 2 of the smallest and the largest means are cut off.
    """
    names, table = list(columns), np.stack(list(columns.values()), axis=1)
    if len(table) == 0:
        return {f"{name}_{end}": np.nan for name in names for end in ("low", "high")}
    rng = np.random.default_rng(seed)
    means = np.empty((_RESAMPLES, len(names)))
    for row in means:
        drawn = np.bincount(rng.integers(len(table), size=len(table)), minlength=len(table))
        row[:] = drawn @ table / len(table)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(means, (tail, 1.0 - tail), axis=0).tolist()
    result = {}
    for name, at_least, at_most in zip(names, low, high, strict=True):
        result |= {f"{name}_low": at_least, f"{name}_high": at_most}
    return result
