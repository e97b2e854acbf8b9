"""Ids, labels and conditions in the language of Milvus."""

import json

from keras_metric.search.where import AnyOf

LONGEST = 1024  # bytes of an id or label as Milvus keeps it: its own limit


def key_of(name):
    """An id or label as Milvus keeps it: the integer 1 and the string "1" stay apart."""
    key = f"i{name}" if isinstance(name, int) else f"s{name}"
    if len(key.encode("utf-8", "surrogatepass")) > LONGEST:
        raise ValueError(
            f"Milvus takes ids and labels of up to {LONGEST - 1} bytes. Received one of "
            f"{len(key) - 1} characters: {key[1:21]!r}..."
        )
    return key


def name_of(key):
    """The id or label that `key_of` made a key of."""
    return int(key[1:]) if key[0] == "i" else key[1:]


def quoted(value):
    """A value, or a list of them, in an expression."""
    # Milvus's strings are JSON's, but for \u escapes.
    return json.dumps(value, ensure_ascii=False)


def among(keys):
    """The expression for the items with these keys."""
    # Not the `ids=` of the client, which puts ids into an expression without escaping them.
    return f"id in {quoted(keys)}"


def condition(clause):
    """The expression for one clause of `where`."""
    field = f"attributes[{quoted(clause.name)}]"
    if isinstance(clause, AnyOf):
        # `in` after a JSON path is for servers only; this is for the embedded one too.
        return " or ".join(f"{field} == {quoted(value)}" for value in clause.values)
    ends = []
    if clause.low is not None:
        ends.append(f"{field} >= {quoted(clause.low)}")
    if clause.high is not None:
        ends.append(f"{field} <= {quoted(clause.high)}")
    return " and ".join(ends)
