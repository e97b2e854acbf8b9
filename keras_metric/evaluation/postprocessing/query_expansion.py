"""Query expansion: weighted means of queries and their nearest neighbours."""

import numpy as np

from keras_metric._validation import check_count, check_number
from keras_metric.evaluation._input_checks import as_embeddings, as_gallery_embeddings
from keras_metric.neighbors import nearest_items, unit_rows


def query_expansion(embeddings, gallery_embeddings=None, k=10, alpha=3.0, progress=None):
    """Replace each embedding by a weighted mean of itself and its nearest neighbours.

    It increases recall without training: correct neighbours move the query towards the centre of
    its class. With vectors scaled to length 1 and x_1 .. x_k the k nearest of the gallery:

        q' = unit(q + sum over i of max(cos(q, x_i), 0)**alpha * x_i)

    Without a gallery every item is expanded by its nearest others: database-side augmentation.
    The effect is strongest if both queries and gallery are expanded.

    Other conventions: `alpha=0` is the average query expansion of Chum et al.; papers on landmarks
    use `alpha=3` and k of 10 to 50. A query that is also in the gallery would count two times.

    Args:
        embeddings: Array `(queries, dim)`, finite.
        gallery_embeddings: Array `(items, dim)`, or None.
        k: Integer of at least 1: neighbours; all items if there are fewer.
        alpha: Number of at least 0; a larger one gives distant neighbours less weight.
        progress: Bar: True always, False never, None (default) on terminals after two seconds.

    Returns:
        Float32 array `(queries, dim)` of rows of length 1 (zero vectors stay zero).

    Raises:
        ValueError: NaN or infinity, or widths that differ.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import query_expansion
        >>> gallery = np.array([[1.0, 0.2], [1.0, 0.1], [0.0, 1.0]])
        >>> query_expansion([[1.0, 0.0]], gallery, k=2)
        array([[0.9952..., 0.0969...]], dtype=float32)

    Reference:
        Chum et al. (2007), Total Recall; Radenovic, Tolias, Chum (2018), Fine-tuning CNN Image
        Retrieval with No Human Annotation (alpha), https://arxiv.org/abs/1711.02512.
    """
    check_count("k", k)
    check_number("alpha", alpha, at_least=0)
    queries = unit_rows(as_embeddings("embeddings", embeddings))
    without_self = gallery_embeddings is None
    gallery = queries
    if not without_self:
        gallery = unit_rows(as_gallery_embeddings(gallery_embeddings, queries.shape))
    expanded = queries.astype("float32")
    if len(gallery) == without_self or len(queries) == 0:
        return expanded
    for rows, index, distances in nearest_items(
        *(queries, gallery, "cosine", k, "expansion", progress), without_self=without_self
    ):
        weights = np.maximum(1.0 - distances, 0.0) ** alpha
        # Add one neighbour of every query at a time: all at once would need k copies.
        total = queries[rows].astype("float64")
        for weight, item in zip(weights.T, index.T, strict=True):
            total += weight[:, None] * gallery[item]
        expanded[rows] = unit_rows(total)
    return expanded
