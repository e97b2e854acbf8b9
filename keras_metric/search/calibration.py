"""Calibration: the threshold for a false accept rate, from measured distances."""

import numpy as np

from keras_metric._validation import shown
from keras_metric.search.identify_rules import by_centroids, by_matches
from keras_metric.search.results import OperatingPoint
from keras_metric.search.stores.exact_distances import across, stored


def calibrated(store, metric, embeddings, labels, false_accept_rate, rule, k, sample, seed):
    """Compare queries with the items of a store and return the `OperatingPoint` of a rule."""
    rng = np.random.default_rng(seed)
    own_ids = None
    if embeddings is None:
        items = _sample(store, sample, rng)
        embeddings = np.array([item.embedding for item in items], "float32")
        labels = [item.label for item in items]
        own_ids = [item.id for item in items]
    if not len(labels) or not len(store):
        raise ValueError("Calibration needs enrolled items, and queries to compare with them.")
    queries = embeddings, labels, own_ids
    if rule == "verify":
        impostors, genuine = _pair_distances(store, metric, *queries, _sample(store, sample, rng))
    elif rule == "centroid":
        impostors, genuine = _centroid_distances(store, metric, *queries)
    else:
        impostors, genuine = _match_distances(store, *queries, rule, k if rule == "vote" else 1)
    impostors = [distance for distance in impostors if np.isfinite(distance)]
    return operating_point(rule, impostors, genuine, false_accept_rate)


def operating_point(rule, impostors, genuine, false_accept_rate):
    """Return the largest threshold that keeps the false accept rate, with its error rates.

    `impostors` are the distances of comparisons that should be rejected; `genuine` those that
    should be accepted, infinite where another label was closer.
    """
    impostors = np.sort(np.asarray(impostors, "float64"))
    # The factor corrects rounding where the rate is a whole number of comparisons.
    allowed = int(np.floor(false_accept_rate * len(impostors) * (1 + 1e-12)))
    if allowed < 1:
        raise ValueError(
            f"{len(impostors)} impostor comparisons cannot resolve a false accept rate of "
            f"{false_accept_rate:g}: it needs {np.ceil(1 / false_accept_rate):.0f}. Pass more "
            "queries or a higher rate."
        )
    if not len(genuine):
        raise ValueError(
            "The false reject rate needs queries whose label is enrolled (without `embeddings`: "
            "labels with at least two items). Received none."
        )
    if allowed >= len(impostors):
        threshold, accepted = impostors[-1], len(impostors)
    else:
        # Distances equal to the first one beyond the quota stay outside. The threshold lies halfway
        # to it, so that rounding of distances does not matter.
        accepted = int(np.searchsorted(impostors, impostors[allowed], side="left"))
        threshold = np.nextafter(impostors[0], -np.inf)
        if accepted:
            threshold = (impostors[accepted - 1] + impostors[allowed]) / 2
            # Two adjacent floats have no middle.
            if threshold >= impostors[allowed]:
                threshold = impostors[accepted - 1]
    rejected = int(np.count_nonzero(np.asarray(genuine) > threshold))
    rates = accepted / len(impostors), rejected / len(genuine)
    counts = len(impostors), len(genuine)
    return OperatingPoint(rule, float(threshold), *rates, *counts, float(false_accept_rate))


def as_threshold(value):
    """Return a threshold as a float, which may be infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"`threshold` must be a number. Received: threshold={shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = float("nan")
    if number != number:
        raise ValueError(f"`threshold` must be a float other than NaN. Received: {shown(value)}")
    return number


def _sample(store, count, rng):
    """`count` random items without replacement, or all items if there are no more."""
    ids = store.all_ids()
    if count < len(ids):
        ids = [ids[row] for row in rng.choice(len(ids), count, replace=False)]
    return store.get(ids)


def _pair_distances(store, metric, embeddings, labels, own_ids, others):
    """Distances of queries to items of other labels, and to the other items of their own label."""
    impostors, genuine = [], []
    other_vectors = np.array([item.embedding for item in others])
    other_labels = np.array([item.label for item in others], object)
    for label, rows in _rows_by_label(labels):
        queries = stored(embeddings[rows], metric)
        impostors.append(across(queries, other_vectors[other_labels != label], metric).ravel())
        same = store.get(store.ids_of([label]))
        if same:
            distances = across(queries, np.array([item.embedding for item in same]), metric)
            ids = np.array([item.id for item in same], object)
            for row, line in zip(rows, distances, strict=True):
                genuine.append(line if own_ids is None else line[ids != own_ids[row]])
    empty = [np.empty(0)]
    return np.concatenate(impostors or empty), np.concatenate(genuine or empty)


def _match_distances(store, embeddings, labels, own_ids, rule, voters):
    impostors, genuine = [], []
    for label, rows in _rows_by_label(labels):
        found = store.search(embeddings[rows], voters, other_than=(label,))
        impostors += [by_matches(line, rule)[1] for line in found]
    rows = _rows_with_genuine(labels, store.label_counts(), own_ids)
    # An enrolled query finds itself: search for one more match and remove that one.
    found = store.search(embeddings[rows], voters + (own_ids is not None))
    for row, line in zip(rows, found, strict=True):
        if own_ids is not None:
            line = [match for match in line if match.id != own_ids[row]][:voters]
        label, distance = by_matches(line, rule)
        genuine.append(distance if label == labels[row] else np.inf)
    return impostors, genuine


def _centroid_distances(store, metric, embeddings, labels, own_ids):
    parts = store.centroids()
    impostors = by_centroids(embeddings, *parts, metric, hidden=labels)
    counts = dict(zip(parts[0], parts[2].tolist(), strict=True))
    rows = _rows_with_genuine(labels, counts, own_ids)
    expected = [labels[row] for row in rows]
    own = None if own_ids is None else expected
    found = by_centroids(embeddings[rows], *parts, metric, own=own)
    pairs = zip(found, expected, strict=True)
    genuine = [distance if label == own else np.inf for (label, distance), own in pairs]
    return [distance for _, distance in impostors], genuine


def _rows_with_genuine(labels, counts, own_ids):
    """The queries that have an item of their label in the index, other than themselves."""
    least = 1 if own_ids is None else 2
    return [row for row, label in enumerate(labels) if counts.get(label, 0) >= least]


def _rows_by_label(labels):
    rows = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows.items()
