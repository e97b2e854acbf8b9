"""What the command says: lines on stdout, and what went wrong in one line."""

import sys


class UserError(Exception):
    """What the user can put right; its text is the one line that is shown."""


def say(text):
    """Write a line to stdout, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def one_line(error):
    """The text of an error without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
