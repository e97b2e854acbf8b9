"""Manifold similarity loss."""

import keras
from keras import ops

from keras_metric import distances
from keras_metric._export import export
from keras_metric._validation import check_choice, check_count, check_number, check_seed
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.pairwise.anchor_rows import whole_batch

META_CLASSES = ("random", "labels")


class ManifoldProxies(keras.layers.Layer):
    """The vectors of `number` proxies, and the seed generator of their random assignment."""

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

    def assigned(self, size):
        """A random proxy for each of `size` items, (size,), all equally often."""
        order = keras.random.shuffle(ops.arange(size, dtype="int32"), seed=self.seed_generator)
        return order % self.number


def manifold_similarity(vectors, alpha):
    """Symmetric matrix (nodes, nodes): where random walks from each of `vectors` (nodes, dim) end.

    A walk moves to a neighbour with a probability proportional to the weight exp(2 * max(cos, 0)),
    and ends at each node with probability 1 - alpha.
    """
    unit = distances.unit(vectors)
    weight = ops.exp(2 * ops.relu(ops.matmul(unit, ops.transpose(unit))))
    identity = ops.eye(ops.shape(vectors)[0], dtype=weight.dtype)
    weight = weight * (1 - identity)
    # The degree of a single node is 0.
    root = ops.rsqrt(ops.maximum(ops.sum(weight, axis=1), 1e-6))
    steps = weight * root[:, None] * root[None, :]
    return (1 - alpha) * ops.inv(identity - alpha * steps)


def margin_rows(similarity, own, margin):
    """log(1 + sum of exp(s_k - s_own + margin)) over the proxies k with s_k > s_own - margin."""
    mine = ops.sum(ops.where(own, similarity, 0), axis=1, keepdims=True)
    gap = similarity - mine + margin
    counts = ops.logical_and(gap >= 0, ops.logical_not(own))
    return ops.log1p(ops.sum(ops.where(counts, ops.exp(gap), 0), axis=1))


@export
class ManifoldLoss(MetricLoss):
    """Manifold similarity: assigns items to learned proxies, with similarities from random walks.

    Use it with few or no labels. Similarity is computed on the graph of the batch. By default each
    item gets a random proxy in each batch. Embeddings have shape (batch, dim); `fit(x)` works
    without y. `EmbeddingModel` trains and saves the proxies.

        S_ij = exp(2 * max(cos(x_i, x_j), 0)), S_ii = 0, over items and proxies together
        F    = (1 - alpha) * (I - alpha * D^-1/2 S D^-1/2)^-1,   D the row sums of S
        loss = mean over items i of  L(F_ik) + context_weight * L(cos(F_i, F_k))
        L(s_k) = log(1 + sum over proxies k with s_k > s_m - margin of exp(s_k - s_m + margin))

    with m the proxy of item i, and F_i row i of F. The first part compares the probabilities that a
    random walk from the item ends at each proxy; the second part (the context) compares the whole
    distributions of the walks from the item and from each proxy.

    Args:
        embedding_dim: dimension of the embeddings. Default None: `EmbeddingModel` sets it.
        num_proxies: number of proxies. Default 50. In a smaller batch some proxies have no item.
        context_weight: weight of the second part, at least 0. Default 1.
        alpha: probability that a walk continues, above 0 and below 1. Default 0.8.
        margin: similarity by which the item's proxy must exceed the others. Default 5e-4.
        meta_classes: proxy of each item. "random" (default, as in pytorch-metric-learning): a
            random assignment in which the counts of two proxies differ by at most 1. "labels":
            proxy y modulo `num_proxies`, as in the paper; several classes then share a proxy where
            there are more than `num_proxies`.
        seed: integer, or None (default) for a random seed; for meta_classes="random" only.
        name: name of the loss.
        dtype: dtype of the result; computed in float32 or wider.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for an unknown name, a number out of range, or a call outside an
            `EmbeddingModel` with `embedding_dim=None`.

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
        self.num_proxies = check_count("num_proxies", num_proxies)
        self.context_weight = check_number("context_weight", context_weight, at_least=0)
        self.alpha = check_number("alpha", alpha, above=0)
        if alpha >= 1:
            raise ValueError(f"`alpha` must be less than 1. Received: alpha={alpha!r}")
        self.margin = check_number("margin", margin)
        self.meta_classes = check_choice("meta_classes", meta_classes, META_CLASSES)
        check_seed("seed", seed)
        if seed is not None and meta_classes == "labels":
            raise ValueError(
                '`seed` requires meta_classes="random": labels need no random numbers. Received: '
                f"meta_classes={meta_classes!r}, seed={seed!r}"
            )
        self.embedding_dim = embedding_dim
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
                "ManifoldLoss takes no reference set: it compares the items of a batch with its "
                "proxies. Call the loss with labels and embeddings."
            )
        size = ops.shape(embeddings)[0]
        number, by_labels = self.num_proxies, self.meta_classes == "labels"
        meta = labels % number if by_labels else self.proxies.assigned(size)
        own = ops.equal(ops.cast(meta, "int32")[:, None], ops.arange(number, dtype="int32")[None])
        proxies = ops.cast(self.proxies.vectors, embeddings.dtype)
        vectors = ops.concatenate([embeddings, proxies])
        # TensorFlow raises for a matrix of NaN; the loss returns NaN.
        finite = ops.isfinite(vectors)
        walks = manifold_similarity(ops.where(finite, vectors, 0), self.alpha)
        items, ends = distances.unit(walks[:size]), distances.unit(walks[size:])
        context = ops.matmul(items, ops.transpose(ends))
        rows = margin_rows(walks[:size, size:], own, self.margin)
        rows = rows + self.context_weight * margin_rows(context, own, self.margin)
        value = ops.where(ops.all(finite), ops.mean(rows), float("nan"))
        return whole_batch(value, size)
