"""IdGuard: detects invalid class ids during training and raises at the end of the epoch."""

import keras
import numpy as np
from keras import ops

from keras_metric.losses.weighted_sum import terms_of
from keras_metric.models import branches


class IdGuard(keras.layers.Layer):
    """Counts invalid class ids, which a compiled step can detect but cannot raise for.

    These are ids outside [0, num_classes) of a loss with classes, and floats that are no ids. Such
    a batch has a loss of NaN and no gradient. Arrays are checked before training; the labels of
    data sets are known batch by batch only, so the error comes at the end of the epoch.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"name": "id_guard", "dtype": "float32", **kwargs})
        self.strange = keras.metrics.Sum(name="strange_ids", dtype="float32")
        # Number of classes, or None for any ids, by the name of the loss; a loss itself would be
        # saved as if it were a part of this.
        self.told = {}
        self.built = True

    def look(self, loss, x, y, tuples=False):
        """Raise if the arrays or batches given to `fit` hold ids that `loss` has no class for.

        `tuples`: whether x is ready-made tuples, whose y may be something else than class ids.
        """
        if hasattr(y, "to_numpy"):
            y = y.to_numpy()  # A column of a table.
        if isinstance(y, (np.ndarray, list, tuple)):
            # Keras also takes a list with the one array of the one output.
            ids = y[0] if getattr(y, "ndim", 1) and len(y) == 1 and np.ndim(y[0]) else y
        elif y is None and getattr(x, "classes", None) is not None:
            # The batches of `keras_metric.data` number the classes from 0 on.
            ids = np.arange(len(x.classes))
        else:
            return
        for term in keras.tree.flatten(loss):
            if hasattr(term, "check_ids") and not tuples:
                term.check_ids(ids)
        if isinstance(x, dict) and set(x) == set(branches.PAIR):
            for term in terms_of(loss):
                if hasattr(term, "check_pairs"):
                    term.check_pairs(ids)

    def update(self, strange_ids):
        """Take in what the losses of a batch said: a list of (loss, number)."""
        for loss, _ in strange_ids:
            self.told[loss.name] = getattr(loss, "num_classes", None)
        if strange_ids:
            # Several losses on one batch report the same labels.
            numbers = ops.stack([number for _, number in strange_ids])
            self.strange.update_state(ops.max(numbers))

    def check(self):
        """Raise if the batches since the last reset had ids without a class."""
        if not self.told or not float(self.strange.total.numpy()):
            return
        number = int(self.strange.total.numpy())
        self.strange.reset_state()
        any_ids = [name for name, classes in self.told.items() if classes is None]
        known = [
            f"{name}, which has num_classes={classes}: ids are the integers from 0 to {classes - 1}"
            for name, classes in self.told.items()
            if classes is not None
        ]
        if any_ids:
            known.append(
                f"{' and '.join(any_ids)}, which need integers, or floats that are whole numbers "
                "below 2**24 (2048 in float16, 256 in bfloat16)"
            )
        raise ValueError(
            f"{number} labels were no class of {' or '.join(known)}. Their batches had a loss of "
            "NaN and no gradient. Count the classes again, or number them: "
            "classes, ids = np.unique(labels, return_inverse=True)."
        )
