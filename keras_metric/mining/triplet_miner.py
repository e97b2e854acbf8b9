"""TripletMiner: the choice of triplets, as a layer with a schedule and a seed."""

from keras import ops

from keras_metric import distances, mining
from keras_metric._export import export
from keras_metric._validation import (
    as_tensor,
    check_matrix,
    check_number,
    check_one_label_each,
    class_ids,
    nan_if_invalid,
)
from keras_metric.mining.miner import Miner
from keras_metric.pairwise import class_pairs

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
            'mining="distance-weighted" draws by Euclidean distance on the unit sphere: '
            f"`distance` must be one of {sorted(_TO_EUCLIDEAN)}. Received: distance={metric!r}"
        )
    return _TO_EUCLIDEAN[metric](distance)


@export
class TripletMiner(Miner):
    """Chooses the triplets of a labelled batch that a loss learns from.

    Use a name (`TripletLoss(mining="hard")`) where one rule serves for the whole training. Use
    this layer where the rule changes while training (`callbacks.MiningSchedule`), needs a seed
    or a setting, or to look at the choice itself. A loss on pairs takes it too: the pairs that
    occur in its triplets, each once.

    | strategy | triplets |
    | --- | --- |
    | `all` | every one |
    | `semi-hard` | each (a, p) with the nearest negative beyond p, else the farthest negative |
    | `semi-hard-all` | every one with d_ap < d_an < d_ap + margin |
    | `semi-hard-random` | each (a, p) with one random negative of that band |
    | `hard-all` | every one with d_an <= d_ap |
    | `easy-all` | every one with d_an >= d_ap + margin, for losses that are not 0 there |
    | `angular` | every one with d_ap > 2 tan(angle) d_nc, where c is the middle of a and p |
    | `hard` | each anchor's farthest positive and nearest negative |
    | `soft-hard` | a random hard positive (beyond the nearest negative) and hard negative |
    | `easy-positive` | each anchor's nearest positive and the nearest negative beyond it |
    | `random` | each (a, p) with one random negative |
    | `distance-weighted` | each (a, p) with a negative drawn evenly over the distances |

    Args:
        strategy: a name of the table, or a tuple of names to switch between with `use`; the
            first is in force at the start. "semi-hard" by default, as in FaceNet.
        margin: of "semi-hard-all", "semi-hard-random" and "easy-all", in units of the distance.
            Default 0.2, the margin of FaceNet; the name of a strategy in a loss takes the loss's.
        angle: of "angular": the least angle at n, in degrees. Default 20. Distances must be
            Euclidean, or those of cosines.
        cutoff: of "distance-weighted": negatives nearer than this Euclidean distance are drawn
            as rarely as at it, which keeps the variance low. Default 0.5.
        nonzero_loss_cutoff: of "distance-weighted": the Euclidean distance from which negatives
            are never drawn. Default 1.4, about that of unrelated vectors.
        distance: metric of `__call__`, "euclidean" by default. Inside a loss the loss's own
            distances count.
        seed: integer, for the strategies that draw. Their state is not saved with a model, as
            with every random layer of Keras.

    Call arguments:
        embeddings: `(batch, dim)`.
        labels: integer ids `(batch,)`.

    Returns:
        `(negative, weight)`, both `(batch, batch)`: for anchor row i and positive column j the
        column of the negative (int32) and 1.0 where this triplet is chosen, else 0.0.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown strategy, a number out of range, or a setting that none of the
            strategies reads; and when called with "angular" or one that ends in "all", which are
            sums that a loss takes in closed form and never a list.

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

    known = mining.SETTINGS

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
        if margin is not None:
            check_number("margin", margin, above=0)
        if angle is not None:
            check_number("angle", angle, above=0, at_most=90)
        if "distance-weighted" in self.strategies:
            nearest, farthest = self.settings("distance-weighted").values()
            check_number("cutoff", nearest, above=0)
            check_number("nonzero_loss_cutoff", farthest, above=nearest)

    @property
    def needs_among(self):
        """Whether a strategy reads the distances of the references among themselves."""
        return "angular" in self.strategies

    def edges(self, name):
        """The edges of `mining.bands` that a strategy of every triplet has, None if it has none."""
        edges = mining.bands.EDGES.get(name)
        return None if edges is None else edges(**self.settings(name))

    def inside(self, name, metric):
        """Which negatives a strategy of every triplet counts, see `mining.bands.chooser`."""
        return mining.bands.chooser(name, metric, self.settings(name))

    def picker(self, name, distance, partners, noise, dim, metric):
        """The chooser of the per-pair strategy `name`, see `keras_metric.mining`."""
        if name == "distance-weighted":
            distance = _to_euclidean(distance, metric)
        return mining.PER_PAIR[name](distance, partners, noise, dim=dim, **self.settings(name))

    def masks(self, distance, partners, dim=None, metric=None, among=None):
        """Boolean matrices (rows, columns) of the pairs that occur in a chosen triplet.

        A loss on pairs asks for them. Its `distance` carry no gradient here; `among` are those of
        the columns among themselves, if `needs_among`; `dim` and `metric` are those of the
        embeddings and the distances.
        """
        distance = ops.stop_gradient(distance)
        noise = self.noise(*ops.shape(distance))

        def masks(name):
            if name in mining.EVERY:
                inside = self.inside(name, metric)
                return mining.pairs_in_triplets.in_every(inside, distance, partners, among)
            listed = self._listed(name, distance, partners, noise, dim, metric)
            return mining.pairs_in_triplets.in_listed(*listed, partners)

        return self.choose(masks)

    def _listed(self, name, distance, partners, noise, dim, metric):
        if name == "distance-weighted":
            distance = _to_euclidean(distance, metric)
        return mining.triplets(name, distance, partners, noise, dim=dim, **self.settings(name))

    def call(self, embeddings, labels):
        embeddings = as_tensor("embeddings", embeddings)
        check_matrix("embeddings", embeddings)
        never_listed = [name for name in self.strategies if name in mining.EVERY]
        if never_listed:
            raise ValueError(
                f"The strategy {never_listed[0]!r} takes every triplet of a kind: a loss sums them "
                "in closed form, no list of them is made. Give the miner to a loss, "
                "TripletLoss(mining=miner), or call a miner of another strategy."
            )
        distance = ops.stop_gradient(distances.pairwise(embeddings, metric=self.distance))
        ids = class_ids(labels)
        check_one_label_each(ids, embeddings)
        partners = class_pairs.from_labels(ids)
        noise = self.noise(*ops.shape(distance))
        dim = embeddings.shape[1]
        negative, weight = self.choose(
            lambda name: self._listed(name, distance, partners, noise, dim, self.distance)
        )
        return negative, nan_if_invalid(weight, labels)
