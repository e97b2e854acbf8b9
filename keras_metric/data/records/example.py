"""tf.train.Example read without TensorFlow: names and their values, straight from the bytes.

A protocol buffer is a sequence of fields, each a key, which is a number with a kind, and a value.
An Example holds in field 1 the Features; those in field 1, as often as there are names, an entry
with the name (1) and the Feature (2); and a Feature either bytes (1), floats (2) or integers (3),
each of them in field 1 again. https://protobuf.dev/programming-guides/encoding
"""

import numpy as np

_VARINT, _WIDE, _BYTES, _NARROW = 0, 1, 2, 5


def parse_example(record):
    r"""Return what a serialised `tf.train.Example` holds: a dict of its features.

    For a `load=` of your own where the records of `tfrecord_items` hold more than one image.

    Args:
        record: bytes of one Example, an item of `tfrecord_items`.

    Returns:
        dict from name to values: a list of bytes, a float32 array, or an int64 array; a feature
        without values is an empty list.

    Raises:
        ValueError: the bytes are no Example.

    Example:
    >>> from keras_metric.data import parse_example
    >>> parse_example(b"\n\x0f\n\r\n\x04kind\x12\x05\x1a\x03\n\x01\x07")
    {'kind': array([7])}
    """
    if isinstance(record, str) or not hasattr(record, "__len__"):
        raise TypeError(f"`record` must be bytes. Received: record of type {type(record).__name__}")
    try:
        return {name: _values(record, *place) for name, place in _features(record)}
    except (IndexError, ValueError) as error:
        raise _no_example(record) from error


def feature(record, name):
    """Values of the feature `name` of a record, without a look at the others."""
    names = []
    try:
        for found, place in _features(record):
            if found == name:
                return _values(record, *place)
            names.append(found)
    except (IndexError, ValueError) as error:
        raise _no_example(record) from error
    raise ValueError(f"No feature {name!r} in a record. Received one with {sorted(names)}.")


def _features(record):
    """Yield (name, (start, end) of its Feature)."""
    for number, start, end in _fields(record, 0, len(record)):
        if number == 1:
            for _, entry, entry_end in _fields(record, start, end):
                parts = {n: place for n, *place in _fields(record, entry, entry_end)}
                name = slice(*parts[1]) if 1 in parts else slice(0)
                yield bytes(record[name]).decode(), parts.get(2, (0, 0))


def _values(record, start, end):
    for kind, first, last in _fields(record, start, end):
        # Numbers come in one packed piece; old writers give each a field of its own.
        pieces = [bytes(record[s:e]) for _, s, e in _fields(record, first, last)]
        if kind == 1:
            return pieces
        if kind == 2:
            return np.frombuffer(b"".join(pieces), "<f4")
        return np.array([n for piece in pieces for n in _integers(piece)], "int64")
    return []


def _fields(record, start, end):
    """Yield (number, start of the value, its end)."""
    while start < end:
        key, start = _varint(record, start)
        kind = key & 7
        if kind == _BYTES:
            size, start = _varint(record, start)
            after = start + size
        elif kind == _VARINT:
            after = _varint(record, start)[1]
        elif kind in (_WIDE, _NARROW):
            after = start + (8 if kind == _WIDE else 4)
        else:
            raise IndexError(f"no field of kind {kind}")
        if after > end:
            raise IndexError("a field that ends behind its message")
        yield key >> 3, start, after
        start = after


def _varint(record, start):
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = record[start]
    start += 1
    if value < 128:
        return value, start
    value, shift = value & 127, 7
    while True:
        byte = record[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than ten bytes")


def _integers(piece):
    start = 0
    while start < len(piece):
        value, start = _varint(piece, start)
        value &= (1 << 64) - 1
        # 64 bits of two's complement.
        yield value - (1 << 64) if value >> 63 else value


def _no_example(record):
    return ValueError(
        f"A record must be a serialised tf.train.Example. Received: {len(record)} bytes that begin "
        f"with {bytes(record[:16])!r}. Read other records by a `load` function of your own."
    )
