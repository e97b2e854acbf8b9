"""Which pairs and triplets of a batch count: functions of distances and `Pairs`."""

from keras_metric.mining import pair_rules
from keras_metric.mining.columns import argmax, argmin
from keras_metric.mining.triplet_rules import (
    EVERY,
    PER_ANCHOR,
    PER_PAIR,
    RANDOM,
    STRATEGIES,
    draw_noise,
    semi_hard,
    triplets,
)

__all__ = [
    "EVERY",
    "PER_ANCHOR",
    "PER_PAIR",
    "RANDOM",
    "STRATEGIES",
    "argmax",
    "argmin",
    "draw_noise",
    "pair_rules",
    "semi_hard",
    "triplets",
]
