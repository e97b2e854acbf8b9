"""ManifoldLoss: items keep to their proxy along the manifold that the batch lies on."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_count, check_number, check_seed
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.pairwise.anchor_rows import whole_batch

META_CLASSES = ("random", "labels")


class ManifoldProxies(keras.layers.Layer):
    """The vectors of `number` proxies, and the generator that deals them out to items."""

    def __init__(self, number, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.number = number
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        self.vectors = self.add_weight(
            (self.number, input_shape[-1]),
            keras.initializers.RandomNormal(stddev=1.0),
            name="vectors",
        )

    def dealt(self, size):
        """A proxy for each of `size` items, (size,): at random, all equally often."""
        place = keras.random.shuffle(ops.arange(size, dtype="int32"), seed=self.seed_generator)
        return place % self.number


def manifold_similarity(vectors, alpha):
    """Where random walks from each of `vectors` (nodes, dim) end up: (nodes, nodes), symmetric.

    A walk steps to a neighbour by the share of its weight exp(2 * max(cos, 0)), and ends at
    each node with the chance 1 - alpha.
    """
    unit = distances.unit(vectors)
    weight = ops.exp(2 * ops.relu(ops.matmul(unit, ops.transpose(unit))))
    identity = ops.eye(ops.shape(vectors)[0], dtype=weight.dtype)
    weight = weight * (1 - identity)
    # A single node has no neighbour; its degree would be 0.
    root = ops.rsqrt(ops.maximum(ops.sum(weight, axis=1), 1e-6))
    steps = weight * root[:, None] * root[None, :]
    return (1 - alpha) * ops.inv(identity - alpha * steps)


def margin_rows(similarity, own, margin):
    """log(1 + sum of exp(s_k - s_own + margin)) over the proxies k that come within the margin."""
    mine = ops.sum(ops.where(own, similarity, 0), axis=1, keepdims=True)
    gap = similarity - mine + margin
    counts = ops.logical_and(gap >= 0, ops.logical_not(own))
    return ops.log1p(ops.sum(ops.where(counts, ops.exp(gap), 0), axis=1))


@export
class ManifoldLoss(MetricLoss):
    """Pulls each item to one of a few learned proxies, near and far measured by random walks.

    Reach for it with few or no labels: similarity is read off the batch itself, as the paths
    that lead from item to item, and by default proxies are dealt out to items at random, anew in
    each batch. Embeddings have shape (batch, dim); `fit(x)` goes without y. `EmbeddingModel`
    trains and saves the proxies.

        S_ij = exp(2 * max(cos(x_i, x_j), 0)), S_ii = 0, over items and proxies together
        F    = (1 - alpha) * (I - alpha * D^-1/2 S D^-1/2)^-1,   D the row sums of S
        loss = mean over items i of  L(F_ik) + context_weight * L(cos(F_i, F_k))
        L(s_k) = log(1 + sum over proxies k with s_k > s_m - margin of exp(s_k - s_m + margin))

    with m the proxy of item i, and F_i a row of F: first how much of a walk from the item ends
    at each proxy, then how alike all the walks from the two are.

    Args:
        embedding_dim: length of an embedding. Default None: the proxies get it from the model.
        num_proxies: number of proxies. Default 50. In a batch of fewer items some have none.
        context_weight: weight of the second part, at least 0. Default 1.
        alpha: chance of a walk to go on, between 0 and 1. Default 0.8.
        margin: by how much the own proxy has to be nearer. Default 5e-4.
        meta_classes: which proxy an item gets. "random" (default, as in
            pytorch-metric-learning): each proxy to as many items as any other, give or take
            one. "labels": the one with the number y modulo num_proxies, so that classes share proxies where
            there are more than num_proxies, as in the paper.
        seed: integer, or None (default) to draw one, for meta_classes="random".
        name: name of the loss.
        dtype: dtype of the result. It is computed in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for an unknown name, a number out of range, or outside an `EmbeddingModel` as
            long as `embedding_dim` is not given.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric
    >>> keras.utils.set_random_seed(0)
    >>> x, y = np.random.default_rng(0).normal(size=(32, 8)), np.arange(32) % 4
    >>> loss = keras_metric.losses.ManifoldLoss(num_proxies=4, meta_classes="labels")
    >>> model = keras_metric.EmbeddingModel(keras.layers.Dense(16), embedding_dim=4)
    >>> model.compile(keras.optimizers.Adam(1e-2), loss=loss)
    >>> history = model.fit(x, y, epochs=3, verbose=0)

    Reference:
        Aziere and Todorovic, "Ensemble Deep Manifold Similarity Learning Using Hard Proxies",
        2019, https://doi.org/10.1109/CVPR.2019.00747
    """

    is_one_number = True

    renamed_arguments = {"l": "embedding_dim", "K": "num_proxies", "lambdaC": "context_weight"}

    def __init__(
        self,
        embedding_dim=None,
        num_proxies=50,
        context_weight=1.0,
        alpha=0.8,
        margin=5e-4,
        meta_classes="random",
        seed=None,
        name="manifold_loss",
        dtype=None,
    ):
        super().__init__("sum_over_batch_size", name, dtype)
        check_count("num_proxies", num_proxies)
        check_number("context_weight", context_weight, at_least=0)
        check_number("alpha", alpha, above=0)
        if alpha >= 1:
            raise ValueError(f"`alpha` must be less than 1. Received: alpha={alpha!r}")
        check_number("margin", margin)
        check_choice("meta_classes", meta_classes, META_CLASSES)
        check_seed("seed", seed)
        if seed is not None and meta_classes == "labels":
            raise ValueError(
                '`seed` is for meta_classes="random": labels leave nothing to draw. Received: '
                f"meta_classes={meta_classes!r}, seed={seed!r}"
            )
        self.embedding_dim = embedding_dim
        self.num_proxies = num_proxies
        self.context_weight = context_weight
        self.alpha = alpha
        self.margin = margin
        self.meta_classes = meta_classes
        self.seed = seed
        self.label_free = meta_classes == "random"
        wide = distances.dtype_of_weights()
        self.proxies = ManifoldProxies(num_proxies, seed, dtype=wide, name="manifold_proxies")
        self.layers = (self.proxies,)
        if embedding_dim is not None:
            check_count("embedding_dim", embedding_dim)
            self.proxies.build((None, embedding_dim))

    def batch_parts(self, reports, labels, embeddings, references=None, reference_labels=None):
        if references is not None:
            raise ValueError(
                "ManifoldLoss takes no reference set: its proxies are what items are compared "
                "with, and walks lead through the batch itself."
            )
        size = ops.shape(embeddings)[0]
        meta = (
            labels % self.num_proxies if self.meta_classes == "labels" else self.proxies.dealt(size)
        )
        own = ops.equal(
            ops.cast(meta, "int32")[:, None], ops.arange(self.num_proxies, dtype="int32")[None]
        )
        proxies = ops.cast(self.proxies.vectors, embeddings.dtype)
        vectors = ops.concatenate([embeddings, proxies])
        # TensorFlow stops at a matrix of NaN; here NaN shall come out.
        finite = ops.isfinite(vectors)
        walks = manifold_similarity(ops.where(finite, vectors, 0), self.alpha)
        # How much of a walk from an item ends at a proxy, and how alike all their walks are.
        items, ends = distances.unit(walks[:size]), distances.unit(walks[size:])
        context = ops.matmul(items, ops.transpose(ends))
        rows = margin_rows(walks[:size, size:], own, self.margin)
        rows = rows + self.context_weight * margin_rows(context, own, self.margin)
        value = ops.where(ops.all(finite), ops.mean(rows), float("nan"))
        return whole_batch(value, size)
