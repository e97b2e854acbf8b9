"""TripletMiner: a layer that chooses triplets, with a schedule and a seed."""

from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import (
    as_tensor,
    check_matrix,
    check_number,
    check_one_label_each,
    class_ids,
    nan_if_invalid,
)
from keras_metric.mining import every_triplet_rules, triplet_rules
from keras_metric.mining.miner import Miner
from keras_metric.pairwise import class_pairs
from keras_metric.pairwise.class_pairs import MASKED_DISTANCE, at

_TO_EUCLIDEAN = {
    "euclidean": lambda d: d,
    "squared_euclidean": lambda d: ops.sqrt(ops.maximum(d, 0)),
    # Between unit vectors: |a - b|**2 = 2 - 2 * cos.
    "cosine": lambda d: ops.sqrt(ops.maximum(2 * d, 0)),
    "dot": lambda d: ops.sqrt(ops.maximum(2 + 2 * d, 0)),
}


def _to_euclidean(distance, metric):
    if metric not in _TO_EUCLIDEAN:
        raise ValueError(
            'mining="distance-weighted" samples by Euclidean distance on the unit sphere: '
            f"`distance` must be one of {sorted(_TO_EUCLIDEAN)}. Received: distance={metric!r}"
        )
    return _TO_EUCLIDEAN[metric](distance)


@export
class TripletMiner(Miner):
    """Chooses the triplets of a labelled batch that a loss uses.

    A name (`TripletLoss(mining="hard")`) is enough if one strategy is used for the whole training.
    Use this layer to change the strategy during training (`callbacks.MiningSchedule`), to set a
    seed or another setting, or to inspect the choice. A loss on pairs accepts it too: it uses the
    pairs that occur in the triplets, each once.

    | strategy | triplets |
    | --- | --- |
    | `all` | every one |
    | `semi-hard` | each (a, p) with the nearest negative beyond p, else the farthest negative |
    | `semi-hard-all` | every one with d_ap < d_an < d_ap + margin |
    | `semi-hard-random` | each (a, p) with one random negative of that band |
    | `hard-all` | every one with d_an <= d_ap |
    | `easy-all` | every one with d_an >= d_ap + margin, for losses that are not 0 there |
    | `angular` | every one with d_ap > 2 tan(angle) d_nc, with c the midpoint of a and p |
    | `hard` | each anchor's farthest positive and nearest negative |
    | `soft-hard` | a random hard positive (beyond the nearest negative) and hard negative |
    | `easy-positive` | each anchor's nearest positive and the nearest negative beyond it |
    | `random` | each (a, p) with one random negative |
    | `distance-weighted` | each (a, p) with a random negative, uniform over the distances |

    Args:
        strategy: a name of the table, or a tuple of names to switch between with `use`; the
            first is used at the start. Default "semi-hard", as in FaceNet.
        margin: of "semi-hard-all", "semi-hard-random" and "easy-all", in units of the distance.
            Default 0.2, the margin of FaceNet. A loss with the name of a strategy uses its own
            margin.
        angle: of "angular": the smallest angle at n, in degrees. Default 20. Distances must be
            Euclidean or cosine distances.
        cutoff: of "distance-weighted": negatives nearer than this Euclidean distance have the
            probability of this distance, which limits the variance. Default 0.5.
        nonzero_loss_cutoff: of "distance-weighted": the Euclidean distance from which negatives
            are never sampled. Default 1.4, about that of unrelated vectors.
        distance: metric of `__call__`; default "euclidean". In a loss, the distances of the loss
            are used.
        seed: integer, for the random strategies. Their state is not saved with a model, as with
            every random layer of Keras.

    Call arguments:
        embeddings: `(batch, dim)`.
        labels: integer ids `(batch,)`.

    Returns:
        `(negative, weight)`, both `(batch, batch)`: for anchor row i and positive column j the
        column of the negative (int32) and 1.0 where this triplet is chosen, else 0.0.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown strategy, a number out of range, or a setting that none of the
            strategies reads; and when called with "angular" or a strategy that ends in "all",
            which a loss sums in closed form, without a list.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> points = np.array([[0.0], [1.0], [1.5], [4.0]], "float32")
    >>> miner = keras_metric.layers.TripletMiner("hard")
    >>> negative, weight = miner(points, np.array([0, 0, 1, 1]))
    >>> [(i, j, int(negative[i, j])) for i, j in np.argwhere(np.asarray(weight)).tolist()]
    [(0, 1, 2), (1, 0, 2), (2, 3, 1), (3, 2, 1)]

    Reference:
        Schroff, Kalenichenko and Philbin, "FaceNet", 2015, https://arxiv.org/abs/1503.03832
    """

    strategy_settings = triplet_rules.SETTINGS

    def __init__(
        self,
        strategy="semi-hard",
        margin=None,
        angle=None,
        cutoff=None,
        nonzero_loss_cutoff=None,
        distance="euclidean",
        seed=None,
        **kwargs,
    ):
        settings = {
            "margin": margin,
            "angle": angle,
            "cutoff": cutoff,
            "nonzero_loss_cutoff": nonzero_loss_cutoff,
        }
        super().__init__(strategy, settings, distance, seed, **kwargs)
        self.needs_among = "angular" in self.strategies
        if margin is not None:
            check_number("margin", margin, above=0)
        if angle is not None:
            check_number("angle", angle, above=0, at_most=90)
        if "distance-weighted" in self.strategies:
            nearest, farthest = self.settings("distance-weighted").values()
            check_number("cutoff", nearest, above=0)
            check_number("nonzero_loss_cutoff", farthest, above=nearest)

    def edges(self, name):
        """The edges of the band of a strategy of every triplet; None if it has none."""
        edges = every_triplet_rules.EDGES.get(name)
        return None if edges is None else edges(**self.settings(name))

    def inside(self, name, metric):
        """Which negatives a strategy of every triplet counts; see `every_triplet_rules.chooser`."""
        return every_triplet_rules.chooser(name, metric, self.settings(name))

    def picker(self, name, distance, pairs, noise, dim, metric):
        """The negatives of a strategy of `PER_PAIR`; see `triplet_rules.semi_hard`."""
        if name == "distance-weighted":
            distance = _to_euclidean(distance, metric)
        rule = triplet_rules.PER_PAIR[name]
        return rule(distance, pairs, noise, dim=dim, **self.settings(name))

    def masks(self, distance, pairs, dim=None, metric=None, among=None):
        """Boolean matrices (rows, columns) of the pairs that occur in a chosen triplet.

        Args:
            distance: (rows, columns), of the loss; no gradient passes through the choice.
            pairs: `Pairs` of the same size.
            dim: length of an embedding.
            metric: name of the metric of `distance`.
            among: distances of the columns to each other, if `needs_among`.
        """
        distance = ops.stop_gradient(distance)
        noise = self.noise(*ops.shape(distance))

        def masks(name):
            if name in every_triplet_rules.EVERY:
                return _pairs_in_every(self.inside(name, metric), distance, pairs, among)
            listed = self._listed(name, distance, pairs, noise, dim, metric)
            return _pairs_in_listed(*listed, pairs)

        return self.choose(masks)

    def _listed(self, name, distance, pairs, noise, dim, metric):
        """The chosen triplets as the two matrices that `call` returns."""
        columns = pairs.columns
        if name in triplet_rules.PER_ANCHOR:
            positive, negative, exists = triplet_rules.PER_ANCHOR[name](distance, pairs, noise)
            chosen = ops.logical_and(ops.equal(columns, positive[:, None]), exists[:, None])
            return ops.where(chosen, negative[:, None], 0), ops.cast(chosen, distance.dtype)
        pick = self.picker(name, distance, pairs, noise, dim, metric)

        def step(rank, column, exists, table, weight):
            negative, found = pick(rank, at(distance, column))
            here = ops.equal(columns, column[:, None])
            here = ops.logical_and(here, ops.logical_and(exists, found)[:, None])
            return ops.where(here, negative[:, None], table), ops.where(here, 1.0, weight)

        empty = ops.zeros_like(distance)
        return pairs.for_each_positive(step, (ops.cast(empty, "int32"), empty))

    def call(self, embeddings, labels):
        embeddings = as_tensor("embeddings", embeddings)
        check_matrix("embeddings", embeddings)
        never_listed = [name for name in self.strategies if name in every_triplet_rules.EVERY]
        if never_listed:
            raise ValueError(
                f"The strategy {never_listed[0]!r} takes every triplet of a kind: a loss sums them "
                "in closed form, without a list. Pass the miner to a loss, "
                "TripletLoss(mining=miner), or call a miner with another strategy."
            )
        distance = ops.stop_gradient(distances.pairwise(embeddings, metric=self.distance))
        ids = class_ids(labels)
        check_one_label_each(ids, embeddings)
        pairs = class_pairs.from_labels(ids)
        noise = self.noise(*ops.shape(distance))
        dim = embeddings.shape[1]
        negative, weight = self.choose(
            lambda name: self._listed(name, distance, pairs, noise, dim, self.distance)
        )
        return negative, nan_if_invalid(weight, labels)


def _pairs_in_listed(table, weight, pairs):
    """Positives and negatives of the triplets in the matrices of `_listed`, as two masks."""

    def step(rank, column, exists, negative):
        there = ops.logical_and(exists, at(weight, column) > 0)[:, None]
        here = ops.equal(pairs.columns, at(table, column)[:, None])
        return (ops.logical_or(negative, ops.logical_and(here, there)),)

    (negative,) = pairs.for_each_positive(step, (weight < 0,))
    return weight > 0, negative


def _pairs_in_every(inside, distance, pairs, among):
    """Positives and negatives of every triplet that `inside` counts."""
    positive, negative = pairs.positive, pairs.negative
    if inside is None:
        both = pairs.has_both[:, None]
        return ops.logical_and(positive, both), ops.logical_and(negative, both)
    others = ops.where(negative, distance, MASKED_DISTANCE)

    def step(rank, column, exists, positives, negatives):
        near = at(distance, column)[:, None]
        beyond = None if among is None else ops.take(among, column, axis=0)
        counts = ops.logical_and(inside(near, others, beyond), exists[:, None])
        counts = ops.logical_and(counts, negative)
        here = ops.equal(pairs.columns, column[:, None])
        here = ops.logical_and(here, ops.any(counts, axis=1, keepdims=True))
        return ops.logical_or(positives, here), ops.logical_or(negatives, counts)

    nothing = ops.zeros_like(positive)
    return pairs.for_each_positive(step, (nothing, nothing))
