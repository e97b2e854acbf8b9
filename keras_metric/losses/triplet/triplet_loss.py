"""TripletLoss: an anchor nearer to its positive than to its negative, by a margin."""

import functools

import keras

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_flag, check_number
from keras_metric.losses.metric_loss import MetricLoss, check_branches
from keras_metric.losses.pair.pair_loss import LABELS, among_references, check_memory, chosen_pairs
from keras_metric.losses.reductions import single_terms
from keras_metric.losses.swapped_rows import swapped_triplet_rows
from keras_metric.losses.train_reports import report
from keras_metric.losses.triplet_rows import FORMS, triplet_rows
from keras_metric.mining import SETTINGS, STRATEGIES
from keras_metric.mining.pair_miner import PairMiner
from keras_metric.mining.triplet_miner import TripletMiner
from keras_metric.pairwise import class_pairs


@export
class TripletLoss(MetricLoss):
    """Pulls an anchor to its positive and pushes it from its negative.

    The first loss to try for embeddings of labelled data. Feed it a labelled batch (integer
    labels, embeddings of shape (batch, dim)) and it mines triplets of the whole batch, exactly,
    in O(batch**2) memory; or ready-made triplets (embeddings of shape (batch, 3, dim)).

    With gap = d(a, p) - d(a, n) + margin, a triplet's term is

    - `form="hinge"`: max(gap, 0)
    - `form="squared_hinge"`: max(gap, 0)**2
    - `form="soft_margin"`: log(1 + exp(gap)), to be used with `margin=0` as in the paper

    Args:
        margin: how much nearer the positive must be, in units of `distance`. Default 0.2, for
            unit vectors, whose Euclidean distances run from 0 to 2.
        distance: metric name, see `keras_metric.distances`, or a `layers.Mahalanobis`. Default
            "euclidean", not squared.
        mining: which triplets of a labelled batch count: a name or a `layers.TripletMiner`,
            which has the table of names. Default "semi-hard": neither the hardest, which
            collapse a young network, nor the easy, which teach nothing. A `layers.PairMiner`
            gives every triplet of the pairs it chooses. Ready-made triplets are all taken.
        form: "hinge" (default), "squared_hinge" or "soft_margin".
        swap: if True, the negative distance is the smaller of d(a, n) and d(p, n).
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: "mean_active" (default): the mean over the terms greater than zero, so that
            solved triplets do not dilute the gradient. "mean_valid" divides by all triplets, as
            tensorflow-addons does. Keras's own act on the row means.
        name: name of the loss.
        dtype: dtype of the result; distances are computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, float or string labels, or a wrong number of branches.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0, 0.0], [0.0, 0.6], [0.0, 1.0], [0.0, 2.0]], "float32")
    >>> loss = keras_metric.losses.TripletLoss(margin=0.2, mining="hard")
    >>> round(float(loss(np.array([0, 0, 1, 1]), points)), 3)
    0.6

    Reference:
        Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face Recognition
        and Clustering", 2015, https://arxiv.org/abs/1503.03832. Soft margin: Hermans, Beyer and
        Leibe, "In Defense of the Triplet Loss", 2017, https://arxiv.org/abs/1703.07737
    """

    num_branches = (3,)
    rows_see = "references"

    def __init__(
        self,
        margin=0.2,
        distance="euclidean",
        mining="semi-hard",
        form="hinge",
        swap=False,
        labels="ids",
        memory=None,
        reduction="mean_active",
        name="triplet_loss",
        dtype=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        check_number("margin", margin)
        distances.check_metric("distance", distance)
        check_choice("form", form, FORMS)
        check_flag("swap", swap)
        check_choice("labels", labels, LABELS)
        self.margin = margin
        self.distance = distance
        self.mining = mining
        self.form = form
        self.swap = bool(swap)
        self.labels = labels
        self.memory = memory
        check_memory(memory, labels)
        self.pair_miner = mining if isinstance(mining, PairMiner) else None
        self.miner = as_miner(mining, margin, form)

    @property
    def layers(self):
        held = () if self.memory is None else (self.memory,)
        return (self.pair_miner or self.miner, *distances.layers_of(self.distance), *held)

    def batch_parts(self, labels, embeddings, references=None, reference_labels=None):
        partners = class_pairs.from_labels(labels, reference_labels)
        if self.pair_miner is not None:
            distance = distances.pairwise(embeddings, references, self.distance)
            partners = chosen_pairs(self.pair_miner, distance, partners)
        settings = {"metric": distances.name_of(self.distance), "dim": embeddings.shape[1]}
        others = embeddings if references is None else references
        if self.swap:
            distance = distances.pairwise(embeddings, references, self.distance)
            among = among_references(distance, self.distance, references)
            report(distance, distance, partners.positive, partners.negative)
            rows = functools.partial(swapped_triplet_rows, distance, among)
        else:
            measured = distances.some_rows_at_a_time(embeddings, others, self.distance)
            rows = functools.partial(triplet_rows, measured)
            if self.miner.needs_among:
                settings["among"] = distances.pairwise(others, metric=self.distance)
        return [rows(partners, self.miner, self.margin, self.form, **settings)]

    def tuple_parts(self, y_true, branches):
        check_branches(branches, 3, "anchor, positive, negative")
        anchor, positive, negative = branches
        near = distances.elementwise(anchor, positive, self.distance)
        far = distances.elementwise(anchor, negative, self.distance)
        if self.swap:
            far = keras.ops.minimum(far, distances.elementwise(positive, negative, self.distance))
        report(near, far)
        value = FORMS[self.form].value(near - far + self.margin)
        return [single_terms(value)]


def as_miner(mining, margin, form="hinge"):
    """The `TripletMiner` that a loss's `mining` argument stands for."""
    if isinstance(mining, TripletMiner):
        return mining
    if isinstance(mining, PairMiner):
        return TripletMiner("all")
    if not isinstance(mining, str):
        raise ValueError(
            "`mining` must be the name of a strategy, a keras_metric.layers.TripletMiner or a "
            f"PairMiner. Received: mining={mining!r}"
        )
    # Where a hinge is 0 for every triplet of a strategy, its name would train nothing.
    names = [name for name in STRATEGIES if name != "easy-all" or form == "soft_margin"]
    check_choice("mining", mining, names)
    # The bands of the miner are as wide as the margin of the loss, as in FaceNet.
    band = {"margin": margin if margin > 0 else 0.2} if "margin" in SETTINGS[mining] else {}
    return TripletMiner(mining, **band)
