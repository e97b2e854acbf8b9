"""Checks of the embeddings, labels and scores that are plotted, and samples of them."""

import numpy as np

from keras_metric._validation import as_array
from keras_metric.evaluation import _input_checks
from keras_metric.evaluation.roc import roc_curve
from keras_metric.viz._pixels import channels_last


def check_length(name, values, count, items):
    """Raise unless `values` has `count` entries, one for each of the `items` (a noun)."""
    if len(values) != count:
        raise ValueError(
            f"`{name}` must hold one entry for each of {count} {items}. Received: {len(values)}"
        )


def as_matrix(name, value):
    """Return `value` as a finite float array of shape `(items, dim)` with at least one item."""
    array = _input_checks.as_embeddings(name, value)
    if not len(array):
        raise ValueError(f"`{name}` must hold at least one item. Received: shape {array.shape}")
    return array


def as_labels(name, value, num_items):
    """Return `value` as an array of shape `(num_items,)` of any kind that can be sorted."""
    array = _input_checks.as_labels(name, value, num_items, as_ids=False)
    try:
        np.sort(array)
    except TypeError as error:
        raise ValueError(
            f"`{name}` must be comparable with each other, all of one type. Received: "
            f"{name}.dtype={array.dtype}"
        ) from error
    return array


def as_items(embeddings, labels):
    """Return float32 embeddings, the labels, and class numbers from 0."""
    embeddings = as_matrix("embeddings", embeddings).astype("float32", copy=False)
    labels = as_labels("labels", labels, len(embeddings))
    return embeddings, labels, np.unique(labels, return_inverse=True)[1]


def as_labelled_images(images, labels):
    """Return images, in the layout that is given, and their labels."""
    images = as_array("images", images)
    channels_last(images)  # raises for another shape
    return images, None if labels is None else as_labels("labels", labels, len(images))


def sample(num_items, limit, seed):
    """Return sorted indices: all of them, or `limit` sampled uniformly with `seed`."""
    if num_items <= limit:
        return np.arange(num_items)
    return np.sort(np.random.default_rng(seed).choice(num_items, limit, replace=False))


def sampled_items(embeddings, labels, max_items, seed):
    """Return the rows of at most `max_items` items, their embeddings and codes, and the classes.

    Codes are class numbers; `classes[code]` is the label of one.
    """
    embeddings, labels, codes = as_items(embeddings, labels)
    if len(labels) < 2:
        raise ValueError(f"Neighbours need two items. Received: {len(labels)} in `embeddings`")
    kept = sample(len(labels), max_items, seed)
    return kept, embeddings[kept], codes[kept], np.unique(labels)


def as_curves(scores, same, larger_is_closer):
    """Return a dict from a name, empty for a single array, to its `roc_curve`."""
    named = scores if isinstance(scores, dict) else {"": scores}
    if not named:
        raise ValueError("`scores` must hold at least one array. Received: scores={}")
    curves = {name: roc_curve(part, same, larger_is_closer) for name, part in named.items()}
    first = next(iter(curves.values()))
    if not (first.num_same and first.num_different):
        raise ValueError(
            f"A curve needs same and different pairs. Received: {first.num_same} same and "
            f"{first.num_different} different."
        )
    return curves
