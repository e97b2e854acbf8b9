"""Which pairs and triplets of a batch count: functions of distances and `Pairs`."""

from keras_metric.mining import bands, pair_rules, pairs_in_triplets
from keras_metric.mining.bands import EVERY
from keras_metric.mining.columns import argmax, argmin, draw_noise
from keras_metric.mining.triplet_rules import (
    PER_ANCHOR,
    PER_PAIR,
    SETTINGS,
    STRATEGIES,
    semi_hard,
    triplets,
)
from keras_metric.mining.triplet_rules import RANDOM as _RANDOM_TRIPLETS

# All strategies that draw, of triplets and of pairs.
RANDOM = (*_RANDOM_TRIPLETS, *pair_rules.RANDOM)

__all__ = [
    "EVERY",
    "PER_ANCHOR",
    "PER_PAIR",
    "RANDOM",
    "SETTINGS",
    "STRATEGIES",
    "argmax",
    "argmin",
    "bands",
    "draw_noise",
    "pair_rules",
    "pairs_in_triplets",
    "semi_hard",
    "triplets",
]
