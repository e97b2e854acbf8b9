"""What the command writes: lines on stdout, and errors that the user can correct."""

import sys


class UserError(ValueError):
    """An error that the user can correct; its text is the one line that is shown."""


def say(text):
    """Write a line to stdout, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
