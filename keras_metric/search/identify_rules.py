"""Rules that turn the matches of a query into one label: nearest, vote and centroid."""

from collections import Counter

import numpy as np

from keras_metric.search.results import StagedMatches
from keras_metric.search.stores.exact_distances import across, stored

RULES = ("centroid", "nearest", "vote")


def by_matches(matches, rule):
    """`(label, distance)` from the nearest matches of one query, closest first.

    `nearest`: the label of the closest match. `vote`: the most frequent label, among equally
    frequent ones the one with the closest match; the distance is that of its closest match.
    """
    if not matches:
        return None, float("inf")
    if rule == "nearest":
        return matches[0].label, matches[0].distance
    # Counter keeps the order of first appearance, and `most_common` is stable.
    label = Counter(match.label for match in matches).most_common(1)[0][0]
    return label, next(match.distance for match in matches if match.label == label)


def by_centroids(queries, labels, sums, counts, metric, hidden=None, own=None):
    """`(label, distance)` of the nearest centroid for each query.

    `labels, sums, counts` are the labels, the sums of their vectors and the numbers of their items.
    `hidden` contains for each query a label that is not a candidate. `own` contains for each query
    its label: the query is one of the items of that label and is left out of the centroid.
    """
    if not len(labels):
        return [(None, float("inf"))] * len(queries)
    queries = stored(queries, metric)
    distances = across(queries, _centroids(sums, counts, metric), metric)
    column_of = {label: column for column, label in enumerate(labels)}
    for row, label in enumerate(hidden or ()):
        if label in column_of:
            distances[row, column_of[label]] = np.inf
    for row, label in enumerate(own or ()):
        column = column_of[label]
        if counts[column] == 1:
            distances[row, column] = np.inf
            continue
        rest = (sums[column] - queries[row])[None]
        centroid = _centroids(rest, counts[column : column + 1] - 1, metric)
        distances[row, column] = across(queries[row : row + 1], centroid, metric)[0, 0]
    pairs = zip(distances.argmin(axis=1).tolist(), distances.min(axis=1).tolist(), strict=True)
    return [(labels[column] if d < np.inf else None, d) for column, d in pairs]


def search_stages(search, queries, stages, k, threshold):
    """A `StagedMatches` for each query from the first stage with a match within the threshold.

    `search(queries, k, clauses)` returns the matches of each query.
    """
    answers = [StagedMatches(None, [])] * len(queries)
    pending = list(range(len(queries)))
    for number, clauses in enumerate(stages):
        if not pending:
            break
        for row, matches in zip(pending, search(queries[pending], k, clauses), strict=True):
            close = [match for match in matches if match.distance <= threshold]
            if close:
                answers[row] = StagedMatches(number, close)
        pending = [row for row in pending if answers[row].stage is None]
    return answers


def _centroids(sums, counts, metric):
    return stored(sums / counts[:, None], metric)
