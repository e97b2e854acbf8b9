"""Branches: ready-made pairs, triplets and quadruplets as one batch for one encoder."""

from collections.abc import Mapping

import keras
from keras import ops

PAIR = ("first", "second")
TRIPLET = ("anchor", "positive", "negative")
QUADRUPLET = ("anchor", "positive", "negative", "second_negative")
TWO_ANCHORS = ("anchor", "second_anchor", "positive", "negative")
POSITIVE_PAIR = ("anchor", "positive")


def split(x, forms, takes_tuples, encoder):
    """The branches of `x` in the order of their form, or None if `x` is a plain batch.

    `forms` are the tuples of names that the model takes. A dict of exactly those names is
    branches; so is, where `takes_tuples`, a tuple or list of as many parts as the first form
    has names. Anything else is for the backbone of `encoder`, or a mistake.
    """
    if isinstance(x, Mapping):
        if set(x) == encoder.input_names:
            return None
        for names in forms:
            if set(x) == set(names):
                return [x[name] for name in names]
        named = set(x) & {name for names in forms for name in names}
        if named or (encoder.num_inputs == 1 and len(x) > 1):
            raise ValueError(
                f"Expected a plain batch, or the branches {listing(forms)}. Received a dict with "
                f"the keys {sorted(map(str, x))}."
            )
    elif isinstance(x, (tuple, list)):
        if takes_tuples and len(x) == len(forms[0]):
            return list(x)
        if encoder.num_inputs == 1 and len(x) > 1:
            raise ValueError(
                f"Expected a plain batch, or the branches {listing(forms)}"
                + (" or a tuple in that order" if takes_tuples else "")
                + f". Received a {type(x).__name__} of {len(x)} parts."
            )
    return None


def are_tuples(x, forms, takes_tuples):
    """Whether the arrays `x` may be branches, see `split`."""
    if isinstance(x, Mapping):
        return any(set(x) == set(names) for names in forms)
    return takes_tuples and isinstance(x, (tuple, list)) and len(x) == len(forms[0])


def check_sample_weight(x, sample_weight):
    """Raise if the sample weights look like the third branch of a bare tuple."""
    if sample_weight is None or keras.tree.is_nested(x) or len(x.shape) < 2:
        return
    weights = sample_weight.shape
    if len(weights) == len(x.shape) and weights[1:] == x.shape[1:] and weights[-1] != 1:
        raise ValueError(
            f"Received sample weights of the shape of the inputs, {tuple(weights)}. If the data "
            "set yields (anchor, positive, negative), Keras reads such a bare 3-tuple as "
            "(x, y, sample_weight): yield ((anchor, positive, negative),) to a TripletModel, or "
            'a dict {"anchor": ..., "positive": ..., "negative": ...}.'
        )


def check_weights(x, y, sample_weight, class_weight):
    """Raise for weights that Keras ignores, or fails on with an error that does not name them."""
    if class_weight is not None and not isinstance(class_weight, Mapping):
        raise TypeError(
            "`class_weight` must be a dict from a class id to its weight. Received: class_weight "
            f"of type {type(class_weight).__name__}. Of a list: dict(enumerate(class_weight))."
        )
    arrays = all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x))
    if y is not None or x is None or not arrays:
        return
    for name, weight in {"sample_weight": sample_weight, "class_weight": class_weight}.items():
        if weight is not None:
            needs = "y" if name == "sample_weight" else "class ids as y"
            raise ValueError(
                f"`{name}` needs {needs}; Keras ignores weights without it. Received no y. To "
                "weigh ready-made tuples, number them: fit(x, np.arange(n), sample_weight=...)."
            )


def join(parts):
    """One batch of all branches, one after the other; dict and list inputs inside as well."""
    first = parts[0]
    for part in parts[1:]:
        try:
            keras.tree.assert_same_structure(first, part)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "All branches must have inputs of the same structure. Received: "
                f"{_shapes(first)} and {_shapes(part)}"
            ) from error
        for a, b in zip(keras.tree.flatten(first), keras.tree.flatten(part), strict=True):
            if not _fit(a.shape, b.shape):
                raise ValueError(
                    "All branches must have the same batch size and shape: one encoder sees them "
                    f"as one batch. Received: {tuple(a.shape)} and {tuple(b.shape)}. Pad or "
                    "resize in the data set."
                )
    return keras.tree.map_structure(lambda *tensors: ops.concatenate(tensors, axis=0), *parts)


def part_again(embeddings, parts):
    """Embeddings `(branches * batch, dim)` of joined branches as `(batch, branches, dim)`."""
    batch = ops.shape(keras.tree.flatten(parts[0])[0])[0]
    stacked = ops.reshape(embeddings, (len(parts), batch, embeddings.shape[-1]))
    return ops.transpose(stacked, (1, 0, 2))


def _fit(a, b):
    return len(a) == len(b) and all(
        m == n or m is None or n is None for m, n in zip(a, b, strict=True)
    )


def _shapes(part):
    return keras.tree.map_structure(lambda t: str(tuple(t.shape)), part)


def listing(forms):
    """The forms as the dicts one would write."""
    return " or ".join("{" + ", ".join(f'"{name}": ...' for name in names) + "}" for names in forms)
