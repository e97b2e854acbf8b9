"""Parsing of serialised `tf.train.Example` messages.

The package parses them with protobuf, the library that TensorFlow itself uses and that tensorboard
installs. So TFRecord files are read in the same way on every backend, without importing TensorFlow.
"""

import functools

import numpy as np

# The message tf.train.Example, with the map of features written as repeated entries: the bytes of
# the two are the same. https://protobuf.dev/programming-guides/encoding/#maps
_LISTS = (("BytesList", "TYPE_BYTES"), ("FloatList", "TYPE_FLOAT"), ("Int64List", "TYPE_INT64"))
_MESSAGES = {
    **{name: [("value", "LABEL_REPEATED", kind)] for name, kind in _LISTS},
    "Feature": [(name, "LABEL_OPTIONAL", name) for name, _ in _LISTS],
    "Entry": [("key", "LABEL_OPTIONAL", "TYPE_STRING"), ("value", "LABEL_OPTIONAL", "Feature")],
    "Features": [("feature", "LABEL_REPEATED", "Entry")],
    "Example": [("features", "LABEL_OPTIONAL", "Features")],
}


def parse_example(record):
    r"""Parse a serialised `tf.train.Example` into a dict of its features.

    Use it in a `load=` function where the records of `tfrecord_items` hold more than one image.

    Args:
        record: bytes of one Example, an item of `tfrecord_items`.

    Returns:
        dict from name to values: a list of bytes, a float32 array, or an int64 array; a feature
        without values is an empty list.

    Raises:
        TypeError: `record` is not bytes.
        ValueError: the bytes are not an Example.

    Example:
    >>> from keras_metric.data import parse_example
    >>> parse_example(b"\n\x0f\n\r\n\x04kind\x12\x05\x1a\x03\n\x01\x07")
    {'kind': array([7])}
    """
    return {entry.key: _values(entry.value) for entry in _entries(record)}


def feature_values(record, name):
    """Return the values of the feature `name` of a record."""
    entries = _entries(record)
    for entry in entries:
        if entry.key == name:
            return _values(entry.value)
    found = sorted(entry.key for entry in entries)
    raise ValueError(f"No feature {name!r} in a record. Received one with {found}.")


def _entries(record):
    message, decode_error = _example_class()
    if isinstance(record, str) or not hasattr(record, "__len__"):
        raise TypeError(f"`record` must be bytes. Received: record of type {type(record).__name__}")
    try:
        return message.FromString(record).features.feature
    except decode_error as error:
        raise ValueError(
            "A record must be a serialised tf.train.Example. Received: "
            f"{len(record)} bytes that begin with {bytes(record[:16])!r}. Read other records with "
            "your own `load` function."
        ) from error


def _values(feature):
    if feature.HasField("BytesList"):
        return list(feature.BytesList.value)
    if feature.HasField("FloatList"):
        return np.array(feature.FloatList.value, "float32")
    return np.array(feature.Int64List.value, "int64") if feature.HasField("Int64List") else []


@functools.cache
def _example_class():
    """The class of the message, and the exception that its parser raises."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for number, (name, label, kind) in enumerate(fields, start=1):
            field = described.field.add(name=name, number=number, label=label)
            if kind in _MESSAGES:
                field.type_name, kind = kind, "TYPE_MESSAGE"
            field.type = field.Type.Value(kind)
    # A pool of its own: TensorFlow's messages are in the default one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    described = pool.FindMessageTypeByName("Example")
    return message_factory.GetMessageClass(described), message.DecodeError
