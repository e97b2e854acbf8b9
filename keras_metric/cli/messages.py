"""Output of the command: lines on stdout, and errors that the user can correct."""

import sys

from keras_metric._text import visible


class UserError(ValueError):
    """An error that the user can correct; its text is the one line that is shown."""


def say(text):
    """Write a line to stdout, at once."""
    # Names of files and classes may hold control characters, or bytes that are not UTF-8.
    sys.stdout.write("".join(f"{visible(line)}\n" for line in text.split("\n")))
    sys.stdout.flush()
