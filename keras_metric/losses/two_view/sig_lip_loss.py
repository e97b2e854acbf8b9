"""SigLIP loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_choice, check_flag, check_number
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.losses.pair.pair_loss import LABELS
from keras_metric.losses.two_view.clip_loss import LogitScale, measured_branches
from keras_metric.pairwise.anchor_rows import single_terms
from keras_metric.pairwise.blockwise import FEW_PASSES, DotDistances, of_vectors, rows_in_blocks


def sig_lip_terms(distance, pairs, noise=None):
    """Summed logistic losses of a first branch with all second ones, and their derivatives.

    `distance`: the negative logits.
    """
    signed = ops.where(pairs.positive, distance, -distance)
    gradient = ops.sigmoid(signed)
    return ops.sum(ops.softplus(signed), axis=1), ops.where(pairs.positive, gradient, -gradient)


@export
class SigLipLoss(MetricLoss):
    """SigLIP: independent logistic loss of each pair, in place of the softmax of `ClipLoss`.

    Use it where batches are small, or where many items have several positives: pairs do not compete
    with each other. Embeddings have shape (batch, 2, dim); no y is needed.

        loss = mean over i of sum_j log( 1 + exp( -z_ij (s_ij / t + bias) ) )

    with s_ij the cosine of the first item of pair i and the second of pair j, t the temperature,
    and z_ij = 1 for positive pairs and -1 for negative ones.

    Where several pairs of a batch belong together, pass a class id for each pair as y: z is 1 for
    all pairs of one id.

    Args:
        temperature: t, above 0. Default 0.1 (a factor of 10), the authors' initial value; they
            train it.
        bias: added to every logit. Default -10, as in the paper: it compensates for the batch - 1
            negatives of each positive.
        learn_temperature: True trains t and the bias from the given values on, t never below 0.01;
            `EmbeddingModel` and `TwoTowerModel` train and save them. Default False.
        labels: "ids" (default), or "multi_hot": 0/1 rows; pairs that share a label are positives.
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for a temperature of 0 or less, an unknown name, labels of a wrong kind, or
            a wrong number of branches.

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
        self.temperature = check_number("temperature", temperature, above=0)
        self.bias = check_number("bias", bias)
        self.learn_temperature = check_flag("learn_temperature", learn_temperature)
        self.labels = check_choice("labels", labels, LABELS)
        self.logit_scale = None
        if learn_temperature:
            self.logit_scale = LogitScale(1 / temperature, bias, name=name)
            self.layers = (self.logit_scale,)

    def reads_ids(self, num_branches):
        return True

    def tuple_parts(self, reports, y_true, branches):
        first, second, pairs = measured_branches(self, reports, y_true, branches)
        factor, bias = 1 / self.temperature, self.bias
        if self.logit_scale is not None:
            factor, bias = self.logit_scale.factor, self.logit_scale.bias
        # A further dimension holds the bias, so that the logits are products.
        ones = ops.ones_like(first[:, :1])
        first = first * ops.cast(factor, first.dtype)
        first = ops.concatenate([first, ones * ops.cast(bias, first.dtype)], axis=1)
        second = ops.concatenate([second, ones], axis=1)
        logits = of_vectors(first, second, DotDistances, offset=0)
        return [single_terms(rows_in_blocks(sig_lip_terms, logits, pairs, **FEW_PASSES)[0])]
