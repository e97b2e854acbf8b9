"""What an index answers with: small named tuples that print well and compare by value."""

from collections import namedtuple


class Match(namedtuple("Match", ["id", "label", "distance", "attributes"])):
    """One item that a search found.

    Args:
        id: string or integer: the item's id.
        label: string or integer: what the item shows.
        distance: float in the index's metric; smaller is closer.
        attributes: dict of the item's attributes, empty if it has none.

    Example:
    >>> from keras_metric.search import Match
    >>> Match(7, "ann", 0.25, {"region": "r3"}).label
    'ann'
    """

    __slots__ = ()


class Identity(namedtuple("Identity", ["label", "distance"])):
    """Who a query is.

    Args:
        label: the label found, or None: nobody within the threshold, an unknown.
        distance: float: distance to the closest candidate, also when it is too far; infinity
            if there was none to compare with.

    Example:
    >>> from keras_metric.search import Identity
    >>> Identity(None, 0.9).label is None
    True
    """

    __slots__ = ()


class Verification(namedtuple("Verification", ["same", "distance"])):
    """Whether a query is who it claims to be.

    Args:
        same: True if the distance is within the threshold.
        distance: float: from the query to the enrolled item.

    Example:
    >>> from keras_metric.search import Verification
    >>> Verification(True, 0.1).same
    True
    """

    __slots__ = ()


class Item(namedtuple("Item", ["id", "label", "embedding", "attributes"])):
    """One item of an index, as iteration and `get` give it.

    Args:
        id: string or integer.
        label: string or integer.
        embedding: float32 array `(dim,)`; under the cosine metric scaled to length 1.
        attributes: dict.

    Example:
    >>> import numpy as np
    >>> from keras_metric.search import Item
    >>> Item("img-1", "ann", np.zeros(4, "float32"), {}).id
    'img-1'
    """

    __slots__ = ()


class StagedMatches(namedtuple("StagedMatches", ["stage", "matches"])):
    """What a staged search found for one query.

    Args:
        stage: number of the stage that answered, from 0, or None if none did.
        matches: list of `Match` within the threshold, closest first.

    Example:
    >>> from keras_metric.search import StagedMatches
    >>> StagedMatches(None, []).stage is None
    True
    """

    __slots__ = ()


class OperatingPoint(
    namedtuple(
        "OperatingPoint",
        [
            "rule",
            "threshold",
            "false_match_rate",
            "miss_rate",
            "num_impostors",
            "num_genuine",
            "target",
        ],
    )
):
    """A threshold and what it costs: the answer of `Index.calibrate`.

    Args:
        rule: `"verify"`, or the rule of `identify` that it was measured for.
        threshold: float: distances up to it count as a match.
        false_match_rate: share of the impostor comparisons (strangers, or pairs of two labels)
            that fell within the threshold; never above the target.
        miss_rate: share of the genuine comparisons that it turned away, the expected miss rate.
        num_impostors: number of impostor comparisons measured.
        num_genuine: number of genuine comparisons measured.
        target: the false-match rate that was asked for.

    Example:
    >>> from keras_metric.search import OperatingPoint
    >>> OperatingPoint("verify", 0.4, 0.001, 0.02, 10_000, 500, 0.001).miss_rate
    0.02
    """

    __slots__ = ()
