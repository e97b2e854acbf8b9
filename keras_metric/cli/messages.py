"""Output of the command: lines on stdout, notes on stderr, and UserError."""

import sys

from keras_metric._text import visible


class UserError(ValueError):
    """An error that the user can correct; the command prints its text as one line."""


def show(text):
    """Write lines to stdout without buffering."""
    # Names of files and classes may contain control characters, or bytes that are not UTF-8.
    sys.stdout.write("".join(f"{visible(line)}\n" for line in text.split("\n")))
    sys.stdout.flush()


def note(text):
    """Write a note to stderr."""
    sys.stderr.write(f"keras-metric: note: {visible(text)}\n")
