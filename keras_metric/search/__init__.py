"""Search finds: enrolled items by embedding, in this process or in Milvus."""

from keras_metric.search.answers import (
    Identity,
    Item,
    Match,
    OperatingPoint,
    StagedMatches,
    Verification,
)
from keras_metric.search.index import Index

__all__ = [
    "Identity",
    "Index",
    "Item",
    "Match",
    "OperatingPoint",
    "StagedMatches",
    "Verification",
]
