"""The command line: train on a folder of images, evaluate, index, search, draw.

Thin: each command reads arguments and calls the library, and has a file of its own. `main` gives
the exit code, 0 or, for what the user can put right, 2 and one line on stderr.
"""

from keras_metric.cli.command_line import main

__all__ = ["main"]
