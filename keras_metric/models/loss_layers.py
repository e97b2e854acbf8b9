"""LossLayers: how weights that a loss owns are trained and saved by a model."""

import keras

from keras_metric.layers.cross_batch_memory import CrossBatchMemory
from keras_metric.models.class_id_check import IdGuard
from keras_metric.models.training_warnings import TrainingWarnings


class LossLayers(keras.layers.Layer):
    """Holds the layers of a model's loss, so that the model tracks their weights.

    A loss is no layer, and `compile` runs with Keras's tracking switched off: layers assigned
    there would be neither trained nor saved. This one layer is tracked from the start and
    lists as its own the variables of whatever it holds now.

    The attribute name `held` is part of the file format.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"name": "loss_layers", "dtype": "float32", **kwargs})
        self.held = ()
        self.guard = IdGuard()
        self.warnings = TrainingWarnings()
        self.built = True

    def hold(self, loss, width):
        """Replace the layers held by those of `loss`, a loss or a structure of losses.

        `width` is the length of an embedding, or None if it is not known yet; then
        `build_held` has to follow.
        """
        held = dict.fromkeys(
            layer for one in keras.tree.flatten(loss) for layer in getattr(one, "layers", ())
        )
        for layer in held:
            _check_width(layer, width)
        if width is not None:
            for layer in held:
                _build(layer, width)
        self.held = tuple(held)
        self.guard.told = {}
        self.warnings.needs_positives = None
        _check_paths(self.held)

    def build_held(self, width):
        """Build what could not be built before the length of an embedding was known."""
        for layer in self.held:
            _check_width(layer, width)
            _build(layer, width)
        _check_paths(self.held)

    @property
    def trainable(self):
        return super().trainable

    @trainable.setter
    def trainable(self, value):
        keras.layers.Layer.trainable.fset(self, value)
        # The held layers are no sublayers that Keras knows of, so the flag is handed on.
        for layer in getattr(self, "held", ()):
            layer.trainable = value

    def frozen(self):
        """Places of the held layers that were made untrainable; a queue never trains."""
        return [
            place
            for place, layer in enumerate(self.held)
            if not layer.trainable and not isinstance(layer, CrossBatchMemory)
        ]

    @property
    def variables(self):
        return [v for layer in self.held for v in layer.variables]

    @property
    def weights(self):
        return [v for layer in self.held for v in layer.weights]


def random_states(layer):
    """The states of all that draws while training: what is a variable and no weight."""
    weights = {id(weight) for weight in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in weights]


def _check_paths(layers):
    """Raise if two weights have one path: PyTorch and optimizers by path would take one of them."""
    paths = [weight.path for layer in layers for weight in layer.weights]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise ValueError(
            f"Two weights of the loss are called {twice[0]!r}. Give each loss of a sum a name of "
            'its own: losses.ArcFaceLoss(10, name="kind"), losses.ArcFaceLoss(4, name="colour").'
        )


def _build(layer, width):
    if not layer.built:
        layer.build((None, width))


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
