"""TripletLoss: an anchor must be nearer to its positive than to its negative, by a margin."""

from functools import partial

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_flag, check_number
from keras_metric.losses.metric_loss import MetricLoss, check_branches
from keras_metric.losses.pair.pair_loss import LABELS, among_references, check_memory, chosen_pairs
from keras_metric.mining.every_triplet_rules import EVERY
from keras_metric.mining.pair_miner import PairMiner
from keras_metric.mining.triplet_miner import TripletMiner
from keras_metric.mining.triplet_rules import PER_ANCHOR, PER_PAIR, SETTINGS, STRATEGIES
from keras_metric.pairwise import class_pairs, triplets_by_rank, triplets_with_swap
from keras_metric.pairwise.anchor_rows import Rows, single_terms
from keras_metric.pairwise.blockwise import rows_in_blocks
from keras_metric.pairwise.triplets_by_rank import COUNTING, FORMS
from keras_metric.pairwise.triplets_by_sorting import SORT_ABOVE


@export
class TripletLoss(MetricLoss):
    """Triplet loss: the negative must be farther from the anchor than the positive, by a margin.

    The first loss to try for embeddings of labelled data. A labelled batch (integer labels,
    embeddings of shape (batch, dim)) is mined for triplets of the whole batch, exactly, in
    O(batch**2) memory. Ready-made triplets have embeddings of shape (batch, 3, dim).

    With gap = d(a, p) - d(a, n) + margin, a triplet's term is

    - `form="hinge"`: max(gap, 0)
    - `form="squared_hinge"`: max(gap, 0)**2
    - `form="soft_margin"`: log(1 + exp(gap)), with `margin=0` as in the paper

    Args:
        margin: how much nearer the positive must be, in units of `distance`. Default 0.2, for
            unit vectors, whose Euclidean distances are between 0 and 2.
        distance: metric name, see `keras_metric.distances`, or a `layers.Mahalanobis`. Default
            "euclidean", not squared.
        mining: which triplets of a labelled batch count: a name of the table of
            `layers.TripletMiner`, or a miner. Default "semi-hard", which excludes the hardest
            triplets, with which an untrained network may collapse, and the easy ones, which have
            no gradient. A `layers.PairMiner` gives every triplet of the pairs it chooses. Of
            ready-made triplets all count.
        form: "hinge" (default), "squared_hinge" or "soft_margin".
        swap: if True, the negative distance is the smaller of d(a, n) and d(p, n).
        labels: "ids" (default), or "multi_hot": 0/1 rows; a shared label makes a positive pair.
        memory: `layers.CrossBatchMemory` of past batches to compare with. Default None.
        reduction: "mean_active" (default): the mean over the terms greater than zero, so that
            solved triplets do not reduce the gradient. "mean_valid" divides by all triplets, as in
            tensorflow-addons. Keras's own reductions act on the row means.
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
    rows_depend_on = "references"

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
        check_memory(memory, labels)
        self.margin = margin
        self.distance = distance
        self.mining = mining
        self.form = form
        self.swap = bool(swap)
        self.labels = labels
        self.memory = memory
        self.pair_miner = mining if isinstance(mining, PairMiner) else None
        self.miner = as_miner(mining, margin, form)
        owned = (self.pair_miner or self.miner, *distances.layers_of(distance), memory)
        self.layers = tuple(layer for layer in owned if layer is not None)
        self._metric = distances.name_of(distance)
        self._in_blocks = distances.in_blocks(distance)

    def batch_parts(self, reports, labels, embeddings, references=None, reference_labels=None):
        pairs = class_pairs.from_labels(labels, reference_labels)
        others = embeddings if references is None else references
        if self.pair_miner is not None or self.swap:
            distance = distances.pairwise(embeddings, references, self.distance)
            pairs = chosen_pairs(self.pair_miner, distance, pairs)
        settings = (pairs, self.miner, self.margin, self.form, self._metric, embeddings.shape[1])
        if self.swap:
            among = among_references(distance, self.distance, references)
            reports.add_distances(distance, distance, pairs.positive, pairs.negative)
            return [swapped_rows(distance, among, *settings)]
        among = None
        if self.miner.needs_among:
            among = distances.pairwise(others, metric=self.distance)
        return [triplet_rows(reports, self._in_blocks(embeddings, others), *settings, among)]

    def tuple_parts(self, reports, y_true, branches):
        check_branches(branches, 3, "anchor, positive, negative")
        anchor, positive, negative = branches
        near = distances.elementwise(anchor, positive, self.distance)
        far = distances.elementwise(anchor, negative, self.distance)
        if self.swap:
            far = ops.minimum(far, distances.elementwise(positive, negative, self.distance))
        reports.add_distances(near, far)
        return [single_terms(FORMS[self.form].value(near - far + self.margin))]


def as_miner(mining, margin, form="hinge"):
    """The `TripletMiner` of a loss's `mining` argument."""
    if isinstance(mining, TripletMiner):
        return mining
    if isinstance(mining, PairMiner):
        return TripletMiner("all")
    if not isinstance(mining, str):
        raise ValueError(
            "`mining` must be the name of a strategy, a keras_metric.layers.TripletMiner or a "
            f"PairMiner. Received: mining={mining!r}"
        )
    # A hinge is 0 for every triplet of "easy-all", which would train nothing.
    names = [name for name in STRATEGIES if name != "easy-all" or form == "soft_margin"]
    check_choice("mining", mining, names)
    # The width of the miner's band is the margin of the loss, as in FaceNet.
    band = {"margin": margin if margin > 0 else 0.2} if "margin" in SETTINGS[mining] else {}
    return TripletMiner(mining, **band)


def triplet_rows(
    reports,
    measured,
    pairs,
    miner,
    margin,
    form,
    metric=None,
    dim=None,
    among=None,
    sort_above=SORT_ABOVE,
    **blocks,
):
    """Rows of the triplet loss of a labelled batch.

    Args:
        reports: a `StepReports`.
        measured: the distances, of `distances.in_blocks` or `blockwise.of_matrix`.
        pairs: `Pairs` of the batch.
        miner: a `TripletMiner`.
        margin: in units of the distances.
        form: a name of `FORMS`.
        metric: name of the metric, for "angular" and "distance-weighted".
        dim: length of an embedding, for "distance-weighted".
        among: distances (references, references), for a miner with "angular".
        sort_above: number of positives from which sorting replaces the loop.
        blocks: further arguments of `rows_in_blocks`.
    """
    settings = (margin, FORMS[form], metric, dim, among, sort_above)
    functions = [_terms(miner, name, *settings) for name in miner.strategies]
    compute = miner.chosen(functions) if len(functions) > 1 else functions[0]
    noise = None
    if miner.is_random:
        noise = miner.noise(ops.shape(pairs.num_positives)[0], ops.shape(pairs.columns)[1])
    total, active, valid, *sums = rows_in_blocks(
        compute, measured, pairs, noise, with_sums=reports.wants_distances, **blocks
    )
    if sums:
        reports.add_distance_sums(*sums, pairs.num_positives, pairs.num_negatives)
    return Rows(total, active, valid)


def triplet_counts(
    distance, pairs, miner, metric=None, dim=None, among=None, sort_above=SORT_ABOVE
):
    """In how many of the triplets that `miner` chooses each pair occurs.

    Arguments as for `triplet_rows`, with `distance` (batch, references).

    Returns:
        Two matrices (batch, references), for positives and for negatives.
    """
    settings = (0.0, COUNTING, metric, dim, among, sort_above)
    compute = miner.chosen([_terms(miner, name, *settings) for name in miner.strategies])
    distance = ops.stop_gradient(distance)
    counts = ops.stop_gradient(compute(distance, pairs, miner.noise(*ops.shape(distance)))[-1])
    return ops.relu(counts), ops.relu(-counts)


def swapped_rows(distance, among, pairs, miner, margin, form, metric=None, dim=None):
    """Rows of the triplet loss with the distance swap; arguments as for `triplet_rows`."""
    noise = miner.noise(*ops.shape(distance))

    def terms(distance, among, factor):
        def of_strategy(name):
            settings = (distance, among, factor, pairs, margin, FORMS[form])
            if name in EVERY:
                return triplets_with_swap.every_triplet(*settings, miner.inside(name, metric))
            if name in PER_ANCHOR:
                positive, negative, exists = PER_ANCHOR[name](distance, pairs, noise)

                def pick(rank, near, column):
                    return negative, ops.logical_and(exists, ops.equal(column, positive))
            else:
                negative_of = miner.picker(name, distance, pairs, noise, dim, metric)

                def pick(rank, near, column):
                    return negative_of(rank, near)

            return triplets_with_swap.one_negative(*settings, pick)

        return miner.choose(of_strategy)

    return Rows(*triplets_with_swap.swapped_rows(distance, among, terms))


def _terms(miner, name, margin, form, metric, dim, among, sort_above):
    """The function of `triplets_by_rank` for a strategy, with its settings."""
    settings = {"margin": margin, "form": form}
    if name == "semi-hard":
        return partial(
            triplets_by_rank.semi_hard, **settings, pick=PER_PAIR[name], sort_above=sort_above
        )
    if name in PER_ANCHOR:
        return partial(triplets_by_rank.one_per_anchor, **settings, choose=PER_ANCHOR[name])
    if name in EVERY:
        among = among if among is None else ops.stop_gradient(among)
        band = {"inside": miner.inside(name, metric), "edges": miner.edges(name), "among": among}
        return partial(triplets_by_rank.every_triplet, **settings, **band, sort_above=sort_above)
    pick = partial(miner.picker, name, dim=dim, metric=metric)
    return partial(triplets_by_rank.one_per_pair, **settings, pick=pick)
