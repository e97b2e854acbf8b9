"""IdGuard: class ids that a loss has no class for end in an error, not in a wrong lesson."""

import keras
import numpy as np

from keras_metric.losses.weighted_sum import terms_of
from keras_metric.models import branches


class IdGuard(keras.layers.Layer):
    """Counts ids without a class, which a compiled step can see but not raise for.

    Such a batch has a loss of NaN and teaches nothing. Arrays are looked at before training;
    data sets can only be judged by their batches, so there the error comes with the end of the
    epoch.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"name": "id_guard", "dtype": "float32", **kwargs})
        self.strange = keras.metrics.Sum(name="strange_ids", dtype="float32")
        # Number of classes by name; a loss itself would be saved as if it were a part of this.
        self.told = {}
        self.built = True

    def look(self, loss, x, y):
        """Raise if the arrays or batches given to `fit` hold ids that `loss` has no class for."""
        if isinstance(y, (np.ndarray, list, tuple)):
            ids = y
        elif y is None and getattr(x, "classes", None) is not None:
            # The batches of `keras_metric.data` number the classes from 0 on.
            ids = np.arange(len(x.classes))
        else:
            return
        for term in keras.tree.flatten(loss):
            if hasattr(term, "check_ids"):
                term.check_ids(ids)
        if isinstance(x, dict) and set(x) == set(branches.PAIR):
            for term in terms_of(loss):
                if hasattr(term, "check_pairs"):
                    term.check_pairs(ids)

    def update(self, strange_ids):
        """Take in what the losses of a batch said: a list of (loss, number)."""
        for loss, number in strange_ids:
            self.told[loss.name] = loss.num_classes
            self.strange.update_state(number)

    def check(self):
        """Raise if the batches since the last reset had ids without a class."""
        if not self.told or not float(self.strange.total.numpy()):
            return
        number = int(self.strange.total.numpy())
        self.strange.reset_state()
        known = " or ".join(
            f"{name}, which has num_classes={classes}: ids must run from 0 to {classes - 1}"
            for name, classes in self.told.items()
        )
        raise ValueError(
            f"{number} labels were no class of {known}. Their batches had a loss of NaN and were "
            "not learned from. Count the classes anew, or number them: "
            "classes, ids = np.unique(labels, return_inverse=True)."
        )
