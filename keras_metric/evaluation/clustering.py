"""Clustering metrics: agreement of k-means clusters with the labels."""

import warnings

import numpy as np

from keras_metric._validation import check_choice, check_count, check_flag, shown
from keras_metric.evaluation._input_checks import as_codes, as_embeddings, as_labels
from keras_metric.neighbors import exponent_of


def clustering_metrics(
    embeddings, labels, num_clusters=None, engine="scikit-learn", silhouette=False, seed=0
):
    """Cluster the embeddings by k-means and compare the clusters with the labels.

    Papers on CUB-200-2011, Cars-196 and Stanford Online Products report these numbers together
    with recall. With entropies H and mutual information I of the two partitions:

    | key | |
    |---|---|
    | `nmi` | I / ((H(clusters) + H(labels)) / 2), 0 to 1 |
    | `ami` | the same, with the I of random clusters subtracted above and below; at most 1 |
    | `f1` | 2 P R / (P + R) over pairs of items |
    | `silhouette` | mean over items of (b - a) / max(a, b) |
    | `num_clusters`, `num_items` | |

    P is the fraction of the pairs in one cluster that have one label, R the fraction of the pairs
    with one label that are in one cluster; a is the mean distance of an item to the others of its
    label, b to those of the nearest other label.

    NMI increases with the number of clusters even for random clusters, AMI does not: use AMI with
    thousands of classes.

    Other conventions: `nmi` and `ami` are scikit-learn's and pytorch-metric-learning's `NMI` and
    `AMI` of the same clusters (arithmetic mean of the entropies); older papers divide by the
    geometric mean. `f1` is that of Song et al. (2016). The clusters depend on the initialization of
    k-means: `pytorch-metric-learning` uses FAISS with 20 iterations from random points, as
    `engine="faiss"` does.

    Args:
        embeddings: Array `(items, dim)`, finite. k-means uses Euclidean distance.
        labels: Array `(items,)`, of any kind.
        num_clusters: Integer; None (default) for the number of labels that occur.
        engine: `"scikit-learn"` (default: k-means++, up to 100 iterations), or `"faiss"` (20
            iterations from random points; faster for thousands of clusters; needs `faiss-cpu`).
        silhouette: True adds the silhouette of the labels, computed from all pairs in blocks.
        seed: Integer for the initialization, below 2**32; below 2**31 for FAISS.

    Returns:
        Dict of floats, as in the table; `silhouette` only on request, NaN if there is one label
        or every item has a label of its own.

    Raises:
        ValueError: NaN or infinity, mismatched shapes, or more clusters than items.
        ImportError: `engine="faiss"` without FAISS.

    Example:
        >>> import numpy as np
        >>> from keras_metric.evaluation import clustering_metrics
        >>> points = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
        >>> result = clustering_metrics(points, ["a", "a", "b", "b", "b", "c"])
        >>> round(result["nmi"], 3), round(result["f1"], 3)
        (0.74, 0.571)

    Reference:
        Manning, Raghavan, Schutze (2008), Introduction to Information Retrieval, 16.3; Vinh,
        Epps, Bailey (2010), Information Theoretic Measures for Clusterings Comparison (AMI);
        Song, Xiang, Jegelka, Savarese (2016), Deep Metric Learning via Lifted Structured Feature
        Embedding; Rousseeuw (1987), Silhouettes.
    """
    check_choice("engine", engine, ("faiss", "scikit-learn"))
    check_flag("silhouette", silhouette)
    check_count("seed", seed, at_least=0)
    limit = 2 ** {"faiss": 31, "scikit-learn": 32}[engine]
    if seed >= limit:
        raise ValueError(
            f"`seed` must be below {limit} for engine={engine!r}. Received: seed={shown(seed)}"
        )
    embeddings = as_embeddings("embeddings", embeddings)
    codes = as_codes(as_labels("labels", labels, len(embeddings)))[0]
    if len(codes) == 0:
        raise ValueError("Clusters need at least one item. Received: len(embeddings)=0")
    num_labels = int(codes.max()) + 1
    if num_clusters is None:
        num_clusters = num_labels
    check_count("num_clusters", num_clusters)
    if num_clusters > len(codes):
        raise ValueError(
            "There must be at least as many items as clusters. Received: "
            f"num_clusters={num_clusters}, {len(codes)} items."
        )
    # A power of two changes no cluster. FAISS aborts the process if a square is infinite.
    embeddings = np.ldexp(embeddings, -exponent_of(embeddings))
    find = {"faiss": _faiss_clusters, "scikit-learn": _clusters}[engine]
    result = compare_partitions(codes, find(embeddings, num_clusters, seed))
    if silhouette:
        result["silhouette"] = float("nan")
        if 1 < num_labels < len(codes):
            from sklearn.metrics import silhouette_score

            result["silhouette"] = float(silhouette_score(embeddings, codes))
    return {**result, "num_clusters": float(num_clusters), "num_items": float(len(codes))}


def compare_partitions(codes, clusters):
    """Return NMI, AMI and F1 of `clusters` against the class numbers `codes`, both `(items,)`."""
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import pair_confusion_matrix

    (_, false), (missed, both) = pair_confusion_matrix(codes, clusters).tolist()
    within = 2 * both + false + missed
    return {
        "nmi": float(normalized_mutual_info_score(codes, clusters)),
        "ami": float(adjusted_mutual_info_score(codes, clusters)),
        # No pair anywhere: the two partitions are equal.
        "f1": 2.0 * both / within if within else 1.0,
    }


def _clusters(embeddings, num_clusters, seed):
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    # With copies there can be fewer different points than clusters; empty clusters are correct.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(num_clusters, n_init=1, max_iter=100, random_state=seed)
        return model.fit_predict(embeddings)


def _faiss_clusters(embeddings, num_clusters, seed):
    import faiss

    # Float32 has too few digits for a large offset. scikit-learn subtracts the mean as well.
    embeddings = np.ascontiguousarray(embeddings - embeddings.mean(axis=0), "float32")
    # Use every item: by default FAISS samples 256 for each cluster.
    kmeans = faiss.Kmeans(
        embeddings.shape[1],
        num_clusters,
        niter=20,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(embeddings),
    )
    kmeans.train(embeddings)
    return kmeans.index.search(embeddings, 1)[1][:, 0]
