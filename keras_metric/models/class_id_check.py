"""IdGuard: detects invalid class ids during training and raises at the end of the epoch."""

import keras
import numpy as np
from keras import ops

from keras_metric.losses import MetricLoss
from keras_metric.models import branches


class IdGuard(keras.layers.Layer):
    """Counts invalid class ids, which a compiled step can detect but cannot raise for.

    Invalid ids are ids outside [0, num_classes) of a loss with classes, and floats that are no ids.
    A batch with such an id has a loss of NaN and no gradient. Arrays are checked before training;
    the labels of data sets are counted batch by batch, and raise at the end of the epoch.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"name": "id_guard", "dtype": "float32", **kwargs})
        self.number = keras.metrics.Sum(name="invalid_ids", dtype="float32")
        # Number of classes, or None for any ids, by the name of the loss. A loss object would be
        # saved as a part of this layer.
        self.num_classes = {}
        self.built = True

    def check_data(self, loss, x, y, tuples=False):
        """Raise if the arrays or batches passed to `fit` have invalid class ids for `loss`.

        `tuples`: whether x is ready-made tuples, whose y may not be class ids.
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
        pairs = isinstance(x, dict) and set(x) == set(branches.PAIR)
        for term in keras.tree.flatten(loss):
            if isinstance(term, MetricLoss):
                if not tuples:
                    term.check_ids(ids)
                if pairs:
                    term.check_pairs(ids)

    def update(self, invalid_ids):
        """Add the invalid ids of a batch, `invalid_ids` of its `StepReports`."""
        for loss, _ in invalid_ids:
            self.num_classes[loss.name] = loss.num_classes
        if invalid_ids:
            # Several losses on one batch report the same labels.
            self.number.update_state(ops.max(ops.stack([number for _, number in invalid_ids])))

    def check(self):
        """Raise if the batches since the last reset had invalid ids."""
        if not self.num_classes or not float(self.number.total.numpy()):
            return
        number = int(self.number.total.numpy())
        self.number.reset_state()
        any_ids = [name for name, classes in self.num_classes.items() if classes is None]
        requirements = [
            f"{name}, which has num_classes={classes}: ids are the integers from 0 to {classes - 1}"
            for name, classes in self.num_classes.items()
            if classes is not None
        ]
        if any_ids:
            requirements.append(
                f"{' and '.join(any_ids)}, which need integers, or floats that are whole numbers "
                "below 2**24 (2048 in float16, 256 in bfloat16)"
            )
        raise ValueError(
            f"{number} labels were no class of {' or '.join(requirements)}. Their batches had a "
            "loss of NaN and no gradient. Count the classes again, or number them: "
            "classes, ids = np.unique(labels, return_inverse=True)."
        )
