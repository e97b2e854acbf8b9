"""Milvus expressions: ids, labels and `where` conditions, escaped."""

import json

from keras_metric.search.index_inputs import AnyOf

LONGEST = 1024  # Milvus's own limit, in bytes, for a stored id or label.
# Milvus accepts only these escape sequences, and every other character unescaped.
_ESCAPES = str.maketrans({c: f"\\{e}" for c, e in zip('\\"\n\r\t', '\\"nrt', strict=True)})


def key_of(name):
    """The stored form of an id or label; it distinguishes the integer 1 from the string "1"."""
    text = str(name)
    if len(encoded(text)) >= LONGEST:
        raise ValueError(
            f"Milvus accepts ids and labels of up to {LONGEST - 1} bytes. Received one of "
            f"{len(text)} characters: {text[:20]!r}..."
        )
    return f"i{text}" if isinstance(name, int) else f"s{text}"


def name_of(key):
    """The id or label of a stored form."""
    return int(key[1:]) if key[0] == "i" else key[1:]


def encoded(text):
    """The bytes of a string in UTF-8, the form in which Milvus stores it."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "Milvus stores strings as UTF-8, which has no surrogate code points. Received: a "
            f"string with {text[error.start]!r} in {text[:40]!r}. Replace it; nothing was changed."
        ) from None


def quoted(value):
    """A value, or a list of values, as a literal of an expression."""
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    if isinstance(value, str):
        encoded(value)
        return f'"{value.translate(_ESCAPES)}"'
    return json.dumps(value)


def with_keys(keys):
    """The expression for the items with these keys."""
    # The client's own `ids=` argument inserts ids into an expression without escaping them.
    return f"id in {quoted(keys)}"


def condition(clause):
    """The expression for one condition of `where`."""
    field = f"attributes[{quoted(clause.name)}]"
    if isinstance(clause, AnyOf):
        # Embedded Milvus has no `in` after a JSON path.
        return " or ".join(f"{field} == {quoted(value)}" for value in clause.values)
    ends = []
    if clause.low is not None:
        ends.append(f"{field} >= {quoted(clause.low)}")
    if clause.high is not None:
        ends.append(f"{field} <= {quoted(clause.high)}")
    return " and ".join(ends)
