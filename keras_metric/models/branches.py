"""Branches of ready-made pairs, triplets and quadruplets: recognize, check, join and stack them."""

from collections.abc import Mapping

import keras
from keras import ops

PAIR = ("first", "second")
TRIPLET = ("anchor", "positive", "negative")
QUADRUPLET = ("anchor", "positive", "negative", "second_negative")
TWO_ANCHORS = ("anchor", "second_anchor", "positive", "negative")
POSITIVE_PAIR = ("anchor", "positive")


def split(x, forms, takes_tuples, encoder):
    """Return the branches of `x` in the order of their form, or None if `x` is a plain batch.

    `forms` are tuples of branch names. A dict with exactly the names of a form contains branches.
    With `takes_tuples`, so does a tuple or list as long as the first form. Other structures are
    inputs of the backbone if it takes several; otherwise ValueError is raised.
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
    """Return whether `x` has the structure of branches, see `split`."""
    if isinstance(x, Mapping):
        return any(set(x) == set(names) for names in forms)
    return takes_tuples and isinstance(x, (tuple, list)) and len(x) == len(forms[0])


def check_sample_weight(x, sample_weight):
    """Raise ValueError if the sample weights have the shape of a third branch."""
    if sample_weight is None or keras.tree.is_nested(x) or len(x.shape) < 2:
        return
    weights = sample_weight.shape
    if len(weights) == len(x.shape) and weights[1:] == x.shape[1:] and weights[-1] != 1:
        raise ValueError(
            f"Received sample weights with the shape of the inputs, {tuple(weights)}. Keras reads "
            "(anchor, positive, negative) from a data set as (x, y, sample_weight): yield "
            "((anchor, positive, negative),) to a TripletModel, or a dict "
            '{"anchor": ..., "positive": ..., "negative": ...}.'
        )


def check_weights(x, y, sample_weight, class_weight):
    """Raise for weights that Keras ignores or rejects with an unclear error."""
    if class_weight is not None and not isinstance(class_weight, Mapping):
        raise TypeError(
            "`class_weight` must be a dict from a class id to its weight. Received: class_weight "
            f"of type {type(class_weight).__name__}. For a list: dict(enumerate(class_weight))."
        )
    arrays = all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x))
    if y is not None or x is None or not arrays:
        return
    for name, weight in {"sample_weight": sample_weight, "class_weight": class_weight}.items():
        if weight is not None:
            needs = "y" if name == "sample_weight" else "class ids as y"
            raise ValueError(
                f"`{name}` needs {needs}; Keras ignores weights without y. Received no y. For "
                "ready-made tuples pass row numbers: fit(x, np.arange(n), sample_weight=...)."
            )


def join(parts):
    """Concatenate all branches along the batch axis, also those that are dicts or lists."""
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
            if not _are_compatible(a.shape, b.shape):
                raise ValueError(
                    "All branches must have the same batch size and shape: they become one batch. "
                    f"Received: {tuple(a.shape)} and {tuple(b.shape)}. Pad or resize in the data "
                    "set."
                )
    return keras.tree.map_structure(lambda *tensors: ops.concatenate(tensors, axis=0), *parts)


def stack(embeddings, parts):
    """Reshape embeddings of joined branches to `(batch, branches, dim)`."""
    batch = ops.shape(keras.tree.flatten(parts[0])[0])[0]
    stacked = ops.reshape(embeddings, (len(parts), batch, embeddings.shape[-1]))
    return ops.transpose(stacked, (1, 0, 2))


def _are_compatible(a, b):
    return len(a) == len(b) and all(
        m == n or m is None or n is None for m, n in zip(a, b, strict=True)
    )


def _shapes(part):
    return keras.tree.map_structure(lambda t: str(tuple(t.shape)), part)


def listing(forms):
    """Return the forms as text, each as the dict to write in Python."""
    return " or ".join("{" + ", ".join(f'"{name}": ...' for name in names) + "}" for names in forms)
