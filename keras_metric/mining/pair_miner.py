"""PairMiner: a layer that chooses pairs, with a schedule and a seed."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import (
    as_tensor,
    check_choice,
    check_count,
    check_matrix,
    check_number,
    check_one_label_each,
    class_ids,
    nan_if_invalid,
)
from keras_metric.mining import pair_rules
from keras_metric.mining.miner import Miner
from keras_metric.pairwise import class_pairs


@export
class PairMiner(Miner):
    """Chooses the pairs of a labelled batch that a loss uses.

    A name (`ContrastiveLoss(mining="hdc")`) is enough if one strategy with its defaults is used for
    the whole training. Use this layer to set a strategy's arguments, to change the strategy during
    training (`callbacks.MiningSchedule`), to set a seed, or to inspect the choice. A triplet loss
    accepts it too: it uses every triplet of the chosen pairs.

    - `all`: every pair.
    - `easy-hard`: one positive and one negative of each anchor, easy or hard as set below.
    - `multi-similarity`: positives beyond the anchor's nearest negative minus `epsilon`, negatives
      nearer than its farthest positive plus `epsilon`.
    - `pair-margin`: positives beyond `positive_margin`, negatives nearer than `negative_margin`.
    - `hdc`: the hardest fraction of the batch's positive pairs, and of its negative pairs.
    - `n-pairs`: the first positive pair of each class, and the negatives between these pairs.
    - `uniform-histogram`: random pairs, the same number from each interval of distance.

    An argument that none of the strategies reads raises an error. Defaults are those of
    pytorch-metric-learning.

    Args:
        strategy: a name of the table, or a tuple of names to switch between with `use`; the
            first is used at the start. Default "multi-similarity", which excludes solved pairs and
            suits most losses.
        positive: of "easy-hard". "easy" (default): the nearest; "hard": the farthest; "semi-hard":
            the farthest that is nearer than the negative; "all": each one.
        negative: of "easy-hard". "easy": the farthest; "hard": the nearest; "semi-hard" (default):
            the nearest beyond the positive; "all": each one. An anchor without one of the two kinds
            has no pair, unless one choice is "all". "semi-hard" requires "easy" or "hard" as the
            other choice.
        positive_range: of "easy-hard": (least, most) distance of a positive; default None, any.
        negative_range: of "easy-hard": (least, most) distance of a negative; default None, any.
        epsilon: of "multi-similarity": tolerance in units of the distance. Default 0.1, as in the
            paper, for cosines.
        positive_margin: of "pair-margin": distance beyond which positives count. Default 0.2.
        negative_margin: of "pair-margin": distance up to which negatives count. Default 0.8.
        filter_percentage: of "hdc": the fraction that is kept, above 0 and at most 1. Default 0.5.
        num_bins: of "uniform-histogram": number of intervals, of equal width from the least to
            the greatest distance of the positives; the same number for the negatives. Default 100.
        pos_per_bin: of "uniform-histogram": maximum of positive pairs of an interval. Default 10.
        neg_per_bin: of "uniform-histogram": maximum of negative pairs of an interval. Default 10.
        negatives_per_positive: integer; each anchor keeps the nearest of the negatives that a
            strategy chooses, at most this number for each chosen positive. Default None: all.
        distance: metric of `__call__`; default "euclidean". In a loss, the distances of the loss
            are used.
        seed: integer, for "uniform-histogram". Its state is not saved with a model, as with every
            random layer of Keras.

    Call arguments:
        embeddings: `(batch, dim)`.
        labels: integer ids `(batch,)`.

    Returns:
        `(positive, negative)`, both `(batch, batch)`: 1.0 where the pair of an anchor row and
        a column is chosen, else 0.0.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a number out of range, or a setting that none of the
            strategies reads.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0], [1.0], [1.5], [4.0]], "float32")
    >>> miner = keras_metric.layers.PairMiner("easy-hard", positive="hard", negative="hard")
    >>> positive, negative = miner(points, np.array([0, 0, 1, 1]))
    >>> np.argwhere(np.asarray(negative)).tolist()
    [[0, 2], [1, 2], [2, 1], [3, 1]]

    Reference:
        Easy and hard: Xuan, Stylianou and Pless, 2020, https://arxiv.org/abs/1904.04370.
        Multi-similarity: Wang et al., 2019, https://arxiv.org/abs/1904.06627. HDC: Yuan, Yang
        and Zhang, 2017, https://arxiv.org/abs/1611.05720. N-pairs: Sohn, 2016.
    """

    strategy_settings = pair_rules.SETTINGS

    def __init__(
        self,
        strategy="multi-similarity",
        positive=None,
        negative=None,
        positive_range=None,
        negative_range=None,
        epsilon=None,
        positive_margin=None,
        negative_margin=None,
        filter_percentage=None,
        num_bins=None,
        pos_per_bin=None,
        neg_per_bin=None,
        negatives_per_positive=None,
        distance="euclidean",
        seed=None,
        **kwargs,
    ):
        settings = {
            "positive": positive,
            "negative": negative,
            "positive_range": positive_range,
            "negative_range": negative_range,
            "epsilon": epsilon,
            "positive_margin": positive_margin,
            "negative_margin": negative_margin,
            "filter_percentage": filter_percentage,
            "num_bins": num_bins,
            "pos_per_bin": pos_per_bin,
            "neg_per_bin": neg_per_bin,
        }
        super().__init__(strategy, settings, distance, seed, **kwargs)
        for name in self.strategies:
            for key, value in self.settings(name).items():
                _check_setting(key, value)
        if "easy-hard" in self.strategies:
            _check_choices(**self.settings("easy-hard"))
        if negatives_per_positive is not None:
            check_count("negatives_per_positive", negatives_per_positive)
        self.negatives_per_positive = negatives_per_positive

    def masks(self, distance, pairs):
        """Boolean matrices (rows, columns) of the positives and negatives that count.

        `distance` (rows, columns) and `pairs` are those of a loss; no gradient passes through.
        """
        distance = ops.stop_gradient(distance)
        noise = self.noise(*ops.shape(distance))

        def masks(name):
            rule = pair_rules.RULES[name]
            return rule(distance, pairs, noise, **self.settings(name))

        positive, negative = self.choose(masks)
        if self.negatives_per_positive is not None:
            negative = pair_rules.nearest_negatives(
                distance, positive, negative, self.negatives_per_positive
            )
        return positive, negative

    def call(self, embeddings, labels):
        embeddings = as_tensor("embeddings", embeddings)
        check_matrix("embeddings", embeddings)
        ids = class_ids(labels)
        check_one_label_each(ids, embeddings)
        distance = distances.pairwise(embeddings, metric=self.distance)
        masks = self.masks(distance, class_pairs.from_labels(ids))
        return tuple(nan_if_invalid(ops.cast(mask, distance.dtype), labels) for mask in masks)

    def get_config(self):
        return {**super().get_config(), "negatives_per_positive": self.negatives_per_positive}


def _check_setting(name, value):
    if name in ("positive", "negative"):
        check_choice(name, value, pair_rules.CHOICES)
    elif name.endswith("_range"):
        if value is not None:
            _check_range(name, value)
    elif name == "filter_percentage":
        check_number(name, value, above=0, at_most=1)
    elif name.endswith(("_bin", "_bins")):
        check_count(name, value)
    else:
        check_number(name, value)


def _check_range(name, value):
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"`{name}` must be (least, most). Received: {name}={value!r}")
    least, most = value
    check_number(f"{name}[0]", least)
    check_number(f"{name}[1]", most, at_least=least)


def _check_choices(positive, negative, **ranges):
    if "semi-hard" in (positive, negative) and {positive, negative} <= {"semi-hard", "all"}:
        raise ValueError(
            '"semi-hard" is relative to the other choice, which must be "easy" or "hard". '
            f"Received: positive={positive!r}, negative={negative!r}"
        )
