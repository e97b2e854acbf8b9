"""PCA whitening: no direction of the space outweighs another."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.evaluation._inputs import as_embeddings


def pca_whitening(embeddings, dim=None):
    """Fit a whitening on training embeddings, to be applied to queries and gallery.

    Reach for it for embeddings of a pretrained network, where a few directions carry what all
    items share, or to make them shorter. With the mean m, the principal axes P and the standard
    deviations s along them:

        y = unit(P (x - m) / s)

    Args:
        embeddings: Array `(items, dim)` of the training set, finite; better not of the test set.
        dim: Integer, the axes to keep, those of the largest variance; None (default) for all in
            which the items vary: less than `dim` of few items, or with constant features.

    Returns:
        A fitted `sklearn.pipeline.Pipeline` of `PCA(whiten=True)` and `Normalizer`: its method
        `transform` takes `(rows, dim)` and gives rows of length 1.

    Raises:
        ValueError: NaN or infinity, items that are all equal or vary by less than 1e-12, or more
            axes than those in which the items vary.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import pca_whitening
        >>> rng = np.random.default_rng(0)
        >>> train, test = (rng.normal(size=(50, 4)) * [9, 3, 1, 1] for _ in range(2))
        >>> pca_whitening(train, dim=3).transform(test).shape
        (50, 3)

    Reference:
        Jegou, Chum (2012), Negative Evidences and Co-occurences in Image Retrieval.
    """
    # Late: it takes a second, and most evaluations do without.
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    embeddings = as_embeddings("embeddings", embeddings)
    if dim is not None:
        check_count("dim", dim)
        if dim > min(embeddings.shape):
            raise ValueError(
                f"`dim` must be at most {min(embeddings.shape)}, the smaller of items and width. "
                f"Received: dim={dim}, embeddings.shape={embeddings.shape}"
            )
    if len(embeddings) < 2:
        raise ValueError(
            "`embeddings` must hold two items or more: one has no directions. Received: "
            f"embeddings.shape={embeddings.shape}"
        )
    precision = np.finfo(embeddings.dtype).eps
    embeddings = embeddings.astype("float64")
    with np.errstate(over="ignore"):
        spread = np.ptp(embeddings, axis=0).max()
    # scikit-learn divides by 2e-16 at least, and the squares of huge numbers would overflow.
    if spread and not 1e-12 < spread < 1e140:
        raise ValueError(
            "`embeddings` must vary by more than 1e-12 and less than 1e140. Received: embeddings "
            f"that vary by {spread:.3g}. Scale them, and what is transformed, by one factor."
        )

    def fitted(axes):
        # Always the exact solution; by itself scikit-learn would approximate that of large sets.
        pipeline = make_pipeline(PCA(axes, whiten=True, svd_solver="full"), Normalizer())
        # Items that are all equal have no variance to take shares of.
        with np.errstate(invalid="ignore"):
            return pipeline.fit(embeddings)

    pipeline = fitted(dim)
    # Along the others there is nothing but rounding: divided by it, a new item would be that alone.
    sizes = pipeline[0].singular_values_
    of_digits = np.abs(embeddings).max() * np.sqrt(embeddings.shape).sum()
    rank = int((sizes > precision * max(of_digits, 32 * sizes[0])).sum())
    if not rank:
        raise ValueError("`embeddings` must differ. Received: items that are all equal")
    if rank < (dim or 1):
        raise ValueError(
            f"`dim` must be at most {rank}, the directions in which the items vary. Received: "
            f"dim={dim}, embeddings.shape={embeddings.shape}"
        )
    return pipeline if rank == len(sizes) else fitted(rank)
