"""Search finds: enrolled items by embedding, in this process or in Milvus."""

from keras_metric.search.index import Index
from keras_metric.search.results import (
    Identity,
    Item,
    Match,
    OperatingPoint,
    StagedMatches,
    Verification,
)

__all__ = [
    "Identity",
    "Index",
    "Item",
    "Match",
    "OperatingPoint",
    "StagedMatches",
    "Verification",
]
