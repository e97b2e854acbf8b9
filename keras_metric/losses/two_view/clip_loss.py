"""CLIP loss."""

import math

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_flag, check_number, check_one_each
from keras_metric.losses.metric_loss import MetricLoss, check_branches
from keras_metric.losses.pair.pair_loss import LABELS
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.anchor_rows import Rows, single_terms
from keras_metric.pairwise.class_pairs import sums_over_positives
from keras_metric.pairwise.log_sums import log_sums


class LogitScale(keras.layers.Layer):
    """Trainable factor exp(w) of logits, at most 100 as in CLIP, and an optional bias."""

    MAX_FACTOR = 100.0

    def __init__(self, factor, bias=None, **kwargs):
        super().__init__(**{"dtype": distances.dtype_of_weights(), **kwargs})
        if factor > self.MAX_FACTOR:
            raise ValueError(
                "A learned temperature must start at 0.01 or above, its lower bound. "
                f"Received: temperature={1 / factor:g}"
            )
        self.first_factor, self.first_bias = factor, bias

    def build(self, input_shape):
        constant = keras.initializers.Constant
        self.log_factor = self.add_weight(
            (),
            constant(math.log(self.first_factor)),
            # Clip the weight after each step: a minimum in `factor` has no gradient beyond it.
            constraint=lambda w: ops.minimum(w, math.log(self.MAX_FACTOR)),
            name="log_factor",
        )
        if self.first_bias is not None:
            self.bias = self.add_weight((), constant(self.first_bias), name="bias")

    @property
    def factor(self):
        """Factor of the logits."""
        return ops.exp(ops.minimum(self.log_factor + 0, math.log(self.MAX_FACTOR)))


def measured_branches(loss, reports, y_true, branches):
    """Both branches of unit length, and the `Pairs` of first and second branches.

    The two branches of an item are a positive pair, and so are those of items that share a label.
    """
    check_branches(branches, 2, "first, second")
    labels = loss._checked_labels(y_true, "y_true")
    check_one_each(labels, branches[0], "y_true", "y_pred")
    first, second = (distances.unit(branch) for branch in branches)
    pairs = class_pairs.with_anchor(class_pairs.from_labels(labels))
    if reports.wants_distances:
        near = ops.sum(first * sums_over_positives(pairs, second), axis=1)
        far = ops.sum(first * ops.sum(second, axis=0), axis=1) - near
        numbers = pairs.num_positives, pairs.num_negatives
        numbers = [ops.cast(number, near.dtype) for number in numbers]
        distance = (number - cosines for number, cosines in zip(numbers, (near, far)))
        reports.add_distance_sums(*distance, *numbers)
    return first, second, pairs


def clip_rows(first, second, pairs, factor):
    """Two terms per item: its first branch among all second ones, and vice versa.

    `first`, `second`: (batch, dim), of unit length. `factor`: 1 / temperature.
    """
    first = first * factor
    number = ops.cast(pairs.num_positives, first.dtype)
    ahead, back = (
        single_terms(sums - ops.sum(x * sums_over_positives(pairs, y), axis=1) / number)
        for sums, x, y in zip(
            ops.unstack(log_sums(first, second), 2), (first, second), (second, first)
        )
    )
    return Rows(*(a + b for a, b in zip(ahead, back)))


@export
class ClipLoss(MetricLoss):
    """CLIP: symmetric cross-entropy between the two sides of pairs, such as images and captions.

    The other pairs of the batch are the negatives, so use large batches. Embeddings have shape
    (batch, 2, dim); no y is needed.

        loss = -1 / (2 * batch) * sum_i log( exp(s_ii / t) / sum_j exp(s_ij / t) )
                                      + log( exp(s_ii / t) / sum_j exp(s_ji / t) )

    with s_ij the cosine of the first item of pair i and the second of pair j, t the temperature.

    Where several pairs of a batch belong together (one image, five captions), pass a class id for
    each pair as y: pairs of one id are positives of each other, and the logarithm is averaged over
    an item's positives. Without y they would be negatives.

    Args:
        temperature: t, above 0. Default 0.07, the authors' initial value; they train it, down to
            0.01.
        learn_temperature: True trains t, from `temperature` on and never below 0.01;
            `EmbeddingModel` and `TwoTowerModel` train and save it. Default False.
        labels: "ids" (default), or "multi_hot": 0/1 rows; pairs that share a label are positives.
        reduction: default "mean_valid", the mean over items and both directions.
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
    >>> loss = keras_metric.losses.ClipLoss(temperature=0.5)
    >>> round(float(loss(np.arange(2), pairs)), 3)
    0.154

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
        2021, https://arxiv.org/abs/2103.00020. Several positives: Yang et al., "Unified
        Contrastive Learning in Image-Text-Label Space", 2022, https://arxiv.org/abs/2204.03610
    """

    num_branches = (2,)
    distance = "cosine"

    def __init__(
        self,
        temperature=0.07,
        learn_temperature=False,
        labels="ids",
        reduction="mean_valid",
        name="clip_loss",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.temperature = check_number("temperature", temperature, above=0)
        self.learn_temperature = check_flag("learn_temperature", learn_temperature)
        self.labels = check_choice("labels", labels, LABELS)
        self.logit_scale = None
        if learn_temperature:
            self.logit_scale = LogitScale(1 / temperature, name=name)
            self.layers = (self.logit_scale,)

    def reads_ids(self, num_branches):
        return True

    def tuple_parts(self, reports, y_true, branches):
        first, second, pairs = measured_branches(self, reports, y_true, branches)
        factor = 1 / self.temperature
        if self.logit_scale is not None:
            factor = ops.cast(self.logit_scale.factor, first.dtype)
        return [clip_rows(first, second, pairs, factor)]
