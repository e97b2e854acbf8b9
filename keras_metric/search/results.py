"""Return values of `Index`, as named tuples."""

from collections import namedtuple


class Match(namedtuple("Match", ["id", "label", "distance", "attributes"])):
    """One item found by a search.

    Args:
        id: string or integer: the item's id.
        label: string or integer: the item's label.
        distance: float in the index's metric; smaller is closer.
        attributes: dict of the item's attributes, empty if it has none.

    Example:
    >>> from keras_metric.search import Match
    >>> Match(7, "ann", 0.25, {"region": "r3"}).label
    'ann'
    """

    __slots__ = ()


class Identity(namedtuple("Identity", ["label", "distance"])):
    """The label assigned to a query.

    Args:
        label: the label found, or None if no candidate is within the threshold.
        distance: float: distance to the closest candidate, also beyond the threshold; infinity
            if there was no candidate.

    Example:
    >>> from keras_metric.search import Identity
    >>> Identity(None, 0.9).label is None
    True
    """

    __slots__ = ()


class Verification(namedtuple("Verification", ["same", "distance"])):
    """Result of comparing a query with the one item that it claims to be.

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
    """One item of an index, as returned by iteration and `get`.

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
    """Result of a staged search for one query.

    Args:
        stage: number of the first stage with a match, from 0, or None if no stage has one.
        matches: list of `Match` within the threshold, closest first.

    Example:
    >>> from keras_metric.search import StagedMatches
    >>> StagedMatches(None, []).stage is None
    True
    """

    __slots__ = ()


_FIELDS = ["rule", "threshold", "false_accept_rate", "false_reject_rate"]
_FIELDS += ["num_impostors", "num_genuine", "target"]


class OperatingPoint(namedtuple("OperatingPoint", _FIELDS)):
    """A threshold and its error rates, as returned by `Index.calibrate`.

    `keras_metric.evaluation` reports the same rates of pairs as `far` and `frr`.

    Args:
        rule: `"verify"`, or the rule of `identify` that was calibrated.
        threshold: float: distances up to it are accepted.
        false_accept_rate: float (FAR): fraction of the impostor comparisons (queries whose own
            label is hidden, or pairs of two labels) that are accepted; at most the target.
        false_reject_rate: float (FRR): fraction of the genuine comparisons that are rejected.
        num_impostors: number of impostor comparisons.
        num_genuine: number of genuine comparisons.
        target: the false accept rate passed to `calibrate`.

    Example:
    >>> from keras_metric.search import OperatingPoint
    >>> OperatingPoint("verify", 0.4, 0.001, 0.02, 10_000, 500, 0.001).false_reject_rate
    0.02
    """

    __slots__ = ()
