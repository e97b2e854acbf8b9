"""TripletMiner: the choice of triplets, as a layer with a schedule and a seed."""

import keras
from keras import ops

from keras_metric import distances, mining, pairs
from keras_metric._checks import check_choice, check_matrix, check_number, class_ids
from keras_metric._export import export

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
class TripletMiner(keras.layers.Layer):
    """Chooses the triplets of a labelled batch that a loss learns from.

    Use a name (`TripletLoss(mining="hard")`) where one rule serves for the whole training. Use
    this layer where the rule changes while training (`callbacks.MiningSchedule`), needs a seed
    or a band, or to look at the choice itself.

    | strategy | triplets |
    | --- | --- |
    | `all` | every one |
    | `semi-hard` | each (a, p) with the nearest negative beyond p, else the farthest negative |
    | `semi-hard-all` | every one with d_ap < d_an < d_ap + margin |
    | `semi-hard-random` | each (a, p) with one random negative of that band |
    | `hard` | each anchor's farthest positive and nearest negative |
    | `soft-hard` | a random hard positive (beyond the nearest negative) and hard negative |
    | `easy-positive` | each anchor's nearest positive and the nearest negative beyond it |
    | `random` | each (a, p) with one random negative |
    | `distance-weighted` | each (a, p) with a negative drawn evenly over the distances |

    Args:
        strategy: a name of the table, or a tuple of names to switch between with `use`; the
            first is in force at the start. "semi-hard" by default, as in FaceNet.
        margin: width of the bands of "semi-hard-all" and "semi-hard-random", in units of the
            distance. Default 0.2, the margin of FaceNet.
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
        ValueError: for an unknown strategy, or when called with "all" or "semi-hard-all",
            which are sums that a loss takes in closed form and never a list.

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

    def __init__(self, strategy="semi-hard", margin=0.2, distance="euclidean", seed=None, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.strategies = (strategy,) if isinstance(strategy, str) else tuple(strategy)
        for name in self.strategies:
            check_choice("strategy", name, mining.STRATEGIES)
        if not self.strategies:
            raise ValueError(f"`strategy` must name at least one rule. Received: {strategy!r}")
        check_number("margin", margin, above=0)
        check_choice("distance", distance, distances.METRICS)
        self.strategy = strategy
        self.margin = margin
        self.distance = distance
        self.seed = seed
        draws = any(name in mining.RANDOM for name in self.strategies)
        self.seed_generator = keras.random.SeedGenerator(seed) if draws else None
        self.stage = None
        if len(self.strategies) > 1:
            # A variable, since a Python attribute is frozen into the compiled step.
            self.stage = self.add_weight(
                name="stage", shape=(), dtype="int32", initializer="zeros", trainable=False
            )
        self.built = True

    def use(self, name):
        """Put the strategy `name` in force; it must be one of `strategies`."""
        check_choice("name", name, self.strategies)
        if self.stage is not None:
            self.stage.assign(self.strategies.index(name))

    def choose(self, compute):
        """Return `compute(name)` of the strategy in force, decided inside the graph."""
        if self.stage is None:
            return compute(self.strategies[0])
        branches = [lambda name=name: compute(name) for name in self.strategies]
        return ops.switch(ops.convert_to_tensor(self.stage), branches)

    def noise(self, rows, columns):
        """What the strategies draw with, (rows, columns); None if none of them draws."""
        if self.seed_generator is None:
            return None
        return mining.draw_noise(rows, columns, self.seed_generator)

    def picker(self, name, distance, partners, noise, dim, metric):
        """The chooser of the per-pair strategy `name`, see `keras_metric.mining`."""
        if name == "distance-weighted":
            distance = _to_euclidean(distance, metric)
        return mining.PER_PAIR[name](distance, partners, noise, dim=dim, margin=self.margin)

    def call(self, embeddings, labels):
        embeddings = ops.convert_to_tensor(embeddings)
        check_matrix("embeddings", embeddings)
        never_listed = [name for name in self.strategies if name in mining.EVERY]
        if never_listed:
            raise ValueError(
                f"The strategy {never_listed[0]!r} takes every triplet: a loss sums them in "
                "closed form, no list of them is made. Give the miner to a loss, "
                "TripletLoss(mining=miner), or call a miner of another strategy."
            )
        distance = ops.stop_gradient(distances.pairwise(embeddings, metric=self.distance))
        partners = pairs.from_labels(class_ids(labels))
        noise = self.noise(*ops.shape(distance))

        def matrices(name):
            weighed = distance
            if name == "distance-weighted":
                weighed = _to_euclidean(distance, self.distance)
            return mining.triplets(
                name, weighed, partners, noise, dim=embeddings.shape[1], margin=self.margin
            )

        return self.choose(matrices)

    def compute_output_shape(self, embeddings_shape, labels_shape=None):
        return ((embeddings_shape[0],) * 2,) * 2

    def get_config(self):
        return {
            **super().get_config(),
            "strategy": self.strategy,
            "margin": self.margin,
            "distance": self.distance,
            "seed": self.seed,
        }
