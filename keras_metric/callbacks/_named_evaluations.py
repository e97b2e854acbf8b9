"""The evaluations that RetrievalEvaluator accepts by name, and their checks."""

import functools

import numpy as np

from keras_metric import evaluation
from keras_metric._validation import shown
from keras_metric.evaluation._input_checks import as_codes, as_labels

_WITH_GALLERY = {
    "identification": evaluation.identification_metrics,
    "retrieval": evaluation.retrieval_metrics,
}
_OF_LABELS = {
    "clustering": evaluation.clustering_metrics,
    "few_shot": evaluation.few_shot_accuracy,
    "geometry": evaluation.geometry_metrics,
}
_NAMES = sorted([*_WITH_GALLERY, *_OF_LABELS, "verification"])


def as_evaluations(measures, has_gallery):
    """Return a function `(embeddings, labels, *gallery, k, metric)` for each name or function."""
    if not isinstance(measures, (list, tuple)):
        raise TypeError(
            f"`measures` must be a list of names and functions. Received: measures={measures!r}"
        )
    if not measures:
        raise ValueError("`measures` must hold at least one. Received: measures=()")
    for name in measures:
        if not callable(name) and (not isinstance(name, str) or name not in _NAMES):
            raise ValueError(
                f"`measures` must be functions or among {_NAMES}. "
                f"Received: {name!r} in measures={measures!r}"
            )
        if name == "identification" and not has_gallery:
            raise ValueError(
                'The measure "identification" needs a gallery. Received: gallery=None. Pass '
                "gallery=(x, y)."
            )
    return [functools.partial(_evaluate, measure) for measure in measures]


def check_labels(measures, source, gallery, k, metric):
    """Raise if the labels show that a measure will fail; batches have no labels yet."""
    parts = [part for part in (source, gallery) if part is not None and part.y is not None]
    labels = [as_labels(f"labels of {part.name}", part.y, len(part.y)) for part in parts]
    if labels:
        as_codes(*labels)
    if "identification" in measures:
        zeros = np.zeros((1, 1))
        evaluation.identification_metrics(zeros, [0], zeros, [0], k=k, metric=metric)
    if source.y is None:
        return
    zeros = np.zeros((len(labels[0]), 1), "float32")
    if "few_shot" in measures:
        evaluation.few_shot_accuracy(zeros, labels[0], episodes=2)
    if "verification" in measures:
        evaluation.pair_distances(zeros, labels[0], max_pairs=2)


def _evaluate(measure, embeddings, labels, *gallery, k, metric):
    if callable(measure):
        return _flat_dict(measure(embeddings, labels, *gallery))
    if measure in _WITH_GALLERY:
        return _WITH_GALLERY[measure](embeddings, labels, *gallery, k=k, metric=metric)
    if measure == "verification":
        scores, same = evaluation.pair_distances(embeddings, labels, metric=metric)
        return evaluation.verification_metrics(scores, same)
    return _OF_LABELS[measure](embeddings, labels)


def _flat_dict(result):
    named = isinstance(result, dict) and all(isinstance(name, str) for name in result)
    if not named or any(np.shape(value) for value in result.values()):
        raise TypeError(
            "A function in `measures` must return a dict from names to numbers. Received: "
            f"{shown(result)}"
        )
    return {name: float(value) for name, value in result.items()}
