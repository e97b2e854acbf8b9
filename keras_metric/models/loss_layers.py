"""LossLayers: a layer through which a model trains and saves the weights of its loss."""

import keras

from keras_metric.layers.cross_batch_memory import CrossBatchMemory
from keras_metric.losses import MetricLoss
from keras_metric.models.class_id_check import IdGuard
from keras_metric.models.training_warnings import TrainingWarnings


class LossLayers(keras.layers.Layer):
    """Holds the layers of a model's loss, so that the model tracks their weights.

    A loss is no layer, and Keras does not track attributes in `compile`: layers assigned there are
    neither trained nor saved. This layer is tracked from the start, and its variables are those of
    the layers that it holds.

    The attribute name `held` is part of the file format.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"name": "loss_layers", "dtype": "float32", **kwargs})
        self.held = ()
        self.guard = IdGuard()
        self.warnings = TrainingWarnings()
        self.built = True

    def hold(self, loss, width):
        """Replace the held layers by those of `loss`, a loss or a structure of losses.

        `width`: length of an embedding, or None if it is unknown; then call `build_held` later.
        """
        held = dict.fromkeys(
            layer for one in keras.tree.flatten(loss) for layer in MetricLoss.layers_of(one)
        )
        for layer in held:
            _check_width(layer, width)
        self.held = tuple(held)
        self.guard.num_classes = {}
        self.warnings.needs_positives = None
        if width is None:
            _check_paths(self.held)
        else:
            self.build_held(width)

    def build_held(self, width):
        """Build the held layers for embeddings of length `width`."""
        for layer in self.held:
            _check_width(layer, width)
            if not layer.built:
                layer.build((None, width))
        _check_paths(self.held)

    @property
    def trainable(self):
        return super().trainable

    @trainable.setter
    def trainable(self, value):
        keras.layers.Layer.trainable.fset(self, value)
        # Keras does not track the held layers as sublayers.
        for layer in getattr(self, "held", ()):
            layer.trainable = value

    def frozen(self):
        """Positions of the held layers that were made untrainable; a queue is never trainable."""
        return [
            position
            for position, layer in enumerate(self.held)
            if not layer.trainable and not isinstance(layer, CrossBatchMemory)
        ]

    @property
    def variables(self):
        return [v for layer in self.held for v in layer.variables]

    @property
    def weights(self):
        return [v for layer in self.held for v in layer.weights]


def random_states(layer):
    """The states of random number generators: the variables that are no weights."""
    weights = {id(weight) for weight in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in weights]


def _check_paths(layers):
    """Raise if two weights have one path: PyTorch and optimizers by path would use one of them."""
    paths = [weight.path for layer in layers for weight in layer.weights]
    duplicates = sorted({path for path in paths if paths.count(path) > 1})
    if duplicates:
        raise ValueError(
            f"Two weights of the loss are called {duplicates[0]!r}. Give each loss of a sum a name "
            'of its own: losses.ArcFaceLoss(10, name="kind"), losses.ArcFaceLoss(4, name="colour").'
        )


def _check_width(layer, width):
    """Raise if `layer` has weights for embeddings of another length."""
    if width is None or not layer.built or not layer.weights:
        return
    shape = (layer.get_build_config() or {}).get("input_shape")
    if shape is not None and shape[-1] not in (None, width):
        raise ValueError(
            f"The loss holds the layer {layer.name!r}, built for embeddings of length "
            f"{shape[-1]}. This model makes embeddings of length {width}. Use a new loss object "
            "for each model."
        )
