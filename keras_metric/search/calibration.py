"""From measured distances to a threshold."""

import numpy as np

from keras_metric.search.identification import by_centroids, by_matches
from keras_metric.search.results import OperatingPoint
from keras_metric.search.stores.vectors import across, stored


def operating_point(rule, impostors, genuine, false_match_rate):
    """The largest threshold that keeps the false-match rate, and what it misses.

    `impostors` are the distances of comparisons that should fail; `genuine` those that should
    succeed, infinite where another label came first.
    """
    impostors = np.sort(np.asarray(impostors, "float64"))
    # A share that is a whole number of comparisons must not be lost to rounding.
    allowed = int(np.floor(false_match_rate * len(impostors) * (1 + 1e-12)))
    if allowed < 1:
        raise ValueError(
            f"{len(impostors)} impostor comparisons cannot show a false-match rate of "
            f"{false_match_rate:g}: it takes {np.ceil(1 / false_match_rate):.0f}. Give more "
            f"queries, or ask for a higher rate. Received: false_match_rate={false_match_rate!r}"
        )
    if not len(genuine):
        raise ValueError(
            "The miss rate needs queries whose label is enrolled (without `embeddings`: labels "
            "with at least two items). Received none."
        )
    if allowed >= len(impostors):
        threshold, matched = impostors[-1], len(impostors)
    else:
        # Ties with the first impostor too many stay outside; halfway to it, rounding does no harm.
        matched = int(np.searchsorted(impostors, impostors[allowed], side="left"))
        threshold = np.nextafter(impostors[0], -np.inf)
        if matched:
            threshold = (impostors[matched - 1] + impostors[allowed]) / 2
            # Between two neighbours among the floats there is no middle.
            if threshold >= impostors[allowed]:
                threshold = impostors[matched - 1]
    missed = int(np.count_nonzero(np.asarray(genuine) > threshold))
    return OperatingPoint(
        rule,
        float(threshold),
        matched / len(impostors),
        missed / len(genuine),
        len(impostors),
        len(genuine),
        float(false_match_rate),
    )


def measure(store, metric, embeddings, labels, false_match_rate, rule, k, sample, rng):
    """Compare queries with what a store holds, and find the operating point of a rule."""
    own_ids = [None] * len(labels) if labels is not None else None
    if embeddings is None:
        items = store.sample(sample, rng)
        embeddings = np.array([item.embedding for item in items], "float32")
        labels = [item.label for item in items]
        own_ids = [item.id for item in items]
    if not len(labels) or not len(store):
        raise ValueError("Calibration needs enrolled items, and queries to compare them with.")
    if rule == "verify":
        others = store.sample(sample, rng)
        parts = _pairs(store, metric, embeddings, labels, own_ids, others)
    elif rule == "centroid":
        parts = _centroids(store, metric, embeddings, labels, own_ids)
    else:
        parts = _neighbours(store, embeddings, labels, own_ids, rule, k)
    impostors, genuine = parts
    return operating_point(
        rule, [d for d in impostors if np.isfinite(d)], genuine, false_match_rate
    )


def _pairs(store, metric, embeddings, labels, own_ids, others):
    impostors, genuine = [], []
    other_vectors = np.array([item.embedding for item in others])
    other_labels = np.array([item.label for item in others], object)
    for label, rows in _by_label(labels):
        queries = stored(embeddings[rows], metric)
        strangers = other_vectors[other_labels != label]
        impostors.append(across(queries, strangers, metric).ravel())
        own = store.get(store.ids_of([label]))
        if own:
            distances = across(queries, np.array([item.embedding for item in own]), metric)
            ids = np.array([item.id for item in own], object)
            for row, line in zip(rows, distances, strict=True):
                genuine.append(line[ids != own_ids[row]])
    empty = [np.empty(0)]
    return np.concatenate(impostors or empty), np.concatenate(genuine or empty)


def _neighbours(store, embeddings, labels, own_ids, rule, k):
    voters = k if rule == "vote" else 1
    impostors, genuine = [], []
    for label, rows in _by_label(labels):
        found = store.search(embeddings[rows], voters, other_than=(label,))
        impostors += [by_matches(line, rule)[1] for line in found]
    counts = store.label_counts()
    own = own_ids[0] is not None
    rows = [row for row, label in enumerate(labels) if counts.get(label, 0) >= 1 + own]
    # One more, in case the query itself is among them.
    found = store.search(embeddings[rows], voters + own)
    for row, line in zip(rows, found, strict=True):
        line = [match for match in line if match.id != own_ids[row]][:voters]
        label, distance = by_matches(line, rule)
        genuine.append(distance if label == labels[row] else np.inf)
    return impostors, genuine


def _centroids(store, metric, embeddings, labels, own_ids):
    parts = store.centroids()
    impostors = by_centroids(embeddings, *parts, metric, without=labels)
    counts = dict(zip(parts[0], parts[2].tolist(), strict=True))
    own = own_ids[0] is not None
    rows = [row for row, label in enumerate(labels) if counts.get(label, 0) >= 1 + own]
    wanted = [labels[row] for row in rows]
    left_out = wanted if own else None
    found = by_centroids(embeddings[rows], *parts, metric, left_out=left_out)
    genuine = [
        distance if label == label_wanted else np.inf
        for (label, distance), label_wanted in zip(found, wanted, strict=True)
    ]
    return [distance for _, distance in impostors], genuine


def _by_label(labels):
    rows = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows.items()
