"""EmbeddingModel: a backbone, an encoder, and a loss on its embeddings."""

import keras
from keras import ops

from keras_metric import distances, losses
from keras_metric._checks import check_flag, check_not_strings
from keras_metric._export import export
from keras_metric.losses.metric_loss import watch
from keras_metric.models import branches
from keras_metric.models.backbones import check_backbone, revive
from keras_metric.models.encoder import DEFAULTS, Encoder, check_left_alone
from keras_metric.models.loss_layers import LossLayers
from keras_metric.models.train_health import TrainHealth


@export
class EmbeddingModel(keras.Model):
    """Learns embeddings: items of one class end up close together, others apart.

    Reach for it with labelled data and any loss of `keras_metric.losses`; `SiameseModel`,
    `TripletModel` and `QuadrupletModel` are the same with another default loss and ready-made
    tuples as inputs. It is compiled from the start (Adam with a rate of 1e-3, and
    `TripletLoss(margin=0.2, mining="semi-hard")`), so `fit` works at once. To choose, compile it
    again and name the optimizer as well: `compile(loss=...)` alone takes Keras's RMSprop.
    Weights that a loss owns, such as proxies, are trained and saved with the model.

        model(x) = encoder(x) = head(backbone(x))

    `x` is a batch of inputs with integer class ids as `y`, or a dict of branches such as
    `{"anchor": ..., "positive": ..., "negative": ...}`: the encoder runs once on all of them
    joined, and the loss gets embeddings `(batch, branches, embedding_dim)`. A backbone that is
    frozen, trained, and thawed:

        model.backbone.trainable = False
        model.fit(ds)
        model.backbone.trainable = True
        model.compile(keras.optimizers.Adam(1e-5))   # keeps the loss
        model.fit(ds)

    Args:
        backbone: a Keras model or layer, pretrained or not, for images, text, tables; with
            preprocessing layers inside if the model is to take raw inputs. It may give a vector,
            a sequence or a map. Another model's `encoder` is used as it is, shared weights and
            all; then leave the next three arguments and `freeze_batch_norm` at their defaults.
        embedding_dim: integer, 1 or more, or None for no linear layer. Default 128: the size
            most results in the literature are for.
        normalize: True (default) scales each embedding to length 1. The default margins assume
            it. False for losses that use the length.
        pooling: how a map or a sequence becomes one vector: "average" (default), "max", a Keras
            layer, or None.
        freeze_batch_norm: True keeps every `BatchNormalization` of the backbone at its stored
            statistics, also after `backbone.trainable = True`. Default False. Use it to
            fine-tune a pretrained network on few or balanced batches, whose statistics differ
            from those it was trained with.
        train_health: True adds `active_share`, `positive_distance`, `negative_distance`,
            `positives` and `embedding_spread` to the logs. Default False.
        dtype: default None: the dtype policy of the backbone.
        name: name of the model.

    Call arguments:
        inputs: a batch as above.

    Returns:
        Embeddings `(batch, embedding_dim)`; of branches `(batch, branches, embedding_dim)`.

    Raises:
        TypeError: if `backbone` is no Keras model or layer, or an argument has another type.
        ValueError: for a value out of range, a backbone that gives several outputs or one
            number an item, or inputs that are neither a batch nor all branches.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> import keras_metric
    >>> keras.utils.set_random_seed(0)
    >>> labels = np.arange(32) % 4
    >>> images = np.random.default_rng(0).normal(labels[:, None, None, None], size=(32, 8, 8, 1))
    >>> backbone = keras.Sequential([keras.layers.Conv2D(8, 3, activation="relu")])
    >>> model = keras_metric.EmbeddingModel(backbone, embedding_dim=16)
    >>> history = model.fit(images, labels, epochs=2, verbose=0)
    >>> model.predict(images, verbose=0).shape
    (32, 16)
    >>> model.distance(images[:1], images[1:5]).shape
    (4,)
    """

    # Forms of ready-made tuples: names of their branches, in the order the loss expects.
    forms = (
        branches.TRIPLET,
        branches.POSITIVE_PAIR,
        branches.QUADRUPLET,
        branches.TWO_ANCHORS,
        branches.PAIR,
    )
    # A tuple may be the input of a backbone with several inputs; only models that are named
    # after a form read it as branches.
    takes_tuples = False

    def __init__(
        self,
        backbone,
        embedding_dim=128,
        normalize=True,
        pooling="average",
        freeze_batch_norm=False,
        train_health=False,
        dtype=None,
        name=None,
        **kwargs,
    ):
        check_backbone(backbone)
        if isinstance(backbone, EmbeddingModel):
            raise ValueError(
                f"`backbone` is a whole {type(backbone).__name__}. Pass its encoder to share the "
                "weights (backbone=model.encoder), or its backbone to start a new head."
            )
        super().__init__(dtype=dtype or backbone.dtype_policy, name=name, **kwargs)
        check_flag("train_health", train_health)
        if isinstance(backbone, Encoder):
            check_left_alone(backbone, embedding_dim, normalize, pooling, freeze_batch_norm)
            self.encoder = backbone
        else:
            self.encoder = Encoder(
                backbone,
                embedding_dim,
                normalize,
                pooling,
                freeze_batch_norm,
                dtype=dtype,
                name="encoder",
            )
        self.train_health = train_health
        self.health = TrainHealth() if train_health else None
        # The default compile gives its layers to this one, so it comes first.
        self.loss_layers = LossLayers()
        self.shares_encoder = isinstance(backbone, Encoder)
        self.built = self.encoder.built
        self.compile(optimizer=keras.optimizers.Adam(1e-3), loss=self._default_loss())

    def _default_loss(self):
        return losses.TripletLoss(margin=0.2, mining="semi-hard")

    @property
    def backbone(self):
        """The network the user brought."""
        return self.encoder.backbone

    @property
    def embedding_dim(self):
        """Length of an embedding, or None as long as the model has not seen an input."""
        return self.encoder.width

    @property
    def loss(self):
        """The loss in force, set by `compile(loss=...)`."""
        return self._metric_loss

    @loss.setter
    def loss(self, loss):
        # Keras assigns None while it sets the model up, and the loss in every `compile` that
        # names one, also in the `compile` of `load_model`, which reads the weights after it.
        if isinstance(loss, (list, tuple)) and len(loss) > 1:
            raise ValueError(
                "A model with one output takes one loss; Keras would drop all but the first. "
                f"Received: a list of {len(loss)}. Use losses.WeightedSum([(weight, loss), ...])."
            )
        if loss is not None:
            self.loss_layers.hold(loss, self.encoder.width)
        self._metric_loss = loss

    def build(self, input_shape=None):
        # As in the encoder: what is below builds itself, and errors stay errors.
        self.built = True

    def call(self, inputs, training=None):
        parts = branches.split(inputs, self.forms, self.takes_tuples, self.encoder)
        x = inputs if parts is None else branches.join(parts)
        embeddings = self.encoder(x, training=training)
        # Without a linear layer the backbone's first output tells the length.
        self.loss_layers.build_held(embeddings.shape[-1])
        return embeddings if parts is None else branches.part_again(embeddings, parts)

    def fit(self, x=None, y=None, *args, **kwargs):
        # Only a look at y: Keras fails on NumPy strings before any other hook of ours runs, and
        # says nothing of labels.
        check_not_strings("y", y)
        return super().fit(x, y, *args, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        branches.check_sample_weight(x, sample_weight)
        if y is None:
            self._check_without_y(y_pred)
            # Tuples carry their own supervision; Keras insists on a target. To losses that read
            # the branches as views, each item is a class of its own.
            y = ops.arange(ops.shape(y_pred)[0], dtype="int32")
        if self.health is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        with watch() as seen:
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        self.health.update(seen, y_pred)
        return loss

    def distance(self, a, b, metric=None, batch_size=32):
        """Distances between the items of `a` and the items of `b`, one by one.

        Args:
            a: a batch of inputs, as for `predict`.
            b: as many inputs as `a`; or one, or one in `a`, to be measured against all others.
            metric: name of a metric of `keras_metric.distances`, or a `layers.Mahalanobis`. Default
                None: the one that the loss uses, "euclidean" if it names none.
            batch_size: how many inputs the encoder sees at once. Default 32.

        Returns:
            NumPy array `(batch,)`. Smaller is closer.
        """
        if metric is None:
            metric = self._loss_metric()
        distances.check_metric("metric", metric)
        a, b = (self.encoder.predict(x, batch_size=batch_size, verbose=0) for x in (a, b))
        if len(a) != len(b) and 1 not in (len(a), len(b)):
            raise ValueError(
                "`a` and `b` must have the same number of items, or one of them a single item. "
                f"Received: len(a)={len(a)}, len(b)={len(b)}. For all against all: "
                "keras_metric.distances.pairwise(encoder.predict(a), encoder.predict(b))."
            )
        return ops.convert_to_numpy(distances.elementwise(a, b, metric))

    def reset_metrics(self):
        if self.health is not None:
            self.health.warn_without_positives()
        super().reset_metrics()

    def get_metrics_result(self):
        results = super().get_metrics_result()
        # A number that the loss never reports would stand in the logs as 0.
        silent = self.health.silent() if self.health is not None else ()
        return {name: value for name, value in results.items() if name not in silent}

    def export(self, filepath, **kwargs):
        """Export the encoder for serving, as `model.encoder.export`."""
        return self.encoder.export(filepath, **kwargs)

    def get_compile_config(self):
        config = super().get_compile_config()
        # After `compile(optimizer)` Keras goes on with the loss it has, but does not save it.
        if config and config.get("loss") is None:
            config["loss"] = keras.saving.serialize_keras_object(self.loss)
        return config

    def get_build_config(self):
        return self.encoder.get_build_config()

    def build_from_config(self, config):
        self.encoder.build_from_config(config)
        self.built = self.encoder.built

    def get_config(self):
        encoder = self.encoder.get_config()
        settings = {name: encoder[name] for name in ("backbone", *DEFAULTS)}
        if self.shares_encoder:
            settings = {"backbone": keras.saving.serialize_keras_object(self.encoder), **DEFAULTS}
        return {**super().get_config(), **settings, "train_health": self.train_health}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**revive(config, custom_objects))

    def _loss_metric(self):
        metric = getattr(self.loss, "distance", None)
        known = isinstance(metric, str) or distances.layers_of(metric)
        return metric if known else "euclidean"

    def _check_without_y(self, y_pred):
        terms = keras.tree.flatten(self.loss)
        if len(y_pred.shape) == 2 and not all(getattr(t, "label_free", False) for t in terms):
            raise ValueError(
                "A batch of inputs needs integer class ids: fit(x, y), or a data set of "
                "(inputs, labels). Received no y. Ready-made tuples go without: "
                f"{branches.listing(self.forms)}."
            )
        for term in terms:
            meaning = getattr(term, "y_of_pairs", None)
            if y_pred.shape[1] == 2 and meaning:
                raise ValueError(
                    f"Pairs need y: {meaning}. Received no y. Write "
                    'fit({"first": a, "second": b}, y), or let the data set yield '
                    '({"first": a, "second": b}, y).'
                )
