"""How the losses are built in the tests that run over all of them."""

import inspect
import random

import keras

from keras_metric import losses

# The public losses, without their base class.
LOSSES = {
    name: thing
    for name, thing in ((name, getattr(losses, name)) for name in losses.__all__)
    if issubclass(thing, keras.losses.Loss) and name != "MetricLoss"
}
# Losses on two branches: embeddings `(batch, 2, dim)`.
TWO_BRANCHES = (
    *("BarlowTwinsLoss", "ClipLoss", "CosineRegressionLoss"),
    *("SigLipLoss", "SimSiamLoss", "VICRegLoss"),
)


def is_required(parameter):
    return parameter is not None and parameter.default is parameter.empty


# Losses with a learned vector for each class: they require the number of classes.
CLASSIFICATION = [
    name
    for name, loss in LOSSES.items()
    if is_required(inspect.signature(loss).parameters.get("num_classes"))
]


def arguments_of(name, num_classes):
    """The arguments without which a loss cannot be built."""
    return {
        **{name: {"num_classes": num_classes} for name in CLASSIFICATION},
        # Proxies assigned at random would differ from call to call.
        "ManifoldLoss": {"meta_classes": "labels", "num_proxies": 3},
        "WeightedSum": {"terms": [(0.5, losses.TripletLoss()), (2.0, losses.ContrastiveLoss())]},
    }.get(name, {})


def seeded(cls, dim, **arguments):
    """A loss with built layers; its seeds and its weights are the same at every call."""
    # Keras takes the seeds that no argument gives from here.
    random.seed(0)
    keras.utils.set_random_seed(0)
    loss = cls(**arguments)
    for layer in getattr(loss, "layers", ()):
        if not layer.built:
            layer.build((None, dim))
    return loss
