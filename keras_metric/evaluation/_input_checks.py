"""Checks and conversions of the arguments of the evaluation functions."""

import numpy as np

from keras_metric._validation import (
    as_array,
    check_count,
    check_number,
    is_missing,
    is_numeric,
    rows_hint,
    shown,
    without_floats,
)

_LARGEST_CUT = np.iinfo("int64").max


def as_cuts(k):
    """Return the cut-offs `k`, an integer of at least 1 or several, as a list."""
    cuts = [k] if np.ndim(k) == 0 else list(k)
    for cut in cuts:
        check_count("k", cut)
        if cut > _LARGEST_CUT:
            raise ValueError(f"`k` must be at most {_LARGEST_CUT}. Received: k={shown(k)}")
    return cuts


def as_rates(far):
    """Return `far`, one or several numbers in 0 to 1, as a list; each is in a name of a result."""
    rates = [far] if np.ndim(far) == 0 else list(far)
    for rate in rates:
        check_number("far", rate, at_least=0, at_most=1)
    if len({f"{rate:g}" for rate in rates}) < len(set(rates)):
        raise ValueError(
            "`far` must differ in the first six digits, which are in the names of the results. "
            f"Received: far={shown(far)}"
        )
    return rates


def as_embeddings(name, value):
    """Return `value` as a finite floating point NumPy array of shape `(items, dim)`."""
    array = as_array(name, value)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(
            f"`{name}` must have shape (items, dim). Received: {name}.shape={array.shape}. "
            "Flatten images or maps with `x.reshape(len(x), -1)`."
        )
    if not is_numeric(array):
        raise ValueError(f"`{name}` must be numbers. Received: {name}.dtype={array.dtype}")
    if array.dtype != np.float64:
        # Integers beyond 24 bits would lose digits in float32; half precision gains no speed.
        # Floats of the other byte order and longer floats also become float64.
        wide = array.dtype.itemsize > (2 if array.dtype.kind in "iu" else 4)
        array = array.astype("float64" if wide else "float32", copy=False)
    for start in range(0, len(array), 4096):
        finite = np.isfinite(array[start : start + 4096]).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"`{name}` must be finite. Received: NaN or infinity in row "
                f"{start + int(np.argmin(finite))} of {name}.shape={array.shape}. The encoder "
                "diverged, or a zero vector was normalised."
            )
    return array


def as_labels(name, value, num_items, as_ids=True):
    """Return `value` as a NumPy array of shape `(num_items,)` and any dtype.

    `as_ids`: whether floats must be class ids (whole numbers); they are then cast to integers.
    """
    array = as_array(name, value)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (num_items,):
        raise ValueError(
            f"`{name}` must have shape ({num_items},): one label for each item. "
            f"Received: {name}.shape={array.shape}.{rows_hint(array)}"
        )
    missing = _missing(array)
    if missing.any():
        row = int(np.argmax(missing))
        raise ValueError(
            f"`{name}` must have a label in every row, and no NaN. Received: {array[row]!r} in row "
            f"{row}"
        )
    return without_floats(name, array) if as_ids else array


def _missing(array):
    """Return a mask of the missing labels: NaN, NaT, or pandas' NA; None is a label."""
    if array.dtype.kind in "cfmM":
        return np.isnat(array) if array.dtype.kind in "mM" else np.isnan(array)
    if array.dtype.kind != "O":
        return np.zeros(1, bool)
    return np.array([is_missing(value) for value in array], bool)


def as_gallery(embeddings, labels, shape):
    """Return a gallery's `(embeddings, labels)` for queries of `shape`, or None without one."""
    if embeddings is None and labels is None:
        return None
    if embeddings is None or labels is None:
        missing = "gallery_embeddings" if embeddings is None else "gallery_labels"
        raise ValueError(
            "A gallery needs both embeddings and labels. "
            f"Received: {missing}=None. Omit both for leave-one-out."
        )
    gallery = as_gallery_embeddings(embeddings, shape)
    return gallery, as_labels("gallery_labels", labels, len(gallery))


def as_gallery_embeddings(value, shape):
    """Return a gallery's embeddings for queries of `shape`."""
    gallery = as_embeddings("gallery_embeddings", value)
    if gallery.shape[1] != shape[1]:
        raise ValueError(
            "Queries and gallery must have the same width. Received: "
            f"embeddings.shape={shape}, gallery_embeddings.shape={gallery.shape}"
        )
    return gallery


def as_codes(*labels):
    """Number the labels of several arrays together: equal labels get equal codes from 0 up."""
    lengths = [len(part) for part in labels]
    # An empty list becomes an array of floats, which must not count as a kind of labels.
    labels = [part for part in labels if len(part)] or labels
    kinds = {_kind(part) for part in labels}
    if len(kinds - {"O"}) > 1:
        raise ValueError(
            "`labels` of queries and gallery must be of one kind. Received: "
            f"dtypes={[str(part.dtype) for part in labels]}"
        )
    if len({part.dtype for part in labels}) > 1 and kinds <= {"number", "text", "O"}:
        # NumPy would join int64 and uint64 as float64, where large ids become equal. Strings of a
        # pandas table are objects, and equal to those of a list.
        labels = [part.astype(object) for part in labels]
    try:
        codes = np.unique(np.concatenate(labels), return_inverse=True)[1].reshape(-1)
    except TypeError as error:
        raise ValueError(
            "`labels` must be comparable with each other, all of one type. Received: "
            f"dtypes={[str(part.dtype) for part in labels]}"
        ) from error
    return np.split(codes, np.cumsum(lengths)[:-1])


def _kind(labels):
    kind = labels.dtype.kind
    return "number" if kind in "iufb" else "text" if kind in "UT" else kind
