"""InputSignature: what kind of inputs a network has been given."""

import keras


class InputSignature:
    """Structure, shapes and dtypes of the inputs seen so far, for batches of any size.

    A plain object: Keras would wrap a list or dict that a model holds in types of its own.
    """

    def __init__(self):
        self.structure = None

    def see(self, inputs):
        """Take in a batch; an axis whose length differs from an earlier batch becomes None."""
        tensors = keras.tree.flatten(inputs)
        if self.structure is None:
            shapes = [(None, *t.shape[1:]) for t in tensors]
            self.structure = inputs
        else:
            seen = keras.tree.flatten(self.structure)
            if len(seen) != len(tensors):
                return
            shapes = [_common(old.shape, t.shape) for old, t in zip(seen, tensors)]
            tensors = seen
        specs = [
            keras.KerasTensor(shape, keras.backend.standardize_dtype(t.dtype))
            for shape, t in zip(shapes, tensors)
        ]
        self.structure = keras.tree.pack_sequence_as(self.structure, specs)

    @property
    def count(self):
        """How many tensors a batch has, or None before the first."""
        return None if self.structure is None else len(keras.tree.flatten(self.structure))

    @property
    def names(self):
        """Keys of the inputs if they come as a dict, else an empty set."""
        return set(self.structure) if isinstance(self.structure, dict) else set()

    def to_export(self):
        """The signature as `keras.Model.export` takes it, or None before the first batch."""
        if self.structure is None:
            return None
        return [
            keras.tree.map_structure(
                lambda t: keras.layers.InputSpec(shape=t.shape, dtype=t.dtype), self.structure
            )
        ]


def _common(old, new):
    if len(old) != len(new):
        return old
    return (None, *(a if a == b else None for a, b in zip(old[1:], new[1:])))
