"""Sub-center ArcFace loss."""

import math

import numpy as np
from keras import ops

from keras_metric._export import export
from keras_metric._validation import as_array, check_count, check_number
from keras_metric.losses.classification.arc_face_loss import cosine_of_sum
from keras_metric.losses.classification.class_loss import ClassLoss


def largest(products):
    """The largest product of each class (classes, batch) and its derivative; ties share it."""
    top = ops.max(products, axis=1)
    is_top = ops.cast(ops.equal(products, top[:, None]), products.dtype)
    return top, is_top / ops.sum(is_top, axis=1, keepdims=True)


@export
class SubCenterArcFaceLoss(ClassLoss):
    """Sub-center ArcFace: ArcFace with several vectors per class, for noisy labels.

    An item must be close to one of the vectors of its class. Most clean items gather around one
    vector, the dominant one; mislabelled and unusual items gather around the others. `outliers`
    lists them, so that training can continue without them. `EmbeddingModel` trains and saves the
    class vectors.

        cos(angle_c) = largest cosine of the item and the `sub_centers` vectors of class c

    The loss is that of `ArcFaceLoss` with these angles.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        margin: in degrees, 0 to 180. Default 28.6, which is 0.5 in radians, as in the paper.
        scale: factor of the cosines, above 0. Default 64, as in the paper.
        sub_centers: number of vectors per class, 1 or more. Default 3, as in the paper.
        embedding_dim: dimension of the embeddings. Default None: `EmbeddingModel` sets it.
        initializer: Keras initializer of the class vectors. Default None: normal, norm about 1.
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result; computed in float32 or wider.
        sample_rate: fraction of the other classes in a training step, above 0 and at most 1; the
            classes of the batch are always included. Default 1.0, all classes; 0.1 saves most of
            the time and memory from about 100,000 classes on. See "Many classes" in docs/losses.md.

    Raises:
        TypeError: for an argument of a wrong type.
        ValueError: for a number out of range, an id outside 0 to num_classes - 1, or a call outside
            an `EmbeddingModel` with `embedding_dim=None`.

    Example:
    >>> import numpy as np
    >>> import keras_metric
    >>> loss = keras_metric.losses.SubCenterArcFaceLoss(
    ...     2, scale=4, sub_centers=1, embedding_dim=2, initializer="identity"
    ... )
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.877

    Reference:
        Deng, Guo, Liu, Gong and Zafeiriou, "Sub-center ArcFace: Boosting Face Recognition by
        Large-scale Noisy Web Faces", 2020,
        https://www.ecva.net/papers/eccv_2020/papers_ECCV/papers/123560715.pdf
    """

    def __init__(
        self,
        num_classes,
        margin=28.6,
        scale=64,
        sub_centers=3,
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="sub_center_arc_face_loss",
        dtype=None,
        sample_rate=1.0,
    ):
        self.sub_centers = check_count("sub_centers", sub_centers)
        super().__init__(
            num_classes,
            embedding_dim,
            initializer,
            reduction,
            name,
            dtype,
            sub_centers,
            sample_rate=sample_rate,
        )
        self.margin = check_number("margin", margin, at_least=0, at_most=180)
        self.scale = check_number("scale", scale, above=0)

    @property
    def form(self):
        pool = largest if self.sub_centers > 1 else None
        return super().form._replace(pool=pool)

    def with_margin(self, cosine):
        return cosine_of_sum(cosine, math.radians(self.margin))

    def outliers(self, embeddings, labels, threshold=75.0):
        """Return the items far from the dominant vector of their class.

        Args:
            embeddings: array `(items, dim)`, output of the model's encoder.
            labels: integer class ids `(items,)`.
            threshold: angle in degrees above which an item is an outlier. Default 75 (the paper).

        Returns:
            The indices of the outliers, ascending, and the dominant vectors `(num_classes, dim)`:
            for each class the vector that is nearest to most of its items; the first vector of a
            class without items.

        Raises:
            ValueError: for a threshold outside 0 to 180, an invalid class id, or embeddings of a
                wrong shape.

        Example:
        >>> import numpy as np
        >>> import keras_metric
        >>> loss = keras_metric.losses.SubCenterArcFaceLoss(
        ...     2, sub_centers=1, embedding_dim=2, initializer="identity"
        ... )
        >>> x, y = np.array([[1.0, 0.1], [0.0, 1.0], [0.0, 1.0]]), np.array([0, 0, 1])
        >>> loss.outliers(x, y)[0].tolist()
        [1]
        """
        check_number("threshold", threshold, at_least=0, at_most=180)
        labels = ops.convert_to_numpy(self._checked_labels(as_array("labels", labels), "labels"))
        vectors = self.class_vectors.reshape(self.num_classes, self.sub_centers, -1)
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
        z = as_array("embeddings", embeddings).astype(vectors.dtype)
        if z.ndim != 2 or len(z) != len(labels) or z.shape[1] != vectors.shape[2]:
            raise ValueError(
                f"`embeddings` must have shape (items, {vectors.shape[2]}), with one label each. "
                f"Received: embeddings.shape={z.shape}, labels.shape={labels.shape}"
            )
        z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        cosine = np.einsum("id,ikd->ik", z, unit[labels])
        votes = np.zeros((self.num_classes, self.sub_centers), "int64")
        np.add.at(votes, (labels, cosine.argmax(axis=1)), 1)
        dominant = votes.argmax(axis=1)
        mine = cosine[np.arange(len(z)), dominant[labels]]
        far = np.flatnonzero(mine < math.cos(math.radians(threshold)))
        return far, vectors[np.arange(self.num_classes), dominant]
