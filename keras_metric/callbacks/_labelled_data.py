"""Data with labels that RetrievalEvaluator embeds: arrays, or a source of batches."""

import keras
import numpy as np
from keras import ops

from keras_metric import distributed
from keras_metric._validation import as_array, is_numeric, rows_hint
from keras_metric.viz._pixels import as_pixels, looks_like_images, resize_to_fit
from keras_metric.viz.write_projector import LARGEST_THUMBNAIL


def _check_arrays(name, x):
    """Raise unless x holds arrays of numbers or texts with rows; some backends crash otherwise."""
    parts = keras.tree.flatten(x)
    for part in parts:
        array = part if ops.is_tensor(part) else as_array(name, part)
        is_array = isinstance(array, np.ndarray)
        if is_array and not is_numeric(array) and array.dtype.kind not in "OSUT":
            raise ValueError(f"`{name}` must be numbers. Received: {name}.dtype={array.dtype}")
        if len(array.shape) == 0 or 0 in tuple(array.shape):
            raise ValueError(
                f"`{name}` must be an array, or a dict of arrays, with a row for each item. "
                f"Received: a part of shape {tuple(array.shape)} and type {type(part).__name__}"
            )
    if not parts:
        raise ValueError(f"`{name}` must hold at least one array. Received: {name}={x!r}")


class LabelledData:
    """Arrays with labels, or an iterable of batches `(x, labels)` that can be read repeatedly.

    `x` is an array or a dict of arrays; or a source of batches, and then `y` is None.
    """

    def __init__(self, name, x, y, batch_size):
        if y is not None:
            _check_arrays(name, x)
            if np.ndim(as_array(f"labels of {name}", y)) == 0:
                raise ValueError(f"`{name}` must have one label for each row. Received: y={y!r}")
            lengths = {len(part) for part in keras.tree.flatten(x)} | {len(y)}
            if len(lengths) > 1:
                raise ValueError(
                    f"`{name}` must have one label for each row, as many in y as rows in x. "
                    f"Received: lengths {sorted(lengths)}"
                )
        elif hasattr(x, "shape") or isinstance(x, dict) or not hasattr(x, "__iter__"):
            raise ValueError(
                f"`{name}` of arrays needs labels. Received: y=None. Pass arrays with labels, "
                "or a data set that yields (x, labels)."
            )
        elif hasattr(x, "cardinality") and int(x.cardinality()) == -1:
            raise ValueError(
                f"`{name}` must be finite. Received an infinite data set: use `.take(steps)`."
            )
        elif hasattr(x, "__next__"):
            raise ValueError(
                f"`{name}` must yield its batches each time it is read. Received: a generator, "
                "which can be read once. Pass arrays, a Dataset or a PyDataset."
            )
        elif isinstance(x, (str, bytes, set, type)):
            raise TypeError(f"`{name}` must be arrays or batches. Received: {name}={x!r}")
        self.name, self.x, self.y, self.batch_size = name, x, y, batch_size

    @classmethod
    def of(cls, name, given, batch_size):
        """Return the data `given` as a tuple (x, y), or as batches."""
        if isinstance(given, tuple) and len(given) != 2:
            raise ValueError(
                f"`{name}` must be (x, y) or yield batches. Received: a tuple of {len(given)}"
            )
        return cls(name, *(given if isinstance(given, tuple) else (given, None)), batch_size)

    def embed(self, encoder, with_images):
        """Return NumPy embeddings and labels; and the images in x with `with_images`, or None."""
        if self.y is not None:
            embeddings = distributed.predict(encoder, self.x, self.batch_size)
            images = self.x if with_images and looks_like_images(self.x) else None
            return embeddings, np.asarray(self.y).reshape(-1), images
        # One pass for all three, because the order of a source may change between passes.
        batches = self.x
        if isinstance(batches, keras.utils.PyDataset):
            batches = (self.x[index] for index in range(len(self.x)))
        parts = [self._embed_batch(encoder, batch, with_images) for batch in batches]
        if not parts:
            raise ValueError(
                f"`{self.name}` must yield a batch each time it is read. Received none: a "
                "generator can be read once. Pass arrays, a Dataset or a PyDataset."
            )
        embeddings, labels, images = zip(*parts)
        images = None if images[0] is None else np.concatenate(images)
        return np.concatenate(embeddings), np.concatenate(labels), images

    def _embed_batch(self, encoder, batch, with_images):
        inputs, labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
        if labels is None:
            raise ValueError(
                f"`{self.name}` must yield (x, labels). Received a batch without labels."
            )
        if keras.backend.backend() != "tensorflow":
            # Other backends do not accept the tensors of a tf.data.Dataset.
            inputs = keras.tree.map_structure(np.asarray, inputs)
        images = None
        if with_images and looks_like_images(inputs):
            # Shrink each batch: the images of the whole data set may not fit into memory.
            images = resize_to_fit(as_pixels(inputs), LARGEST_THUMBNAIL)
        if distributed.several_workers(encoder):
            embeddings = distributed.predict(encoder, inputs, self.batch_size)
        else:
            embeddings = ops.convert_to_numpy(encoder.predict_on_batch(inputs))
        labels = np.asarray(labels)
        if labels.shape not in ((len(embeddings),), (len(embeddings), 1)):
            raise ValueError(
                f"`{self.name}` must yield one label for each item: integers or names. Received: "
                f"labels of shape {labels.shape} for {len(embeddings)} items.{rows_hint(labels)}"
            )
        return embeddings, labels.reshape(-1), images
