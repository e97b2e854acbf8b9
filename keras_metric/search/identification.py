"""Rules that turn neighbours into an identity."""

from collections import Counter

import numpy as np

from keras_metric.search.stores.vectors import across, stored

RULES = ("centroid", "nearest", "vote")


def by_matches(matches, rule):
    """`(label, distance)` from the nearest matches of one query, closest first.

    `nearest`: the label of the first. `vote`: the most frequent label, of equals the one that has
    the closest match; its distance is that match's.
    """
    if not matches:
        return None, float("inf")
    if rule == "nearest":
        return matches[0].label, matches[0].distance
    # Counter keeps the order of first appearance, and `most_common` is stable.
    label = Counter(match.label for match in matches).most_common(1)[0][0]
    return label, next(match.distance for match in matches if match.label == label)


def by_centroids(queries, labels, sums, counts, metric, without=None, left_out=None):
    """`(label, distance)` of the nearest centroid for each query.

    `without` holds for each query a label that is not to be considered; `left_out` holds for each
    query the label whose centroid it is itself part of, and leaves.
    """
    if not len(labels):
        return [(None, float("inf"))] * len(queries)
    queries = stored(queries, metric)
    distances = across(queries, _centroids(sums, counts, metric), metric)
    place = {label: column for column, label in enumerate(labels)}
    for row, label in enumerate(without or ()):
        if label in place:
            distances[row, place[label]] = np.inf
    for row, label in enumerate(left_out or ()):
        column = place[label]
        if counts[column] == 1:
            distances[row, column] = np.inf
            continue
        rest = (sums[column] - queries[row])[None]
        centroid = _centroids(rest, counts[column : column + 1] - 1, metric)
        distances[row, column] = across(queries[row : row + 1], centroid, metric)[0, 0]
    nearest = distances.argmin(axis=1)
    closest = distances[np.arange(len(queries)), nearest].tolist()
    return [
        (labels[column] if distance < np.inf else None, distance)
        for column, distance in zip(nearest.tolist(), closest, strict=True)
    ]


def _centroids(sums, counts, metric):
    return stored(sums / counts[:, None], metric)
