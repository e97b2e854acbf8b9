"""Query expansion: a query moves towards what it finds."""

import numpy as np

from keras_metric._validation import check_count, check_number
from keras_metric.evaluation._distances import Geometry, key_distances, key_index, unit_rows
from keras_metric.evaluation._inputs import as_embeddings, as_gallery_embeddings
from keras_metric.evaluation._neighbors import key_blocks, nearest_keys


def query_expansion(embeddings, gallery_embeddings=None, k=10, alpha=3.0, progress=None):
    """Replace each embedding by a weighted mean of itself and its nearest neighbours.

    Reach for it after training, to gain recall without any: neighbours that are right pull the
    query into the middle of its class. With vectors scaled to length 1 and x_1 .. x_k the k
    nearest of the gallery:

        q' = unit(q + sum over i of max(cos(q, x_i), 0)**alpha * x_i)

    Without a gallery every item is expanded by its nearest others: database-side augmentation.
    Expand queries and gallery both for the strongest form.

    Conventions elsewhere: `alpha=0` is the average query expansion of Chum et al.; papers on
    landmarks take `alpha=3` and k of 10 to 50. A query that is itself among the gallery would
    count twice.

    Args:
        embeddings: Array `(queries, dim)`, finite.
        gallery_embeddings: Array `(items, dim)`, or None.
        k: Integer of at least 1: neighbours; of fewer items all count.
        alpha: Number of at least 0; the larger, the less far neighbours weigh.
        progress: Bar on the standard error: None (default) on a terminal after two seconds, True
            always, False never.

    Returns:
        Float32 array `(queries, dim)` of rows of length 1 (zero vectors stay zero).

    Raises:
        ValueError: NaN or infinity, or widths that differ.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation.postprocessing import query_expansion
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
    alone = gallery_embeddings is None
    gallery = queries
    if not alone:
        gallery = unit_rows(as_gallery_embeddings(gallery_embeddings, queries.shape))
    k = min(k, len(gallery) - alone)
    expanded = queries.astype("float32")
    if k == 0 or len(queries) == 0:
        return expanded
    geometry = Geometry(queries, gallery, "cosine")
    for rows, keys in key_blocks(geometry, "expansion", progress):
        keys = nearest_keys(keys, rows, k, without_self=alone)
        weights = np.maximum(1.0 - geometry.in_units(key_distances(keys)), 0.0) ** alpha
        # One neighbour of every query at a time: all at once would need k copies.
        total = queries[rows].astype("float64")
        for weight, index in zip(weights.T, key_index(keys).T, strict=True):
            total += weight[:, None] * gallery[index]
        expanded[rows] = unit_rows(total)
    return expanded
