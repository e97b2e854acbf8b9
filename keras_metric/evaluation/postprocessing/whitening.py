"""PCA whitening: equal variance along every principal axis."""

import numpy as np

from keras_metric._validation import check_count
from keras_metric.evaluation._input_checks import as_embeddings


def pca_whitening(embeddings, dim=None):
    """Fit a whitening on training embeddings; apply it to queries and gallery.

    Use it for embeddings of a pretrained network, where a few directions that all items have in
    common dominate, or to reduce the dimension. With the mean m, the principal axes P and the
    standard deviations s along them:

        y = unit(P (x - m) / s)

    Args:
        embeddings: Array `(items, dim)` of the training set, not of the test set; finite.
        dim: Integer, the number of axes to keep, those of the largest variance; None (default) for
            all along which the items vary: fewer for few items, or with constant features.

    Returns:
        A fitted `sklearn.pipeline.Pipeline` of `PCA(whiten=True)` and `Normalizer`: its method
        `transform` takes `(rows, dim)` and returns rows of length 1.

    Raises:
        ValueError: NaN or infinity, items that are all equal or vary by less than 1e-12, or more
            axes than those along which the items vary.

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
    # Imported here because it takes a second, and most evaluations do not need it.
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
            "`embeddings` must hold at least two items: one item has no directions. Received: "
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
            f"that vary by {spread:.3g}. Scale them, and all transformed rows, by one factor."
        )

    def fitted(axes):
        # The exact solution; by default scikit-learn approximates it for large sets.
        pipeline = make_pipeline(PCA(axes, whiten=True, svd_solver="full"), Normalizer())
        # The explained variance ratio of items that are all equal is 0 / 0.
        with np.errstate(invalid="ignore"):
            return pipeline.fit(embeddings)

    pipeline = fitted(dim)
    # The other axes hold only rounding errors; division by them would dominate a new item.
    sizes = pipeline[0].singular_values_
    scale = np.abs(embeddings).max() * np.sqrt(embeddings.shape).sum()
    rank = int((sizes > precision * max(scale, 32 * sizes[0])).sum())
    if not rank:
        raise ValueError("`embeddings` must differ. Received: items that are all equal")
    if rank < (dim or 1):
        raise ValueError(
            f"`dim` must be at most {rank}, the directions along which the items vary. Received: "
            f"dim={dim}, embeddings.shape={embeddings.shape}"
        )
    return pipeline if rank == len(sizes) else fitted(rank)
