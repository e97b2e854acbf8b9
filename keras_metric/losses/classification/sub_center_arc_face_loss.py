"""SubCenterArcFaceLoss: ArcFace with several vectors a class, of which the nearest counts."""

import math

import numpy as np
from keras import ops

from keras_metric._export import export
from keras_metric._validation import as_array, check_count, check_number
from keras_metric.losses.classification.arc_face_loss import cosine_of_sum
from keras_metric.losses.classification.class_loss import ClassLoss, check_scale, cosines


@export
class SubCenterArcFaceLoss(ClassLoss):
    """ArcFace for noisy labels: a class has several vectors, and an item needs to be near one.

    Most clean items gather around one vector of their class, the dominant one; mislabelled and odd
    items end up at the others. `outliers` lists those, and training goes on without them.
    `EmbeddingModel` trains and saves the class vectors.

        cos(angle_c) = largest cosine of the item and the `sub_centers` vectors of class c

    and with that the loss is that of `ArcFaceLoss`.

    Args:
        num_classes: number of classes; ids run from 0 to num_classes - 1.
        margin: in degrees, 0 to 180. Default 28.6, which is 0.5 in radians, as in the paper.
        scale: factor of the cosines, above 0. Default 64, as in the paper.
        sub_centers: vectors of each class, 1 or more. Default 3, as in the paper.
        embedding_dim: length of an embedding. Default None: `EmbeddingModel` tells it. Give it to
            use the loss in a step of your own.
        initializer: Keras initializer of the class vectors, (num_classes * sub_centers, dim).
            Default None: normal, of length about 1, so that a step turns them neither too
            little nor too far.
        reduction: default "mean_valid", the mean over items.
        name: name of the loss.
        dtype: dtype of the result. It is computed in float32 at least.

    Raises:
        TypeError: for an argument of another type.
        ValueError: for a number out of its range, an id outside 0 to num_classes - 1, or outside an
            `EmbeddingModel` as long as `embedding_dim` is not given.

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
    ):
        check_count("sub_centers", sub_centers)
        super().__init__(
            num_classes, embedding_dim, initializer, reduction, name, dtype, sub_centers
        )
        check_number("margin", margin, at_least=0, at_most=180)
        check_scale(scale)
        self.margin = margin
        self.scale = scale
        self.sub_centers = sub_centers

    def class_logits(self, embeddings, vectors):
        cosine = cosines(embeddings, vectors)
        each = ops.reshape(cosine, (-1, self.num_classes, self.sub_centers))
        return ops.max(each, axis=2), self.scale

    def with_margin(self, cosine):
        return cosine_of_sum(cosine, math.radians(self.margin))

    def outliers(self, embeddings, labels, threshold=75.0):
        """Find the items that are far from the dominant vector of their class.

        Args:
            embeddings: array `(items, dim)`, of the model's encoder.
            labels: integer class ids `(items,)`.
            threshold: angle in degrees beyond which an item is far. Default 75, as in the paper.

        Returns:
            The positions of the items, in order, and the dominant vectors `(num_classes, dim)`: of
            each class the one that most of its items are nearest to; of a class without items the
            first.

        Raises:
            ValueError: for a threshold outside 0 to 180, ids that are no class, or embeddings of
                another width or number.

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
