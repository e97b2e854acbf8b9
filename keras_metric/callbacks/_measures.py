"""The evaluations that RetrievalEvaluator knows by name."""

import numpy as np

from keras_metric._validation import shown
from keras_metric.evaluation import (
    clustering_metrics,
    few_shot_accuracy,
    geometry_metrics,
    identification_metrics,
    pair_distances,
    retrieval_metrics,
    verification_metrics,
)
from keras_metric.evaluation._inputs import as_codes, as_labels


def _retrieval(embeddings, labels, *gallery, k, metric):
    return retrieval_metrics(embeddings, labels, *gallery, k=k, metric=metric)


def _identification(embeddings, labels, *gallery, k, metric):
    return identification_metrics(embeddings, labels, *gallery, k=k, metric=metric)


def _verification(embeddings, labels, *gallery, k, metric):
    return verification_metrics(*pair_distances(embeddings, labels, metric=metric))


def _plain(function):
    def measure(embeddings, labels, *gallery, k, metric):
        return function(embeddings, labels)

    return measure


_BY_NAME = {
    "clustering": _plain(clustering_metrics),
    "few_shot": _plain(few_shot_accuracy),
    "geometry": _plain(geometry_metrics),
    "identification": _identification,
    "retrieval": _retrieval,
    "verification": _verification,
}


def as_measures(names, has_gallery):
    """Return a function `(embeddings, labels, *gallery, k, metric)` for each name or function."""
    if not isinstance(names, (list, tuple)):
        raise TypeError(
            f"`measures` must be a list of names and functions. Received: measures={names!r}"
        )
    if not names:
        raise ValueError("`measures` must hold at least one. Received: measures=()")
    for name in names:
        if not callable(name) and (not isinstance(name, str) or name not in _BY_NAME):
            raise ValueError(
                f"`measures` must be functions or among {sorted(_BY_NAME)}. "
                f"Received: {name!r} in measures={names!r}"
            )
        if name == "identification" and not has_gallery:
            raise ValueError(
                'The measure "identification" needs a gallery. Received: gallery=None. Pass '
                "gallery=(x, y)."
            )
    return [_called(name) if callable(name) else _BY_NAME[name] for name in names]


def check_labels(names, source, gallery, k, metric):
    """Raise where labels alone show that the measures will fail; batches have no labels yet."""
    parts = [part for part in (source, gallery) if part is not None and part.y is not None]
    labels = [as_labels(f"labels of {part.name}", part.y, len(part.y)) for part in parts]
    if labels:
        as_codes(*labels)
    if "identification" in names:
        nothing = np.zeros((1, 1))
        identification_metrics(nothing, [0], nothing, [0], k=k, metric=metric)
    if source.y is None:
        return
    nothing = np.zeros((len(labels[0]), 1), "float32")
    if "few_shot" in names:
        few_shot_accuracy(nothing, labels[0], episodes=2)
    if "verification" in names:
        pair_distances(nothing, labels[0], max_pairs=2)


def _called(function):
    def measure(embeddings, labels, *gallery, k, metric):
        result = function(embeddings, labels, *gallery)
        named = isinstance(result, dict) and all(isinstance(name, str) for name in result)
        if not named or any(np.shape(value) for value in result.values()):
            raise TypeError(
                "A function in `measures` must return a dict from names to numbers. Received: "
                f"{shown(result)}"
            )
        return {name: float(value) for name, value in result.items()}

    return measure
