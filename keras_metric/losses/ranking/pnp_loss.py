"""PNP loss."""

from typing import NamedTuple

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_choice, check_number
from keras_metric.losses.pair.pair_loss import PairLoss
from keras_metric.losses.ranking.list_rows import list_rows, smooth_steps

VARIANTS = ("Ds", "Dq", "Iu", "Ib", "O")


class Penalty(NamedTuple):
    """Penalty f(R) of R negatives before a positive, and its derivative."""

    value: object
    derivative: object


def penalty(variant, saturation, alpha):
    """The `Penalty` of a variant of the paper."""
    if variant == "Ds":
        return Penalty(ops.log1p, lambda r: 1 / (1 + r))
    if variant == "Dq":
        return Penalty(lambda r: 1 - (1 + r) ** -alpha, lambda r: alpha * (1 + r) ** (-alpha - 1))
    if variant == "Iu":
        return Penalty(lambda r: (1 + r) * ops.log1p(r), lambda r: 1 + ops.log1p(r))
    if variant == "Ib":
        return Penalty(
            lambda r: (saturation * r - ops.log1p(saturation * r)) / saturation**2,
            lambda r: r / (1 + saturation * r),
        )
    return Penalty(lambda r: r, ops.ones_like)


def pnp_terms(distance, pairs, cost, anneal):
    """Mean `Penalty` over the positives of some anchors, and its derivatives."""
    step_at = smooth_steps(distance, pairs.negative, anneal)
    number = ops.cast(ops.maximum(pairs.num_positives, 1), distance.dtype)

    def body(rank, column, exists, total, gradient):
        step = step_at(column)
        before = ops.sum(step.before, -1)
        weight = ops.where(exists, 1 / number, 0)
        gradient = step.added(gradient, (weight * cost.derivative(before))[:, None])
        return total + weight * cost.value(before), gradient

    zero = ops.zeros_like(distance[:, 0])
    return pairs.for_each_positive(body, (zero, ops.zeros_like(distance)))


@export
class PNPLoss(PairLoss):
    """PNP: penalizes only the negatives ranked before each positive in an anchor's list.

    Use it instead of `SmoothAPLoss` where the positives of a list should not compete with each
    other: only negatives count against a positive.

        R(p) = sum over n of sigmoid((d(a, p) - d(a, n)) / anneal)
        loss = mean over a of the mean over p of f(R(p))

    With b the `saturation`:

    | variant | f(R) | gradient |
    | --- | --- | --- |
    | `O` | R | constant |
    | `Iu` | (1 + R) log(1 + R) | increases with R, unbounded |
    | `Ib` | (b R - log(1 + b R)) / b**2 | increases with R up to 1/b |
    | `Ds` | log(1 + R) | decreases slowly with R |
    | `Dq` | 1 - 1 / (1 + R)**alpha | decreases quickly with R: ignores hopeless positives |

    As in the authors' code an anchor is one of its own positives, but an anchor without another
    positive has no term.

    Args:
        saturation: b, for the variant "Ib" only, above 0. Default 2, as in pytorch-metric-learning.
        alpha: for the variant "Dq" only, above 0. Default 1, as in
            pytorch-metric-learning; the paper has its best results with "Dq" and 8.
        anneal: width of the sigmoid, in units of `distance`, above 0; as in
            pytorch-metric-learning. Default 0.01, as in the paper.
        variant: a name in the table. Default "O", as in pytorch-metric-learning.
        distance: metric name, default "cosine".
        mining: pairs to use: "all" (default), a strategy of `layers.PairMiner`, or a miner.
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: default "mean_valid", the mean over anchors that have a positive.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a number of 0 or less, labels of a wrong kind, or a
            non-default `saturation` or `alpha` for a variant that does not read it.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]], "float32")
    >>> loss = keras_metric.losses.PNPLoss()
    >>> round(float(loss(np.array([0, 1, 0, 1]), points)), 3)
    0.754

    Reference:
        Li et al., "Rethinking the Optimization of Average Precision: Only Penalizing Negative
        Instances before Positive Ones is Enough", 2021, https://arxiv.org/abs/2102.04640
    """

    renamed_arguments = {"b": "saturation"}

    def __init__(
        self,
        saturation=2,
        alpha=1,
        anneal=0.01,
        variant="O",
        distance="cosine",
        mining="all",
        labels="ids",
        memory=None,
        reduction="mean_valid",
        name="pnp_loss",
        dtype=None,
    ):
        super().__init__(distance, mining, labels, reduction, name, dtype, memory)
        self.anneal = check_number("anneal", anneal, above=0)
        self.variant = check_choice("variant", variant, VARIANTS)
        for setting, value, default, reader in (
            ("saturation", saturation, 2, "Ib"),
            ("alpha", alpha, 1, "Dq"),
        ):
            check_number(setting, value, above=0)
            if value != default and variant != reader:
                raise ValueError(
                    f"Only the variant {reader!r} reads `{setting}`; other variants ignore "
                    f"it. Received: variant={variant!r}, {setting}={value!r}"
                )
        self.saturation = saturation
        self.alpha = alpha

    def batch_parts(self, reports, labels, embeddings, *references, **blocks):
        batch = (reports, labels, embeddings, *references)
        return [list_rows(self, self._list_terms, *batch, with_own=True, **blocks)]

    def _list_terms(self, distance, pairs):
        cost = penalty(self.variant, self.saturation, self.alpha)
        return pnp_terms(distance, pairs, cost, self.anneal)
