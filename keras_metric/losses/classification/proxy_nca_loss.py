"""Proxy-NCA loss."""

from keras import ops

from keras_metric._export import export
from keras_metric._validation import check_choice, check_number
from keras_metric.losses.classification.class_log_sums import Form
from keras_metric.losses.classification.class_loss import (
    ClassLoss,
    class_terms,
    cross_entropy_rows,
)
from keras_metric.pairwise.blockwise import LARGEST_SQUARE

DENOMINATORS = ("all", "others")


@export
class ProxyNCALoss(ClassLoss):
    """Proxy-NCA and ProxyNCA++: neighbourhood component analysis with one learned proxy per class.

    It converges fast and needs no mining; a batch may hold one item of a class. `EmbeddingModel`
    trains and saves the proxies, which are normalised to norm 1.

        loss = mean over items of -log( e(x, p_y) / sum_c e(x, p_c) )
        e(x, p) = exp(-s |x - p|^2)

    with p_c the proxy of class c, and y the item's class. `ProxyNCALoss(C, softmax_scale=9)` is the
    loss of ProxyNCA++ with its temperature of 1/9.

    Args:
        num_classes: number of classes; class ids are 0 to num_classes - 1.
        softmax_scale: s, factor of the squared distances, above 0; 1 / temperature. Default 1, as
            in the first paper; 9 in ProxyNCA++; use 10 and more for many classes.
        denominator: proxies in the sum: "all" (default, as in ProxyNCA++ and
            pytorch-metric-learning) or "others" (the first paper; the loss can then be negative).
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
    >>> loss = keras_metric.losses.ProxyNCALoss(2, embedding_dim=2, initializer="identity")
    >>> x, y = np.array([[1.0, 0.5], [0.8, 1.0]], "float32"), np.array([0, 1])
    >>> round(float(loss(y, x)), 3)
    0.413

    Reference:
        Movshovitz-Attias, Toshev, Leung, Ioffe and Singh, "No Fuss Distance Metric Learning using
        Proxies", 2017, https://arxiv.org/abs/1703.07464. ProxyNCA++: Teh, DeVries and Taylor, 2020,
        https://arxiv.org/abs/2004.01113
    """

    is_softmax = False

    def __init__(
        self,
        num_classes,
        softmax_scale=1.0,
        denominator="all",
        embedding_dim=None,
        initializer=None,
        reduction="mean_valid",
        name="proxy_nca_loss",
        dtype=None,
        sample_rate=1.0,
    ):
        super().__init__(
            num_classes,
            embedding_dim,
            initializer,
            reduction,
            name,
            dtype,
            sample_rate=sample_rate,
        )
        self.softmax_scale = check_number("softmax_scale", softmax_scale, above=0)
        self.denominator = check_choice("denominator", denominator, DENOMINATORS)

    @property
    def form(self):
        return Form(logit_of_zero=self.softmax_scale)

    def left(self, embeddings):
        # The logits are softmax_scale (|x|^2 + 1 - |x - p|^2): a number of each item added to all
        # of them does not change the softmax.
        largest = LARGEST_SQUARE**0.5
        return 2 * self.softmax_scale * ops.clip(embeddings, -largest, largest)

    def report(self, reports, embeddings, vectors, own, logit, sums, number):
        squares = 1 + ops.sum(ops.square(embeddings), axis=1)
        near = ops.where(own.valid, squares - logit / self.softmax_scale, 0)
        far = number * squares - sums / self.softmax_scale
        reports.add_distance_sums(near, far, own.valid, number)

    def class_parts(self, reports, embeddings, vectors, own):
        others, mine = self.against_classes(reports, embeddings, vectors, own)
        if self.denominator == "all":
            return [cross_entropy_rows(others, mine, own.valid)]
        rows = class_terms(others - mine, own.valid)
        # These terms can be negative, so all of them count as active.
        return [rows._replace(active=rows.valid)]
