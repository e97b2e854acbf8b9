"""Index of labelled embeddings: search, verification, identification and threshold calibration."""

from keras_metric.search.index import Index
from keras_metric.search.results import (
    Identity,
    Item,
    Match,
    OperatingPoint,
    StagedMatches,
    Verification,
)

__all__ = ["Identity", "Index", "Item", "Match", "OperatingPoint", "StagedMatches", "Verification"]
