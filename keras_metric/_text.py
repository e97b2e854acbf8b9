"""Escaping of text from users and untrusted files."""

import re

# Control characters, line and paragraph separators, and parts of file names that are not UTF-8.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Characters that begin markup or HTML in Markdown, or end a cell of a table.
_MARKUP = re.compile(r"[\\`*\[\]|<>&]")


def visible(text):
    r"""Return `str(text)` as one printable line.

    Control characters, line breaks and surrogates become escapes such as `\n` and `\udce9`.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(text))


def as_markdown(text):
    """Return `str(text)` as one line with the special characters of Markdown and HTML escaped."""
    return _MARKUP.sub(r"\\\g<0>", visible(text))
