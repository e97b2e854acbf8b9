"""Keras metrics, computed batch by batch during training."""

from keras_metric.metrics.triplet_metrics import (
    NegativeDistance,
    PositiveDistance,
    TripletAccuracy,
)

__all__ = ["NegativeDistance", "PositiveDistance", "TripletAccuracy"]
