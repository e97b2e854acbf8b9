"""Text of users and of untrusted files, made safe to show."""

import re

# Control characters, line and paragraph separators, and parts of file names that are not UTF-8.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Characters that begin markup or HTML in Markdown, or end a cell of a table.
_MARKUP = re.compile(r"[\\`*\[\]|<>&]")


def visible(text):
    r"""Return `str(text)` in one line that every terminal, file and font can take.

    Control characters, line breaks and surrogates become escapes such as `\n` and `\udce9`.
    """
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], str(text))


def as_markdown(text):
    """Return `str(text)` in one line that Markdown shows as it is: no markup, no HTML, no cells."""
    return _MARKUP.sub(r"\\\g<0>", visible(text))
