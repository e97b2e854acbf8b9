"""Deep metric learning for Keras 3: models, losses, mining, batches, evaluation, search, plots."""

from keras_metric import (
    addons,
    callbacks,
    data,
    datasets,
    distances,
    evaluation,
    layers,
    losses,
    metrics,
    search,
    viz,
)
from keras_metric.models import (
    EmbeddingModel,
    QuadrupletModel,
    SiameseModel,
    TripletModel,
    TwoTowerModel,
)
from keras_metric.version import __version__ as __version__

__all__ = [
    "EmbeddingModel",
    "QuadrupletModel",
    "SiameseModel",
    "TripletModel",
    "TwoTowerModel",
    "addons",
    "callbacks",
    "data",
    "datasets",
    "distances",
    "evaluation",
    "layers",
    "losses",
    "metrics",
    "search",
    "viz",
]
