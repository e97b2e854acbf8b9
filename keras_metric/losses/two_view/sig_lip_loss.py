"""SigLipLoss: for each pair of a batch by itself, do the two sides belong together?"""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_choice, check_flag, check_number
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.losses.pair.pair_loss import LABELS
from keras_metric.losses.two_view.clip_loss import measured_branches
from keras_metric.losses.two_view.logit_scale import LogitScale
from keras_metric.pairwise.anchor_rows import single_terms


def sig_lip_rows(distance, same, factor, bias):
    """One term an item: the logistic losses of its first branch with every second one."""
    logits = (1 - distance) * factor + bias
    return single_terms(ops.sum(ops.softplus(ops.where(same, -logits, logits)), axis=1))


@export
class SigLipLoss(MetricLoss):
    """The task of `ClipLoss` with a yes or no for each pair in place of a softmax.

    Reach for it where pairs belong together and batches are small, or where many items have
    several partners: no pair competes with another. Embeddings have shape (batch, 2, dim), and
    no y is needed.

        loss = mean over i of sum_j log( 1 + exp( -z_ij (s_ij / t + bias) ) )

    with s_ij the cosine of the first item of pair i and the second of pair j, t the temperature,
    z_ij = 1 where they belong together and -1 elsewhere.

    Where several pairs of a batch show the same thing, hand over a number for each as y: z is 1
    for all pairs of one number.

    Args:
        temperature: t, above 0. Default 0.1, a factor of 10, where the authors begin; they
            learn it.
        bias: added to every logit. Default -10, as in the paper: it makes up for the many
            negatives, of which a batch has batch - 1 for each positive.
        learn_temperature: True learns t and the bias, from the given ones on, t never below
            0.01; `EmbeddingModel` and `TwoTowerModel` train and save them. Default False.
        labels: "ids" (default), or "multi_hot" for y of 0 and 1 `(batch, classes)`, where
            pairs that share a label belong together.
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result. Distances are taken in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for a temperature of 0 or less, an unknown name, labels of another kind, or
            another number of branches.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> pairs = np.array([[[1.0, 0.0], [1.0, 0.1]], [[0.0, 1.0], [0.1, 1.0]]], "float32")
    >>> loss = keras_metric.losses.SigLipLoss(bias=-5.0)
    >>> round(float(loss(np.arange(2), pairs)), 3)
    0.025

    Reference:
        Zhai, Mustafa, Kolesnikov and Beyer, "Sigmoid Loss for Language Image Pre-Training",
        2023, https://arxiv.org/abs/2303.15343
    """

    num_branches = (2,)
    distance = "cosine"

    def __init__(
        self,
        temperature=0.1,
        bias=-10.0,
        learn_temperature=False,
        labels="ids",
        reduction="mean_valid",
        name="sig_lip_loss",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        check_number("temperature", temperature, above=0)
        check_number("bias", bias)
        check_flag("learn_temperature", learn_temperature)
        check_choice("labels", labels, LABELS)
        self.temperature = temperature
        self.bias = bias
        self.learn_temperature = bool(learn_temperature)
        self.labels = labels
        self.logit_scale = None
        if learn_temperature:
            self.logit_scale = LogitScale(1 / temperature, bias, name=name)
            self.layers = (self.logit_scale,)

    def reads_ids(self, num_branches):
        return True

    def tuple_parts(self, reports, y_true, branches):
        labels = self._checked_labels(y_true, "y_true")
        distance, same = measured_branches(reports, labels, branches)
        if self.logit_scale is None:
            return [sig_lip_rows(distance, same, 1 / self.temperature, self.bias)]
        learned = (self.logit_scale.factor, self.logit_scale.bias)
        learned = (ops.cast(number, distance.dtype) for number in learned)
        return [sig_lip_rows(distance, same, *learned)]
